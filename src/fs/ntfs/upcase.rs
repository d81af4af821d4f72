//! $UpCase, the table by which names are compared and sorted. Always the table of the volume itself.

use std::cmp::Ordering;
use vmrescue_base::error::{Error, Layer, Result};

/// Units of the table.
const UNITS: usize = 0x10000;

/// The upper case of every UTF-16 unit.
#[derive(Clone)]
pub(crate) struct UpCase(Box<[u16]>);

impl UpCase {
    /// From the bytes of $UpCase.
    ///
    /// # Errors
    /// `Damaged` when it is not 128 KiB.
    pub(crate) fn parse(bytes: &[u8]) -> Result<UpCase> {
        if bytes.len() != UNITS * 2 {
            return Err(Error::damaged(Layer::Ntfs, "size of $UpCase")
                .expected(UNITS * 2)
                .found(bytes.len()));
        }
        Ok(UpCase(vmrescue_base::text::utf16le_units(bytes).into_boxed_slice()))
    }

    /// A table that only knows what Unicode says, for a volume whose own table cannot be read.
    pub(crate) fn from_units(units: Vec<u16>) -> UpCase {
        UpCase(units.into_boxed_slice())
    }

    /// The upper case of a unit.
    pub(crate) fn unit(&self, unit: u16) -> u16 {
        self.0.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// COLLATION_FILE_NAME: units in upper case, then the length.
    pub(crate) fn compare(&self, a: impl Iterator<Item = u16>, b: impl Iterator<Item = u16>) -> Ordering {
        a.map(|unit| self.unit(unit)).cmp(b.map(|unit| self.unit(unit)))
    }
}
