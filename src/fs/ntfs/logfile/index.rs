//! What log records do to the entries of an index, in a root and in a block: both have the same header.
//!
//! Every function gives the reason when the entry that the record means is not there.

use vmrescue_base::bytes::{put_at, slice_at, u16_at, u32_at};

/// Why an operation does not fit to what is there.
pub(crate) type Reason = &'static str;

/// Bytes of the header of an entry.
const ENTRY_BYTES: usize = 0x10;
/// Entry flag: the last field is the VCN of the block below.
const HAS_SUBNODE: u16 = 1;
/// Entry flag: the last one.
const LAST: u16 = 2;
/// Bytes of the facts of a name that are repeated in the directory: times, sizes, attributes.
const DUPLICATED_BYTES: usize = 0x38;

/// An index header in `bytes`: entries, their end, room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    /// Where it lies.
    at: usize,
    /// First entry.
    first: usize,
    /// End of the entries.
    pub(crate) end: usize,
    /// End of the room for them.
    pub(crate) limit: usize,
}

impl Header {
    /// The header at `at`; its room must end inside `bytes`.
    pub(crate) fn at(bytes: &[u8], at: usize) -> Result<Header, Reason> {
        let field = |offset| u32_at(bytes, at + offset).map(|value| at.saturating_add(value as usize));
        let (first, end, limit) = match (field(0), field(4), field(8)) {
            (Some(first), Some(end), Some(limit)) => (first, end, limit),
            _ => return Err("the index header is cut off"),
        };
        if first < at + ENTRY_BYTES || first > end || end > limit || limit > bytes.len() {
            return Err("the index header does not hold its own sizes");
        }
        Ok(Header { at, first, end, limit })
    }

    /// Says how many bytes the entries and their room now have.
    pub(crate) fn set(&self, bytes: &mut [u8], end: usize, limit: usize) -> Result<(), Reason> {
        let value = |place: usize| ((place - self.at) as u32).to_le_bytes(); // both lie behind the header, in one block
        let fits = put_at(bytes, self.at + 4, &value(end)) && put_at(bytes, self.at + 8, &value(limit));
        if fits { Ok(()) } else { Err("the index header is cut off") }
    }

    /// Length and flags of the entry at `place`, which must be the start of one.
    pub(crate) fn entry(&self, bytes: &[u8], place: usize) -> Result<(usize, u16), Reason> {
        let mut at = self.first;
        // Bounded: every entry has at least 16 bytes.
        loop {
            let length = usize::from(u16_at(bytes, at + 8).unwrap_or(0));
            let flags = u16_at(bytes, at + 0x0C).unwrap_or(0);
            if length < ENTRY_BYTES || !length.is_multiple_of(8) || at + length > self.end {
                return Err("the entries of the index do not follow each other");
            }
            if at == place {
                return Ok((length, flags));
            }
            if at > place || flags & LAST != 0 {
                return Err("no entry of the index begins where the record says");
            }
            at += length;
        }
    }

    /// The entry at `place`, when it is not the last, whose only content is its end.
    pub(crate) fn real_entry(&self, bytes: &[u8], place: usize) -> Result<usize, Reason> {
        match self.entry(bytes, place)? {
            (_, flags) if flags & LAST != 0 => Err("the last entry of an index is never taken out"),
            (length, _) => Ok(length),
        }
    }
}

/// The length of an entry that a record brings; it must be whole.
pub(crate) fn new_entry(data: &[u8]) -> Result<usize, Reason> {
    let length = usize::from(u16_at(data, 8).unwrap_or(0));
    let whole = length >= ENTRY_BYTES && length.is_multiple_of(8) && length <= data.len();
    if whole { Ok(length) } else { Err("the new entry is not whole") }
}

/// Gives the entry at `place` the block that lies below it.
pub(crate) fn set_vcn(bytes: &mut [u8], header: Header, place: usize, vcn: &[u8]) -> Result<(), Reason> {
    let (length, flags) = header.entry(bytes, place)?;
    let vcn = vcn.get(..8).ok_or("no VCN in the record")?;
    let fits = flags & HAS_SUBNODE != 0 && length >= ENTRY_BYTES + 8;
    if fits && put_at(bytes, place + length - 8, vcn) {
        Ok(())
    } else {
        Err("the entry has no block below it")
    }
}

/// Gives the name at `place` new times, sizes and attributes.
pub(crate) fn update_name(
    bytes: &mut [u8],
    header: Header,
    place: usize,
    facts: &[u8],
) -> Result<(), Reason> {
    let (length, _) = header.entry(bytes, place)?;
    let facts = &facts[..facts.len().min(DUPLICATED_BYTES)];
    let fits = ENTRY_BYTES + 8 + facts.len() <= length;
    if fits && put_at(bytes, place + ENTRY_BYTES + 8, facts) {
        Ok(())
    } else {
        Err("the entry is too short for a file name")
    }
}

/// Gives the entry at `place` of a view index new data.
pub(crate) fn update_data(bytes: &mut [u8], header: Header, place: usize, data: &[u8]) -> Result<(), Reason> {
    let (length, _) = header.entry(bytes, place)?;
    let offset = usize::from(u16_at(bytes, place).unwrap_or(0));
    let fits = offset >= ENTRY_BYTES && offset + data.len() <= length;
    if fits && put_at(bytes, place + offset, data) {
        Ok(())
    } else {
        Err("the entry is too short for its data")
    }
}

/// An operation on a block, fixups out. `place` counts from the start of the block.
pub(crate) mod block {
    use super::super::ops;
    use super::{Header, Reason, new_entry, put_at, set_vcn, slice_at, update_data, update_name};

    /// Where the header of the entries begins in a block.
    const HEADER: usize = 0x18;

    /// Does `operation` to the block.
    pub(crate) fn apply(block: &mut [u8], operation: u16, place: usize, data: &[u8]) -> Result<(), Reason> {
        let header = Header::at(block, HEADER)?;
        match operation {
            ops::ADD_ENTRY_BLOCK => {
                let length = new_entry(data)?;
                header.entry(block, place)?;
                if header.end + length > header.limit {
                    return Err("the block has no room for the new entry");
                }
                block.copy_within(place..header.end, place + length);
                block[place..place + length].copy_from_slice(&data[..length]);
                header.set(block, header.end + length, header.limit)
            }
            ops::DELETE_ENTRY_BLOCK => {
                let length = header.real_entry(block, place)?;
                block.copy_within(place + length..header.end, place);
                header.set(block, header.end - length, header.limit)
            }
            ops::WRITE_END_OF_BLOCK => {
                header.entry(block, place)?;
                let end = place + data.len();
                if end > header.limit || !put_at(block, place, data) {
                    return Err("the block has no room for its new end");
                }
                header.set(block, end, header.limit)
            }
            ops::SET_VCN_BLOCK => set_vcn(block, header, place, data),
            ops::UPDATE_NAME_BLOCK => update_name(block, header, place, data),
            ops::UPDATE_DATA_BLOCK => update_data(block, header, place, data),
            _ => Err("what this operation does is not known"),
        }
    }

    /// True when the bytes are those of a block.
    pub(crate) fn is_block(bytes: &[u8]) -> bool {
        slice_at(bytes, 0, 4) == Some(b"INDX")
    }
}
