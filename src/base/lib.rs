//! The ground of vmrescue: errors with their place, limits, bytes, text, names, time, GUIDs, progress.
//!
//! Every other crate of the workspace stands on this one; it depends on nothing but the standard library.

pub mod bytes;
pub mod error;
pub mod guid;
pub mod limits;
pub mod names;
pub mod progress;
pub mod text;
pub mod time;

pub use error::{Defect, Error, ErrorKind, Layer, Result, Severity};
