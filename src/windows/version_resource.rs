//! The version resource of a PE file (VS_VERSIONINFO): a tree of nodes, each with a length, a key, a value and children. Lengths
//! that lie give less, never more.

use vmrescue_base::bytes::{slice_at, u16_at, u32_at};
use vmrescue_base::text::utf16le_lossy;

/// Nodes that are looked at in one resource.
const MAX_NODES: usize = 512;

struct Node<'a> {
    key: String,
    value: &'a [u8],
    children: &'a [u8],
}

/// The node at the start of `bytes`, and what follows it.
fn node(bytes: &[u8]) -> Option<(Node<'_>, &[u8])> {
    let length = usize::from(u16_at(bytes, 0)?);
    let all = bytes.get(..length).filter(|all| all.len() >= 8)?;
    let is_text = u16_at(all, 4)? == 1;
    let units = all[6..].chunks_exact(2).position(|unit| unit == [0, 0])?;
    let key = utf16le_lossy(&all[6..6 + units * 2]);
    let start = (6 + units * 2 + 2).next_multiple_of(4);
    // Lengths of texts count characters.
    let value_length = usize::from(u16_at(all, 2)?) * if is_text { 2 } else { 1 };
    let value = slice_at(all, start, value_length).unwrap_or_default();
    let children = all.get((start + value.len()).next_multiple_of(4)..).unwrap_or_default();
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Node { key, value, children }, rest))
}

/// The file version of the fixed part, as `a.b.c.d`.
pub(super) fn file_version(resource: &[u8]) -> Option<String> {
    let (root, _) = node(resource)?;
    (u32_at(root.value, 0)? == 0xfeef_04bd).then_some(())?;
    let (high, low) = (u32_at(root.value, 8)?, u32_at(root.value, 12)?);
    Some(format!("{}.{}.{}.{}", high >> 16, high & 0xffff, low >> 16, low & 0xffff))
}

/// A text of the first string table that has it.
pub(super) fn text(resource: &[u8], name: &str) -> Option<String> {
    let (root, _) = node(resource)?;
    let mut pending = vec![root.children];
    for _ in 0..MAX_NODES {
        let bytes = pending.pop()?;
        let Some((found, rest)) = node(bytes) else { continue };
        pending.push(rest);
        if found.key == name {
            let text = utf16le_lossy(found.value);
            return Some(vmrescue_base::text::until_nul(&text).to_string());
        }
        if !found.children.is_empty() && found.value.is_empty() {
            pending.push(found.children);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_resource_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), length in 0u16..320) {
            let mut bytes = bytes;
            if bytes.len() >= 2 {
                bytes[..2].copy_from_slice(&length.to_le_bytes());
            }
            drop(file_version(&bytes));
            drop(text(&bytes, "OriginalFilename"));
        }
    }
}
