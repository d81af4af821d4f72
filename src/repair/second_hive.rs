//! A second reader of hives, for the verifier: it shares nothing with the reader and the editor of the registry crate, and knows
//! data in segments (since version 1.4) and large data in one cell (before).
//!
//! It looks at every entry of a list in turn and trusts neither order nor hashes, so it sees what a hash hides.

use super::hive_content::{HiveContent, key_sum};

/// The content of the cell at an offset of the bins.
fn cell(hive: &[u8], offset: u32) -> Result<&[u8], String> {
    let bad = || format!("no cell at {offset:#x}");
    let at = 4096usize.checked_add(offset as usize).ok_or_else(bad)?;
    let head: [u8; 4] = hive.get(at..at + 4).and_then(|head| head.try_into().ok()).ok_or_else(bad)?;
    let size =
        i32::from_le_bytes(head).checked_neg().and_then(|size| usize::try_from(size).ok()).ok_or_else(bad)?;
    hive.get(at + 4..at + size.max(4)).ok_or_else(bad)
}

fn number(bytes: &[u8], at: usize) -> Result<u32, String> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_le_bytes).ok_or_else(|| "a cell is too short".to_string())
}

fn half(bytes: &[u8], at: usize) -> Result<usize, String> {
    number(bytes, at & !3).map(|word| (word >> (8 * (at & 3)) & 0xffff) as usize)
}

/// Units of a name on disk.
fn units(bytes: &[u8], at: usize, length: usize, latin: bool) -> Result<Vec<u16>, String> {
    let bytes = bytes.get(at..at + length).ok_or("a name is longer than its cell")?;
    Ok(if latin {
        bytes.iter().map(|byte| u16::from(*byte)).collect()
    } else {
        bytes.chunks_exact(2).map(|pair| u16::from(pair[0]) | u16::from(pair[1]) << 8).collect()
    })
}

/// True for names that are one: the same units, or the same letters of the Latin alphabet in any case.
fn same(a: &[u16], b: &[u16]) -> bool {
    let fold = |unit: u16| if (0x61..=0x7a).contains(&unit) { unit - 32 } else { unit };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| fold(*a) == fold(*b))
}

fn node(hive: &[u8], offset: u32) -> Result<&[u8], String> {
    cell(hive, offset).and_then(|node| if node.starts_with(b"nk") { Ok(node) } else { Err("no key".into()) })
}

/// The entries of a list of subkeys, and whether they are lists themselves.
fn entries(hive: &[u8], list: u32, depth: usize) -> Result<(Vec<u32>, bool), String> {
    let content = cell(hive, list)?;
    let (kind, count) = (content.get(..2).ok_or("a list that is cut off")?, half(content, 2)?);
    let width = match kind {
        b"lf" | b"lh" => 8,
        b"li" => 4,
        b"ri" if depth == 0 => 4,
        _ => return Err("a list of an unknown kind".into()),
    };
    let entries = (0..count).map(|place| number(content, 4 + place * width)).collect::<Result<_, _>>()?;
    Ok((entries, kind == b"ri"))
}

