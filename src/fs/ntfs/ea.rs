//! $EA and $EA_INFORMATION, the extended attributes of a file: a list of entries (offset to the next, flags, lengths,
//! name with a NUL, value), each aligned to 4 ([MS-FSCC] 2.4.15); also the last entry says how long it is.

use crate::ExtendedAttribute;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Attribute type of $EA_INFORMATION.
pub(crate) const EA_INFORMATION: u32 = 0xD0;
/// Attribute type of $EA.
pub(crate) const EA: u32 = 0xE0;
/// Most bytes of all attributes of a file.
pub(crate) const MAX_EA_BYTES: u64 = 65_536;
/// Flag: needed.
const NEEDED: u8 = 0x80;

/// Takes the list apart.
///
/// # Errors
/// `Damaged` when an entry does not hold its own fields.
pub fn parse(bytes: &[u8]) -> Result<Vec<ExtendedAttribute>> {
    let (mut at, mut out) = (0, Vec::new());
    while at + 8 <= bytes.len() {
        let entry = || -> Option<(ExtendedAttribute, usize)> {
            let next = u32_at(bytes, at)? as usize;
            let (name, value) = (usize::from(*bytes.get(at + 5)?), usize::from(u16_at(bytes, at + 6)?));
            let attribute = ExtendedAttribute {
                name: String::from_utf8_lossy(slice_at(bytes, at + 8, name)?).into_owned(),
                needed: bytes.get(at + 4)? & NEEDED != 0,
                value: slice_at(bytes, at + 9 + name, value)?.to_vec(),
            };
            (next == 0 || next >= 9 + name + value).then_some((attribute, next))
        };
        let (attribute, next) = entry().ok_or_else(|| {
            Error::damaged(Layer::Ntfs, "an extended attribute that does not hold its own fields")
                .at(at as u64)
        })?;
        out.push(attribute);
        if next == 0 {
            break;
        }
        at += next;
    }
    Ok(out)
}

/// The values of $EA_INFORMATION and $EA.
pub(crate) fn encode(list: &[ExtendedAttribute]) -> (Vec<u8>, Vec<u8>) {
    let (mut bytes, mut packed, mut needed) = (Vec::new(), 0usize, 0u16);
    for attribute in list {
        let length = 9 + attribute.name.len() + attribute.value.len();
        let end = bytes.len() + length.next_multiple_of(4);
        bytes.extend_from_slice(&(length.next_multiple_of(4) as u32).to_le_bytes());
        bytes.push(if attribute.needed { NEEDED } else { 0 });
        bytes.push(attribute.name.len() as u8); // checked by `check`
        bytes.extend_from_slice(&(attribute.value.len() as u16).to_le_bytes());
        bytes.extend_from_slice(attribute.name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&attribute.value);
        bytes.resize(end, 0);
        packed += length - 4;
        needed += u16::from(attribute.needed);
    }
    let information = [
        &(packed.min(usize::from(u16::MAX)) as u16).to_le_bytes()[..],
        &needed.to_le_bytes(),
        &(bytes.len() as u32).to_le_bytes(),
    ]
    .concat();
    (information, bytes)
}

/// Refuses a name or a value that cannot be.
///
/// # Errors
/// `Invalid`.
pub(crate) fn check(name: &str, value: &[u8]) -> Result<()> {
    let legal = |c: char| c.is_ascii() && c >= ' ' && !"\\/:*?\"<>|,+=[];".contains(c);
    if name.is_empty() || name.len() > 254 || !name.chars().all(legal) {
        let what = format!("{name:?} cannot be the name of an extended attribute");
        return Err(Error::invalid(Layer::Ntfs, what));
    }
    if value.is_empty() || value.len() > usize::from(u16::MAX) {
        return Err(Error::invalid(Layer::Ntfs, "the value of an extended attribute")
            .expected("1 to 65535 bytes")
            .found(value.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_comes_back() {
        let one = |name: &str, needed, value: &[u8]| ExtendedAttribute {
            name: name.into(),
            needed,
            value: value.to_vec(),
        };
        let list = vec![one("$LXMOD", false, &[1, 2, 3, 4]), one("A", true, &[7])];
        let (information, bytes) = encode(&list);
        assert_eq!(parse(&bytes).unwrap(), list);
        // 5 + name + value of each; one needed; 20 and 12 bytes.
        assert_eq!(information, [22, 0, 1, 0, 32, 0, 0, 0]);
        assert!(check("a/b", &[1]).is_err() && check("", &[1]).is_err() && check("A", &[]).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            drop(parse(&bytes));
        }
    }
}
