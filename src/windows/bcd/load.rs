//! Reads a store out of a hive.

use super::store::{Object, Store};
use super::value::Value;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::limits::MAX_BCD_OBJECTS;
use vmrescue_registry::{Hive, Key};

impl Store {
    /// Reads the store in `hive`; objects that cannot be read are defects.
    ///
    /// # Errors
    /// `Damaged` when the hive has no objects at all.
    pub fn load(hive: &Hive) -> Result<Store> {
        let objects = hive.key("Objects")?.ok_or_else(|| {
            Error::damaged(Layer::Bcd, "the hive is no boot configuration store: it has no key Objects")
        })?;
        let name = hive.key("Description")?.map(|key| key.value("KeyName")).transpose()?.flatten();
        let mut store = Store {
            key_name: name.and_then(|value| value.as_string()).unwrap_or_default(),
            ..Store::default()
        };
        for key in objects.subkeys()?.into_iter().take(MAX_BCD_OBJECTS) {
            match load_object(&key, &mut store.defects) {
                Ok(object) => store.objects.push(object),
                Err(e) => store.defects.push(Defect::from_error("bcd-object-bad", Severity::Error, &e)),
            }
        }
        Ok(store)
    }
}

fn load_object(key: &Key<'_>, defects: &mut Vec<Defect>) -> Result<Object> {
    let bad = |what: &str| {
        Error::damaged(Layer::Bcd, format!("object {}: {what}", key.name())).at(key.file_offset())
    };
    let id = key.name().parse().map_err(|_| bad("its name is no GUID"))?;
    let description = key.subkey("Description")?.ok_or_else(|| bad("no description"))?;
    let kind = description.value("Type")?.and_then(|value| value.as_u32()).ok_or_else(|| bad("no type"))?;
    let mut object = Object::new(id, kind);
    let elements =
        key.subkey("Elements")?.map(|elements| elements.subkeys()).transpose()?.unwrap_or_default();
    for element in elements {
        let number = u32::from_str_radix(&element.name(), 16).ok();
        let value = element.value("Element")?;
        match (number, value) {
            (Some(number), Some(value)) => {
                let parsed = Value::parse(number, value.data_type().0, &value.data()?);
                object.elements.insert(number, parsed);
            }
            _ => {
                let text =
                    format!("object {}: element {} has no number or no value", key.name(), element.name());
                let at = element.file_offset();
                defects.push(Defect::new("bcd-element-bad", Severity::Warning, Layer::Bcd, at, text));
            }
        }
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bcd::{
        DiskMap, Firmware, FreshSpec, HiveChange, Options, PartitionRef, changes, dangling, enumerate, fresh,
    };
    use proptest::prelude::*;
    use vmrescue_registry::{DataType, HiveEditor};

    fn bytes() -> Vec<u8> {
        let on = PartitionRef::Mbr { signature: 1, offset_bytes: 1 << 20 };
        let store = fresh(&FreshSpec::new(Firmware::Bios, on, on));
        let mut hive = HiveEditor::new_hive("NewStoreRoot").unwrap();
        for change in changes(&Store::default(), &store) {
            match change {
                HiveChange::CreateKey { key } => drop(hive.create_key(&key)),
                HiveChange::SetValue { key, name, data_type, data } => {
                    drop(hive.set_value(&key, &name, DataType(data_type), &data));
                }
                HiveChange::DeleteKey { key } => drop(hive.delete_key(&key, true)),
            }
        }
        let edited = hive.finish(vmrescue_base::time::FileTime::now()).unwrap().bytes;
        assert_eq!(Store::load(&Hive::parse(edited.clone()).unwrap()).unwrap().objects, store.objects);
        edited
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_damaged_store_is_explained_and_never_panics(
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..60),
        ) {
            let mut bytes = bytes();
            for (at, value) in hits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(hive) = Hive::parse(bytes) && let Ok(store) = Store::load(&hive) {
                drop(enumerate(&store, &DiskMap::default(), Options::default()));
                drop(dangling(&store, &DiskMap::default()));
            }
        }
    }
}
