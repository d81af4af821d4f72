//! Changes of a store in memory, by bcdedit's names. [`changes`](super::hive::changes) turns the difference into
//! changes of the hive.

use super::element;
use super::names;
use super::resolve::DiskMap;
use super::store::{Object, Store, StoreNames};
use super::value::{self, Value};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_base::limits::MAX_BCD_OBJECTS;

/// `default` of the boot manager.
const DEFAULT: u32 = 0x2300_0003;
/// `displayorder`.
const DISPLAYORDER: u32 = 0x2400_0001;
/// `timeout`.
const TIMEOUT: u32 = 0x2500_0004;

/// Where an entry goes in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To the start.
    First,
    /// To the end.
    Last,
    /// Out of the list.
    Remove,
}

impl Store {
    /// Sets an element: `set("{default}", "safeboot", &["minimal"], disk)`. Well-known settings objects that are not
    /// there are made; entries are not.
    ///
    /// # Errors
    /// `NotFound` for the object or the partition, `Invalid` for the element or the value.
    pub fn set(&mut self, object: &str, element: &str, words: &[&str], disk: &DiskMap) -> Result<()> {
        let id = self.resolve(object)?;
        let object_type = self.type_for_edit(id, object)?;
        let number = element_number(object_type, element)?;
        let value = value::from_words(object_type, number, words, &StoreNames { store: self, disk })?;
        self.put(id, object_type, number, value)
    }

    /// Sets an element to a value that is already made; makes the object with this type when it is not there.
    ///
    /// # Errors
    /// `Limit` when the store is full.
    pub fn put(&mut self, id: Guid, object_type: u32, number: u32, value: Value) -> Result<()> {
        let place = match self.objects.iter().position(|object| object.id == id) {
            Some(place) => place,
            None => self.insert(Object::new(id, object_type))?,
        };
        self.objects[place].elements.insert(number, value);
        Ok(())
    }

    /// Removes an element. `false` when it was not there.
    ///
    /// # Errors
    /// `NotFound` for the object, `Invalid` for an unknown element.
    pub fn delete_value(&mut self, object: &str, element: &str) -> Result<bool> {
        let id = self.resolve(object)?;
        let Some(found) = self.objects.iter_mut().find(|o| o.id == id) else {
            return Err(not_there(object));
        };
        let number = element_number(found.object_type, element)?;
        Ok(found.elements.remove(&number).is_some())
    }

