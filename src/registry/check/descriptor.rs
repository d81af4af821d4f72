//! The frame of a security descriptor, as far as Windows looks when it loads a hive. [MS-DTYP] 2.4.

use vmrescue_base::bytes::{u16_at, u32_at};

/// What is wrong with a self-relative descriptor; `None` when nothing is.
pub(crate) fn wrong(bytes: &[u8]) -> Option<&'static str> {
    if bytes.len() < 20 || bytes[0] != 1 || u16_at(bytes, 2).unwrap_or(0) & 0x8000 == 0 {
        return Some("is none");
    }
    for at in [4, 8] {
        let place = u32_at(bytes, at).unwrap_or(0) as usize;
        if place == 0 {
            if at == 4 {
                return Some("has no owner");
            }
            continue;
        }
        let sid = bytes.get(place..).unwrap_or_default();
        let count = sid.get(1).copied().map_or(usize::MAX, usize::from);
        if sid.first() != Some(&1) || count > 15 || sid.len() < 8 + 4 * count {
            return Some("names an owner or a group that is none");
        }
    }
    for at in [12, 16] {
        let place = u32_at(bytes, at).unwrap_or(0) as usize;
        if place != 0 && !list_is_whole(bytes.get(place..).unwrap_or_default()) {
            return Some("has an access control list that does not fit");
        }
    }
    None
}

fn list_is_whole(list: &[u8]) -> bool {
    let (Some(size), Some(count)) = (u16_at(list, 2), u16_at(list, 4)) else { return false };
    let Some(mut rest) = list.get(8..usize::from(size)) else { return false };
    for _ in 0..count {
        let Some(next) =
            u16_at(rest, 2).map(usize::from).filter(|size| *size >= 4).and_then(|size| rest.get(size..))
        else {
            return false;
        };
        rest = next;
    }
    true
}
