//! A store in memory: objects with their elements, as plain data. Made from a hive, or from nothing.

use super::element;
use super::names::{self, known_object};
use super::value::{Names, Value};
use std::collections::BTreeMap;
use vmrescue_base::error::{Defect, Error, Layer, Result};
use vmrescue_base::guid::Guid;

/// One object: an entry of a menu, a boot manager, a set of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name in the store.
    pub id: Guid,
    /// Its type: what kind of object, whose image, which application.
    pub object_type: u32,
    /// Its elements by number.
    pub elements: BTreeMap<u32, Value>,
}

impl Object {
    /// An object without elements.
    pub fn new(id: Guid, object_type: u32) -> Object {
        Object { id, object_type, elements: BTreeMap::new() }
    }

    /// The same object with one more element.
    #[must_use]
    pub fn with(mut self, element: u32, value: Value) -> Object {
        self.elements.insert(element, value);
        self
    }

    /// An element's value.
    pub fn get(&self, element: u32) -> Option<&Value> {
        self.elements.get(&element)
    }

    /// The text of an element.
    pub fn text(&self, element: u32) -> Option<&str> {
        self.get(element).and_then(Value::as_text)
    }

    /// bcdedit's name of one of its elements; `custom:` and the number for those without.
    pub fn element_name(&self, element: u32) -> String {
        element::name(self.object_type, element).map_or_else(|| format!("custom:{element:08x}"), String::from)
    }
}

/// A boot configuration store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Store {
    /// `KeyName` of the description: `BCD00000000` in the store that Windows boots from.
    pub key_name: String,
    /// The objects, in the order of the hive.
    pub objects: Vec<Object>,
    /// What was wrong with the hive or the store.
    pub defects: Vec<Defect>,
}

impl Store {
    /// The object with this name.
    pub fn object(&self, id: Guid) -> Option<&Object> {
        self.objects.iter().find(|object| object.id == id)
    }

    /// The boot manager.
    pub fn bootmgr(&self) -> Option<&Object> {
        self.object(names::BOOTMGR)
    }

    /// The entry that starts when nobody chooses: the boot manager's `default`, else the first of its menu.
    pub fn default_entry(&self) -> Option<&Object> {
        let manager = self.bootmgr()?;
        let named = manager.get(0x2300_0003).or_else(|| manager.get(0x2400_0001))?;
        named.objects().first().and_then(|id| self.object(*id))
    }

    /// All loaders of Windows, the default first.
    pub fn loaders(&self) -> Vec<&Object> {
        let default = self.default_entry().map(|object| object.id);
        let mut all: Vec<&Object> =
            self.objects.iter().filter(|object| object.object_type == names::TYPE_OSLOADER).collect();
        all.sort_by_key(|object| Some(object.id) != default);
        all
    }

    /// The GUID that a user means: `{default}`, `{current}`, an alias, or a GUID. The object need not exist.
    ///
    /// # Errors
    /// `NotFound` with the aliases there are.
    pub fn resolve(&self, text: &str) -> Result<Guid> {
        let bare = text.trim().trim_start_matches('{').trim_end_matches('}');
        if let Ok(id) = bare.parse() {
            return Ok(id);
        }
        // Offline there is no running system: what bcdedit calls current is the default entry.
        if bare.eq_ignore_ascii_case("default") || bare.eq_ignore_ascii_case("current") {
            let manager = self.bootmgr().and_then(|object| object.get(0x2300_0003)).map(Value::objects);
            return manager.and_then(<[Guid]>::first).copied().ok_or_else(|| {
                Error::not_found(Layer::Bcd, "the store names no default entry")
                    .advice("name the entry by its GUID, or set the default of {bootmgr}")
            });
        }
        known_object(bare).map(|(id, _)| id).ok_or_else(|| {
            let aliases: Vec<String> =
                names::KNOWN_OBJECTS.iter().map(|(a, ..)| format!("{{{a}}}")).collect();
            Error::not_found(Layer::Bcd, format!("no object is called {text:?}"))
                .expected(format!("a GUID, {{default}}, {}", aliases.join(", ")))
        })
    }
}

/// Names of a store and of the disk that it belongs to, for values that a user gives.
pub(crate) struct StoreNames<'a> {
    pub(crate) store: &'a Store,
    pub(crate) disk: &'a super::resolve::DiskMap,
}

impl Names for StoreNames<'_> {
    fn partition(&self, text: &str) -> Result<super::device::Device> {
        self.disk.find(text).map(|partition| super::device::Device::Partition(partition.id))
    }

    fn object(&self, text: &str) -> Result<Guid> {
        self.store.resolve(text)
    }
}