    /// Makes an object without elements.
    ///
    /// # Errors
    /// `AlreadyExists`; `Limit`.
    pub fn create(&mut self, id: Guid, object_type: u32) -> Result<()> {
        if self.object(id).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, Layer::Bcd, format!("object {{{id}}} exists")));
        }
        self.insert(Object::new(id, object_type)).map(|_| ())
    }

    /// Copies an entry under a new name and puts it at the end of the menu, as `bcdedit /copy` does.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists`; `Limit`.
    pub fn copy(&mut self, object: &str, new_id: Guid, description: &str) -> Result<()> {
        let id = self.resolve(object)?;
        let source = self.object(id).ok_or_else(|| not_there(object))?.clone();
        self.create(new_id, source.object_type)?;
        for (number, value) in source.elements {
            self.put(new_id, source.object_type, number, value)?;
        }
        self.put(new_id, source.object_type, 0x1200_0004, Value::Text(description.to_string()))?;
        if source.object_type == names::TYPE_OSLOADER {
            self.order(names::BOOTMGR, DISPLAYORDER, new_id, Place::Last)?;
        }
        Ok(())
    }

    /// Removes an object and, as `bcdedit /delete /cleanup` does, its mentions in lists and as a default.
    ///
    /// # Errors
    /// `NotFound`; `Refused` for the boot manager.
    pub fn delete(&mut self, object: &str) -> Result<()> {
        let id = self.resolve(object)?;
        if id == names::BOOTMGR {
            return Err(Error::refused(Layer::Bcd, "the boot manager's object is not deleted")
                .advice("without it nothing starts; use bcd rebuild to make a fresh store"));
        }
        let before = self.objects.len();
        self.objects.retain(|o| o.id != id);
        if self.objects.len() == before {
            return Err(not_there(object));
        }
        for object in &mut self.objects {
            object.elements.retain(|_, value| *value != Value::Object(id));
            for value in object.elements.values_mut() {
                if let Value::Objects(ids) = value {
                    ids.retain(|other| *other != id);
                }
            }
            // An empty list is not an element: Windows removes it.
            object.elements.retain(|_, value| *value != Value::Objects(Vec::new()));
        }
        let first =
            self.bootmgr().and_then(|m| m.get(DISPLAYORDER)).and_then(|v| v.objects().first().copied());
        if let Some(first) = first
            && self.bootmgr().is_some_and(|manager| manager.get(DEFAULT).is_none())
        {
            self.put(names::BOOTMGR, names::TYPE_BOOTMGR, DEFAULT, Value::Object(first))?;
        }
        Ok(())
    }

    /// Moves an entry in a list of the boot manager (`displayorder`, `bootsequence`, `toolsdisplayorder`).
    ///
    /// # Errors
    /// `Limit`.
    pub fn order(&mut self, manager: Guid, list: u32, entry: Guid, place: Place) -> Result<()> {
        let mut ids =
            self.object(manager).and_then(|o| o.get(list)).map_or(Vec::new(), |v| v.objects().to_vec());
        ids.retain(|id| *id != entry);
        match place {
            Place::First => ids.insert(0, entry),
            Place::Last => ids.push(entry),
            Place::Remove => {}
        }
        let manager_type = self.object(manager).map_or(names::TYPE_BOOTMGR, |object| object.object_type);
        if ids.is_empty() {
            if let Some(object) = self.objects.iter_mut().find(|object| object.id == manager) {
                object.elements.remove(&list);
            }
            return Ok(());
        }
        self.put(manager, manager_type, list, Value::Objects(ids))
    }

    /// Which entry starts when nobody chooses.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn set_default(&mut self, object: &str) -> Result<()> {
        let id = self.resolve(object)?;
        if self.object(id).is_none() {
            return Err(not_there(object));
        }
        self.put(names::BOOTMGR, names::TYPE_BOOTMGR, DEFAULT, Value::Object(id))
    }

    /// For how many seconds the menu waits.
    ///
    /// # Errors
    /// `Limit`.
    pub fn set_timeout(&mut self, seconds: u64) -> Result<()> {
        self.put(names::BOOTMGR, names::TYPE_BOOTMGR, TIMEOUT, Value::Integer(seconds))
    }

    /// The type of the object to edit: that of the object, or that of a well-known one that can be made.
    fn type_for_edit(&self, id: Guid, text: &str) -> Result<u32> {
        let known = names::KNOWN_OBJECTS
            .iter()
            .find(|(_, guid, _)| *guid == id)
            .map(|(.., object_type)| *object_type);
        self.object(id).map(|object| object.object_type).or(known).ok_or_else(|| not_there(text))
    }

    /// Keeps the order of the hive: by name.
    fn insert(&mut self, object: Object) -> Result<usize> {
        if self.objects.len() >= MAX_BCD_OBJECTS {
            return Err(Error::limit(Layer::Bcd, "number of objects").expected(MAX_BCD_OBJECTS));
        }
        let key = object.id.to_string();
        let place = self.objects.iter().position(|o| o.id.to_string() > key).unwrap_or(self.objects.len());
        self.objects.insert(place, object);
        Ok(place)
    }
}

fn not_there(text: &str) -> Error {
    Error::not_found(Layer::Bcd, format!("the store has no object {text}"))
        .advice("see bcd enum for what it has")
}

fn element_number(object_type: u32, text: &str) -> Result<u32> {
    element::by_name(object_type, text).ok_or_else(|| {
        Error::invalid(
            Layer::Bcd,
            format!("no element {text:?} on {}", names::heading(Guid::ZERO, object_type)),
        )
        .advice("write bcdedit's name, or the number as custom:26000020")
    })
}

#[cfg(test)]
mod tests {
    use super::super::defaults::{Firmware, FreshSpec, fresh};
    use super::super::device::PartitionRef;
    use super::super::resolve::MapPartition;
    use super::super::text::{Options, dangling, enumerate};
    use super::*;

    fn disk() -> DiskMap {
        let partition = |number: u32, letter, system| MapPartition {
            number,
            id: PartitionRef::Gpt { disk: Guid([9; 16]), partition: Guid([number as u8; 16]) },
            letter,
            system,
        };
        DiskMap { partitions: vec![partition(1, None, true), partition(3, Some('C'), false)] }
    }

    fn store() -> Store {
        let disk = disk();
        fresh(&FreshSpec::new(Firmware::Uefi, disk.partitions[0].id, disk.partitions[1].id))
    }