fn in_list(hive: &[u8], list: u32, name: &[u16], depth: usize) -> Result<Option<u32>, String> {
    let (entries, are_lists) = entries(hive, list, depth)?;
    for entry in entries {
        if are_lists {
            if let Some(found) = in_list(hive, entry, name, 1)? {
                return Ok(Some(found));
            }
            continue;
        }
        let child = node(hive, entry)?;
        if same(&units(child, 76, half(child, 72)?, half(child, 2)? & 0x20 != 0)?, name) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// The key that a list of names leads to.
pub(super) fn key<'a>(hive: &'a [u8], names: &[Vec<u16>]) -> Result<Option<&'a [u8]>, String> {
    if !hive.starts_with(b"regf") || number(hive, 4)? != number(hive, 8)? {
        return Err("no hive, or one that was not closed".into());
    }
    let mut at = number(hive, 36)?;
    for name in names {
        let here = node(hive, at)?;
        if number(here, 20)? == 0 {
            return Ok(None);
        }
        match in_list(hive, number(here, 28)?, name, 0)? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    node(hive, at).map(Some)
}

/// Type and data of a value.
pub(super) fn value(hive: &[u8], key: &[u8], name: &[u16]) -> Result<Option<(u32, Vec<u8>)>, String> {
    let count = number(key, 36)? as usize;
    if count == 0 {
        return Ok(None);
    }
    let list = cell(hive, number(key, 40)?)?;
    for place in 0..count {
        let node = cell(hive, number(list, place * 4)?)?;
        if !node.starts_with(b"vk") {
            return Err("a value that is none".into());
        }
        if same(&units(node, 20, half(node, 2)?, half(node, 16)? & 1 != 0)?, name) {
            return Ok(Some((number(node, 12)?, data(hive, node)?)));
        }
    }
    Ok(None)
}

/// All keys and values of a hive, each read.
pub(super) fn content(hive: &[u8]) -> Result<HiveContent, String> {
    let mut all = HiveContent::default();
    key(hive, &[])?;
    add(hive, number(hive, 36)?, key_sum(0, &[]), 0, &mut all)?;
    Ok(all)
}

/// Adds a key with everything below it.
fn add(hive: &[u8], at: u32, sum: u64, depth: usize, all: &mut HiveContent) -> Result<(), String> {
    if depth > vmrescue_base::limits::MAX_KEY_DEPTH {
        return Err("keys lie too deep".into());
    }
    let here = node(hive, at)?;
    all.add_key(sum);
    let count = number(here, 36)? as usize;
    if count > 0 {
        let list = cell(hive, number(here, 40)?)?;
        for place in 0..count {
            let value = cell(hive, number(list, place * 4)?)?;
            let name = units(value, 20, half(value, 2)?, half(value, 16)? & 1 != 0)?;
            all.add_value(sum, &name, number(value, 12)?, &data(hive, value)?);
        }
    }
    if number(here, 20)? > 0 {
        let mut found = Vec::new();
        listed(hive, number(here, 28)?, 0, &mut found)?;
        if found.len() as u64 != u64::from(number(here, 20)?) {
            return Err("a list of keys that does not hold as many as its key says".into());
        }
        for child in found {
            let content = node(hive, child)?;
            let name = units(content, 76, half(content, 72)?, half(content, 2)? & 0x20 != 0)?;
            add(hive, child, key_sum(sum, &name), depth + 1, all)?;
        }
    }
    Ok(())
}

/// The keys of a list.
fn listed(hive: &[u8], list: u32, depth: usize, found: &mut Vec<u32>) -> Result<(), String> {
    let (entries, are_lists) = entries(hive, list, depth)?;
    for entry in entries {
        if are_lists {
            listed(hive, entry, 1, found)?;
        } else {
            found.push(entry);
        }
    }
    Ok(())
}

fn data(hive: &[u8], node: &[u8]) -> Result<Vec<u8>, String> {
    const SEGMENT: usize = 16344;
    let size = number(node, 4)?;
    let short = || "data is longer than its cell".to_string();
    if size & 0x8000_0000 != 0 {
        let length = (size & 0x7fff_ffff) as usize;
        return node.get(8..8 + length).filter(|_| length <= 4).map(<[u8]>::to_vec).ok_or_else(short);
    }
    let size = size as usize;
    if size == 0 {
        return Ok(Vec::new());
    }
    let first = cell(hive, number(node, 8)?)?;
    if size <= SEGMENT || number(hive, 24)? < 4 {
        return first.get(..size).map(<[u8]>::to_vec).ok_or_else(short);
    }
    let count = half(first, 2)?;
    if !first.starts_with(b"db") || count != size.div_ceil(SEGMENT) {
        return Err("large data whose segments do not fit".into());
    }
    let list = cell(hive, number(first, 4)?)?;
    let mut all = Vec::with_capacity(size);
    for place in 0..count {
        let segment = cell(hive, number(list, place * 4)?)?;
        let part = segment.get(..SEGMENT).ok_or("a segment has a short cell, which Windows does not take")?;
        all.extend_from_slice(&part[..SEGMENT.min(size - all.len())]);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmrescue_base::time::FileTime;
    use vmrescue_registry::{DataType, HiveEditor};

    fn names(path: &[&str]) -> Vec<Vec<u16>> {
        path.iter().map(|name| name.encode_utf16().collect()).collect()
    }

    #[test]
    fn values_of_every_size_and_names_with_slashes() {
        let mut editor = HiveEditor::new_hive("ROOT").unwrap();
        let sizes = [0, 4, 5, 16_344, 16_345, 32_688, 32_689, 100_000];
        for size in sizes {
            editor
                .set_value(r"a\RC4 128/128", &format!("v{size}"), DataType::BINARY, &vec![7; size])
                .unwrap();
        }
        let bytes = editor.finish(FileTime::now()).unwrap().bytes;
        let found = key(&bytes, &names(&["A", "rc4 128/128"])).unwrap().unwrap();
        for size in sizes {
            let name: Vec<u16> = format!("V{size}").encode_utf16().collect();
            assert_eq!(value(&bytes, found, &name).unwrap(), Some((3, vec![7; size])), "{size}");
        }
        assert!(key(&bytes, &names(&["a", "RC4 128", "128"])).unwrap().is_none());
        assert!(value(&bytes, found, &[0x78]).unwrap().is_none());
        assert!(key(b"nothing", &[]).is_err());
        let ours = super::super::hive_content::of(&vmrescue_registry::Hive::parse(bytes.clone()).unwrap());
        let theirs = content(&bytes).unwrap();
        assert_eq!((ours.unwrap(), theirs.keys, theirs.values), (theirs, 3, sizes.len() as u64));
    }
}
