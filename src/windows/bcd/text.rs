//! What `bcdedit /enum all /v` prints for a store, and the same as data for JSON.
//!
//! Without `/v` bcdedit prints aliases in the place of GUIDs; [`Options::aliases`] does the same. A device that is
//! not on the disk is `unknown` in bcdedit's text; the data also says why and keeps the identifiers.

use super::device::partition_text;
use super::element;
use super::names;
use super::resolve::{DiskMap, Resolution};
use super::store::{Object, Store};
use super::value::Value;
use serde::Serialize;
use vmrescue_base::guid::Guid;
use vmrescue_base::text::hex;

/// Column in which values begin.
const COLUMN: usize = 24;

/// How to print.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Print `{bootmgr}` and not its GUID, as bcdedit does without `/v`.
    pub aliases: bool,
}

/// An element, for reports.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct ElementView {
    /// Eight hexadecimal digits.
    pub element: String,
    /// bcdedit's name.
    pub name: String,
    /// Lines of the value as bcdedit writes them.
    pub value: Vec<String>,
    /// For devices: `found`, `no-such-partition`, `other-disk`, `unchecked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolves: Option<&'static str>,
    /// For devices: the identifiers of the partitions that they name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<String>,
}

/// An object, for reports.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct ObjectView {
    /// GUID with braces.
    pub identifier: String,
    /// Alias with braces, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Type number, eight hexadecimal digits after `0x`.
    #[serde(rename = "type")]
    pub object_type: String,
    /// bcdedit's heading.
    pub heading: String,
    /// The elements.
    pub elements: Vec<ElementView>,
}

/// The objects of a store in bcdedit's order.
pub fn view(store: &Store, disk: &DiskMap, options: Options) -> Vec<ObjectView> {
    let order = menu_order(store);
    let mut objects: Vec<&Object> = store.objects.iter().collect();
    let place = |id: Guid| order.iter().position(|other| *other == id).unwrap_or(order.len());
    objects.sort_by_key(|object| (names::rank(object.id, object.object_type), place(object.id)));
    objects.into_iter().map(|object| object_view(store, object, disk, options)).collect()
}

/// The entries in the order of the menu; those that are not in it come after.
fn menu_order(store: &Store) -> Vec<Guid> {
    let managers = [names::FWBOOTMGR, names::BOOTMGR].into_iter().filter_map(|id| store.object(id));
    managers.filter_map(|object| object.get(0x2400_0001)).flat_map(|value| value.objects().to_vec()).collect()
}

fn object_view(store: &Store, object: &Object, disk: &DiskMap, options: Options) -> ObjectView {
    let elements = object
        .elements
        .iter()
        .map(|(number, value)| {
            let device = value.as_device();
            ElementView {
                element: format!("{number:08x}"),
                name: object.element_name(*number),
                value: value_lines(store, object.object_type, *number, value, disk, options),
                resolves: device.map(|device| disk.resolve(device).name()),
                partitions: device
                    .map_or_else(Vec::new, |d| d.partitions().into_iter().map(partition_text).collect()),
            }
        })
        .collect();
    ObjectView {
        identifier: format!("{{{}}}", object.id),
        alias: alias(store, object.id),
        object_type: format!("{:#010x}", object.object_type),
        heading: names::heading(object.id, object.object_type),
        elements,
    }
}

fn alias(store: &Store, id: Guid) -> Option<String> {
    if let Some(alias) = names::alias_of(id) {
        return Some(format!("{{{alias}}}"));
    }
    let default = store.bootmgr()?.get(0x2300_0003)?.objects().first()?;
    (*default == id).then(|| "{default}".to_string())
}

fn value_lines(
    store: &Store,
    object_type: u32,
    number: u32,
    value: &Value,
    disk: &DiskMap,
    options: Options,
) -> Vec<String> {
    let id_text = |id: &Guid| {
        let short = if options.aliases { alias(store, *id) } else { None };
        short.unwrap_or_else(|| format!("{{{id}}}"))
    };
    match value {
        Value::Device(device) => vec![disk.text(device)],
        Value::Text(text) => vec![text.clone()],
        Value::Object(id) => vec![id_text(id)],
        Value::Objects(ids) => ids.iter().map(id_text).collect(),
        Value::Integer(value) => {
            let words = element::words(object_type, number);
            let word = usize::try_from(*value).ok().and_then(|place| words.get(place));
            vec![word.map_or_else(|| value.to_string(), |word| (*word).to_string())]
        }
        Value::Boolean(yes) => vec![if *yes { "Yes" } else { "No" }.to_string()],
        Value::Integers(values) => values.iter().map(|value| format!("{value:#x}")).collect(),
        Value::Unknown { bytes, .. } => vec![hex(&bytes[..bytes.len().min(64)])],
    }
}

/// The text of `bcdedit /enum all /v`, with line feeds only.
pub fn enumerate(store: &Store, disk: &DiskMap, options: Options) -> String {
    let mut text = String::new();
    for object in view(store, disk, options) {
        text.push('\n');
        text.push_str(&object.heading);
        text.push('\n');
        text.push_str(&"-".repeat(object.heading.chars().count()));
        text.push('\n');
        let name = if options.aliases { object.alias.as_ref() } else { None };
        line(&mut text, "identifier", std::slice::from_ref(name.unwrap_or(&object.identifier)));
        for element in &object.elements {
            line(&mut text, &element.name, &element.value);
        }
    }
    text
}

fn line(text: &mut String, name: &str, values: &[String]) {
    let mut left = name;
    for value in values.iter().map(String::as_str).chain(values.is_empty().then_some("")) {
        let padded = format!("{left:<width$}", width = COLUMN - 1);
        text.push_str(format!("{padded} {value}").trim_end());
        text.push('\n');
        left = "";
    }
}

/// A device of a store that is not on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dangling {
    /// The object.
    pub object: Guid,
    /// The element.
    pub element: u32,
    /// Why.
    pub resolution: Resolution,
    /// The identifiers that the store has.
    pub partitions: Vec<super::device::PartitionRef>,
}

/// All devices of the store that are not on the disk.
pub fn dangling(store: &Store, disk: &DiskMap) -> Vec<Dangling> {
    let mut found = Vec::new();
    for object in &store.objects {
        for (element, value) in &object.elements {
            let Some(device) = value.as_device() else { continue };
            let resolution = disk.resolve(device);
            if resolution.is_dangling() {
                let partitions = device.partitions();
                found.push(Dangling { object: object.id, element: *element, resolution, partitions });
            }
        }
    }
    found
}
