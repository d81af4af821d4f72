//! One Windows installation as objects: found on a disk by what its files and hives say; no raw offsets in here.
//!
//! * [`Machine`]: the disk, its volumes and installations, paths as the guest types them
//! * [`BootLayout`]: firmware, system partition, boot stores
//! * [`Service`]: services and drivers with the file behind each
//! * [`PeInfo`]: what a driver file says about itself
//! * [`store_versions`]: the versions of a file in the component store
//! * [`Updates`]: packages, and what waits for the next start
//! * [`facts::Facts`]: everything that `inspect` tells, one file a subject
//! * [`Dump`]: the header of a crash dump
//! * [`bitlocker::BitLocker`]: an encrypted volume from the outside
//! * [`events`]: event logs, and what they say on starts, stops and crashes

pub mod bcd;
pub mod bitlocker;
mod boot;
mod bugcheck;
mod component_store;
mod dump;
pub mod events;
pub mod facts;
mod keys;
mod machine;
mod pe;
mod roles;
mod services;
mod updates;
mod version_resource;

pub use boot::{BootLayout, boot_layout, boot_stores, load_store, partition_ref};
pub use bugcheck::bugcheck_name;
pub use component_store::{StoreFile, store_versions};
pub use dump::{DUMP_HEADER_BYTES, Dump, KernelDump};
pub use facts::facts;
pub use machine::{HIVES, Installation, Machine, Volume, config_path, hive_of};
pub use pe::{Payload, PeInfo, machine_name, payload_kind, pe_checksum};
pub use roles::{Role, roles};
pub use services::{Service, expand_image_path, services};
pub use updates::{Package, Updates, state_name, updates};
