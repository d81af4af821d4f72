//! Registry hives: read leniently, edited in place with the fewest changed bytes.
//!
//! Source: the regf format as documented by Joachim Metz (libregf) and Maxim Suhanov (regf specification).
//! A hive is one buffer in memory; keys and values borrow from it.
//! Reading: [`Hive`], [`Key`], [`Value`]. Writing: [`HiveEditor`]. Transaction logs: `log`.
//!
//! Text: [`reg_text`]. Damage: [`Hive::deleted`], [`rebuild`].

mod cell;
mod check;
mod deleted;
mod editor;
mod free;
mod hive;
mod key;
mod log;
pub mod path;
mod rebuild;
pub mod reg_text;
mod security;
mod subkeys;
#[cfg(test)]
mod tests;
mod value;

pub use deleted::{Remnant, RemnantKind};
pub use editor::{Edited, HiveEditor};
pub use hive::Hive;
pub use key::{Key, Layered};
pub use path::KeyPath;
pub use rebuild::rebuild;
pub use value::{DataType, Value, ValueData};
