//! Registry hives: read leniently, edited in place with the fewest changed bytes.
//!
//! Source: the regf format as documented by Joachim Metz (libregf) and Maxim Suhanov (regf specification).
//! A hive is one buffer in memory; keys and values borrow from it.
//! Reading: [`Hive`], [`Key`], [`Value`]. Writing: [`HiveEditor`]. Transaction logs: `log`.
//!
//! Missing: recovery of deleted keys, `.reg` text, repair of broken hives.

mod cell;
mod check;
mod editor;
mod free;
mod hive;
mod key;
mod log;
mod subkeys;
#[cfg(test)]
mod tests;
mod value;

pub use editor::{Edited, HiveEditor};
pub use hive::Hive;
pub use key::Key;
pub use value::{DataType, Value, ValueData};
