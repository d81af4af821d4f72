//! Files as Windows' updates and its component store pack them, unpacked without Windows.
//!
//! * [`decode`]: any payload by its head: `DCS`, `DCN`, `DCM`, `DCD`, PA30 and PA31 deltas, plain
//! * [`delta`]: what a delta says of itself, and applying it
//! * [`lzms`], [`lzx`], [`xpress`]: the unpackers
//!
//! Everything is bounded by what the caller allows, and nothing is believed: only a hash from elsewhere proves a result.

#[cfg(test)]
mod chunk_tests;
pub mod dcs;
pub mod delta;
mod huffman;
pub mod lzms;
pub mod lzx;
mod payload;
pub mod testing;
pub mod xpress;

pub use payload::{Decoded, Form, decode, form};
