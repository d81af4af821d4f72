//! Files as Windows' updates and its component store pack them, unpacked without Windows.
//!
//! * [`decode`]: any payload by its head: `DCS`, `DCN`, `DCM`, `DCD`, PA30 and PA31 deltas, plain
//! * [`delta`]: what a delta says of itself, and applying it
//! * [`cab`], [`psf`]: the files of cabinets and of express storages
//! * [`lzms`], [`lzx`], [`xpress`]: the unpackers
//!
//! Everything is bounded by what the caller allows, and nothing is believed: only a hash from elsewhere proves a result.

pub mod cab;
#[cfg(test)]
mod chunk_tests;
pub mod dcs;
pub mod delta;
mod huffman;
pub mod lzms;
pub mod lzx;
mod lzx_cabinet;
mod payload;
pub mod psf;
pub mod testing;
pub mod xml;
pub mod xpress;

pub use payload::{Decoded, Form, decode, form};