    #[test]
    fn elements_are_set_and_deleted_by_name() {
        let (mut store, disk) = (store(), disk());
        store.set("{default}", "safeboot", &["minimal"], &disk).unwrap();
        store.set("{default}", "osdevice", &["partition=#3"], &disk).unwrap();
        store.set("{emssettings}", "emsport", &["1"], &disk).unwrap();
        let text = enumerate(&store, &disk, Options::default());
        assert!(text.contains("\nsafeboot                Minimal\n"), "{text}");
        assert!(text.contains("\nosdevice                partition=C:\n"), "{text}");
        assert!(store.delete_value("{default}", "safeboot").unwrap());
        assert!(!store.delete_value("{default}", "safeboot").unwrap());
        assert!(store.set("{default}", "nonsense", &["1"], &disk).is_err());
        assert!(store.set("{12345678-1234-1234-1234-123456789abc}", "nx", &["OptIn"], &disk).is_err());
    }

    #[test]
    fn entries_are_copied_ordered_and_deleted_with_their_mentions() {
        let (mut store, disk) = (store(), disk());
        let first = store.default_entry().unwrap().id;
        let copy = Guid([0x42; 16]);
        store.copy("{default}", copy, "Safe mode").unwrap();
        store.order(names::BOOTMGR, 0x2400_0001, copy, Place::First).unwrap();
        store.set_default(&copy.to_string()).unwrap();
        assert_eq!(store.default_entry().unwrap().text(0x1200_0004), Some("Safe mode"));
        store.delete("{default}").unwrap();
        assert_eq!(store.default_entry().unwrap().id, first);
        assert!(store.object(copy).is_none());
        assert!(store.delete("{bootmgr}").is_err());
        assert!(dangling(&store, &disk).is_empty());
        let elsewhere = DiskMap { partitions: vec![disk.partitions[0].clone()] };
        assert!(!dangling(&store, &elsewhere).is_empty());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(40))]
        /// Random elements set and deleted, through the hive and back, against a map.
        #[test]
        fn a_store_is_a_map(steps in proptest::collection::vec((0usize..4, 0usize..6, 0u64..3, proptest::prelude::any::<bool>()), 1..40)) {
            use vmrescue_registry::{DataType, Hive, HiveEditor};
            use crate::bcd::{HiveChange, changes};
            let disk = disk();
            let apply = |bytes: Option<Vec<u8>>, list: Vec<HiveChange>| {
                let mut hive = match bytes {
                    Some(bytes) => HiveEditor::new(Hive::parse(bytes).unwrap()).unwrap(),
                    None => HiveEditor::new_hive("NewStoreRoot").unwrap(),
                };
                for change in list {
                    match change {
                        HiveChange::CreateKey { key } => drop(hive.create_key(&key).unwrap()),
                        HiveChange::SetValue { key, name, data_type, data } => {
                            hive.set_value(&key, &name, DataType(data_type), &data).unwrap();
                        }
                        HiveChange::DeleteKey { key } => drop(hive.delete_key(&key, true).unwrap()),
                    }
                }
                hive.finish(vmrescue_base::time::FileTime::now()).unwrap().bytes
            };
            let mut bytes = apply(None, changes(&Store::default(), &store()));
            let objects = ["{default}", "{bootmgr}", "{globalsettings}", "{memdiag}"];
            let elements = ["locale", "loadoptions", "bootems", "nointegritychecks", "truncatememory", "description"];
            let mut model = Store::load(&Hive::parse(bytes.clone()).unwrap()).unwrap();
            for (object, element, value, delete) in steps {
                let before = Store::load(&Hive::parse(bytes.clone()).unwrap()).unwrap();
                let mut after = before.clone();
                let (object, element) = (objects[object], elements[element]);
                let text = value.to_string();
                for store in [&mut after, &mut model] {
                    if delete {
                        store.delete_value(object, element).unwrap();
                    } else {
                        let word = if element.starts_with("boot") || element.starts_with("nointe") { if value == 0 { "no" } else { "yes" } } else { text.as_str() };
                        store.set(object, element, &[word], &disk).unwrap();
                    }
                }
                bytes = apply(Some(bytes), changes(&before, &after));
                let read = Store::load(&Hive::parse(bytes.clone()).unwrap()).unwrap();
                proptest::prop_assert_eq!(&read.objects, &model.objects);
                proptest::prop_assert!(read.defects.is_empty());
            }
            let defects = Hive::parse(bytes).unwrap().check();
            proptest::prop_assert!(defects.is_empty(), "{:?}", defects);
        }
    }
}
