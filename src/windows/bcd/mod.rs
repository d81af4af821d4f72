//! Boot configuration data: the store that the boot manager reads, as typed objects over a registry hive.
//!
//! Layouts and numbers were taken from stores that Windows made, and from Microsoft's BCD WMI reference.
//!
//! * `device` takes device elements apart and builds them; `value` the data of all elements; `element` knows
//!   numbers, names and words; `names` the well-known objects.
//! * [`Store`] is a store in memory; `edit` changes it by bcdedit's names; `defaults` makes a fresh one.
//! * `hive` reads a store from a hive, and turns the difference of two stores into changes of the hive.
//! * `resolve` holds a store against the partitions of a disk; `text` prints it as bcdedit does.

pub mod defaults;
pub mod device;
pub mod edit;
pub mod element;
pub mod hive;
mod load;
pub mod names;
pub mod resolve;
mod store;
pub mod text;
pub mod value;
mod words;

pub use defaults::{Firmware, FreshSpec, Recovery, fresh};
pub use device::{Device, DeviceElement, PartitionRef};
pub use edit::Place;
pub use hive::{HiveChange, changes, element_key};
pub use resolve::{DiskMap, MapPartition, Resolution};
pub use store::{Object, Store};
pub use text::{Dangling, ObjectView, Options, dangling, enumerate, view};
pub use value::Value;
pub use words::{element_words, value_words};
