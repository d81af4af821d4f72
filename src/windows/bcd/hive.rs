//! A store as a hive: `Description`, and `Objects\{guid}\{Description,Elements\<8 digits>}` with a value `Element`.

use super::store::{Object, Store};
use super::value::REG_SZ;
use vmrescue_base::guid::Guid;
use vmrescue_base::text::utf16le_bytes;

/// REG_DWORD.
const REG_DWORD: u32 = 4;

/// One change of a hive. Paths are from the root, without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HiveChange {
    /// Makes a key, and those above it.
    CreateKey {
        /// The key.
        key: String,
    },
    /// Sets a value.
    SetValue {
        /// The key.
        key: String,
        /// Name of the value.
        name: String,
        /// Registry type.
        data_type: u32,
        /// Data.
        data: Vec<u8>,
    },
    /// Deletes a key with everything below.
    DeleteKey {
        /// The key.
        key: String,
    },
}

/// The key of an object.
pub fn object_key(id: Guid) -> String {
    format!(r"Objects\{{{id}}}")
}

/// The key of an element.
pub fn element_key(id: Guid, element: u32) -> String {
    format!(r"{}\Elements\{element:08x}", object_key(id))
}

/// The changes of the hive that make the store `after` out of the store `before`. Elements that are the same in both
/// are not touched.
pub fn changes(before: &Store, after: &Store) -> Vec<HiveChange> {
    let mut list = Vec::new();
    if before.key_name != after.key_name {
        let mut data = utf16le_bytes(&after.key_name);
        data.extend([0, 0]);
        list.push(set("Description".to_string(), "KeyName", REG_SZ, data));
    }
    for object in before.objects.iter().filter(|object| after.object(object.id).is_none()) {
        list.push(HiveChange::DeleteKey { key: object_key(object.id) });
    }
    for object in &after.objects {
        object_changes(before.object(object.id), object, &mut list);
    }
    list
}

fn object_changes(before: Option<&Object>, after: &Object, list: &mut Vec<HiveChange>) {
    let key = object_key(after.id);
    if before.map(|object| object.object_type) != Some(after.object_type) {
        let data = after.object_type.to_le_bytes().to_vec();
        list.push(set(format!(r"{key}\Description"), "Type", REG_DWORD, data));
    }
    if before.is_none() {
        list.push(HiveChange::CreateKey { key: format!(r"{key}\Elements") });
    }
    let gone =
        before.iter().flat_map(|object| object.elements.keys()).filter(|n| !after.elements.contains_key(n));
    for number in gone {
        list.push(HiveChange::DeleteKey { key: element_key(after.id, *number) });
    }
    for (number, value) in &after.elements {
        if before.and_then(|object| object.get(*number)) != Some(value) {
            let (data_type, data) = value.encode();
            list.push(set(element_key(after.id, *number), "Element", data_type, data));
        }
    }
}

fn set(key: String, name: &str, data_type: u32, data: Vec<u8>) -> HiveChange {
    HiveChange::SetValue { key, name: name.to_string(), data_type, data }
}
