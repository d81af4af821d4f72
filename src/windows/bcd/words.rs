//! A value of a store's hive in bcdedit's words, for plans: `{bootmgr} timeout` and `5`.

use super::device::partition_text;
use super::element;
use super::names;
use super::resolve::DiskMap;
use super::value::Value;
use vmrescue_base::guid::Guid;
use vmrescue_base::text::hex;

/// Types of objects whose elements have names of their own.
const TYPES: [u32; 6] = [
    names::TYPE_BOOTMGR,
    names::TYPE_OSLOADER,
    names::TYPE_RESUME,
    names::TYPE_MEMDIAG,
    names::TYPE_NTLDR,
    names::TYPE_DEVICE_OPTIONS,
];

/// The object and the element that a key of a store's hive is for.
fn place(key: &str) -> Option<(Guid, u32)> {
    let parts: Vec<&str> = key.split('\\').collect();
    let [objects, id, elements, number] = parts[..] else { return None };
    // What is no number or no GUID is a key of something else.
    let (id, number) = (id.parse().ok()?, u32::from_str_radix(number, 16).ok()?);
    let is = objects.eq_ignore_ascii_case("Objects") && elements.eq_ignore_ascii_case("Elements");
    is.then_some((id, number))
}

/// What all types of objects that know the element say of it; `None` where they differ. The key alone does not tell the type.
fn agreed<T: PartialEq>(id: Guid, of: impl Fn(u32) -> Option<T>) -> Option<T> {
    let known = names::alias_of(id).and_then(names::known_object).map(|(_, object_type)| object_type);
    if let Some(said) = known.and_then(&of) {
        return Some(said);
    }
    let mut all = TYPES.into_iter().filter_map(of);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// The words of an element by its key, such as `{bootmgr} timeout`; `None` for a key that is none of an element.
pub fn element_words(key: &str) -> Option<String> {
    let (id, number) = place(key)?;
    let object = names::alias_of(id).map_or_else(|| format!("{{{id}}}"), |alias| format!("{{{alias}}}"));
    let name = agreed(id, |kind| element::name(kind, number));
    Some(format!("{object} {}", name.map_or_else(|| format!("custom:{number:08x}"), String::from)))
}

/// The words of its data; `None` for a key that is none of an element.
pub fn value_words(key: &str, data_type: u32, data: &[u8]) -> Option<String> {
    let (id, number) = place(key)?;
    let object =
        |id: &Guid| names::alias_of(*id).map_or_else(|| format!("{{{id}}}"), |alias| format!("{{{alias}}}"));
    Some(match Value::parse(number, data_type, data) {
        Value::Device(device) => match device.partitions()[..] {
            [] => DiskMap::default().text(&device),
            ref all => all.iter().map(|one| partition_text(*one)).collect::<Vec<_>>().join(" "),
        },
        Value::Text(text) => format!("{text:?}"),
        Value::Object(id) => object(&id),
        Value::Objects(ids) => ids.iter().map(object).collect::<Vec<_>>().join(" "),
        Value::Integer(value) => {
            let words =
                agreed(id, |kind| Some(element::words(kind, number)).filter(|words| !words.is_empty()));
            let word = words.and_then(|words| words.get(usize::try_from(value).ok()?));
            word.map_or_else(|| value.to_string(), |word| (*word).to_string())
        }
        Value::Boolean(yes) => if yes { "yes" } else { "no" }.to_string(),
        Value::Integers(values) => {
            values.iter().map(|value| format!("{value:#x}")).collect::<Vec<_>>().join(" ")
        }
        Value::Unknown { bytes, .. } if bytes.len() <= 64 => hex(&bytes),
        Value::Unknown { bytes, .. } => format!("{} bytes", bytes.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bcd::element_key;

    #[test]
    fn elements_are_told_in_bcdedits_words() {
        let timeout = element_key(names::BOOTMGR, 0x2500_0004);
        assert_eq!(element_words(&timeout).unwrap(), "{bootmgr} timeout");
        assert_eq!(value_words(&timeout, 3, &[5, 0, 0, 0, 0, 0, 0, 0]).unwrap(), "5");
        let entry: Guid = "01234567-89ab-cdef-0123-456789abcdef".parse().unwrap();
        // The same number is two names, on a loader and on another application: neither is guessed.
        let differs =
            (0x2600_0000..0x2600_0100u32).chain(0x2200_0000..0x2200_0010).chain(0x2500_0000..0x2500_0100);
        for number in differs {
            let said: std::collections::BTreeSet<_> =
                TYPES.iter().filter_map(|kind| element::name(*kind, number)).collect();
            let words = element_words(&element_key(entry, number)).unwrap();
            assert_eq!(words.contains("custom:"), said.len() != 1, "{words} {said:?}");
        }
        let description = element_key(entry, 0x1200_0004);
        let text: Vec<u8> = "Windows\0\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(value_words(&description, 1, &text).unwrap(), "\"Windows\"");
        assert!(element_words(r"Objects\{01234567-89ab-cdef-0123-456789abcdef}\Description").is_none());
        assert!(element_words(r"ControlSet001\Services").is_none());
    }
}
