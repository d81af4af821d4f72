//! The writing half of NTFS.
#![allow(dead_code, reason = "the volume writer, which uses the decoders, lands next")]

pub(crate) mod attribute;
pub(crate) mod entry;
pub(crate) mod record;
pub(crate) mod runs;
