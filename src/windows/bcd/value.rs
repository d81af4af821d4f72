//! The data of an element: from and to what the registry holds, from and to what bcdedit prints and takes.
//!
//! How Windows stores the formats: device, integer (8 bytes), boolean (1 byte) and integer list as REG_BINARY, text
//! and object as REG_SZ, object list as REG_MULTI_SZ. Readers take shorter integers too.

use super::device::{Device, DeviceElement};
use super::element::{self, Format};
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_base::text::{until_nul, utf16le_bytes, utf16le_lossy};

/// REG_SZ.
pub const REG_SZ: u32 = 1;
/// REG_BINARY.
pub const REG_BINARY: u32 = 3;
/// REG_MULTI_SZ.
pub const REG_MULTI_SZ: u32 = 7;

/// The value of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A device.
    Device(DeviceElement),
    /// Text.
    Text(String),
    /// One object.
    Object(Guid),
    /// Objects, in order.
    Objects(Vec<Guid>),
    /// A number.
    Integer(u64),
    /// Yes or no.
    Boolean(bool),
    /// Numbers, in order.
    Integers(Vec<u64>),
    /// Data that is not what the element's format says: registry type and bytes, kept as they are.
    Unknown {
        /// Registry type.
        data_type: u32,
        /// Bytes.
        bytes: Vec<u8>,
    },
}

impl Value {
    /// Reads the registry data of `element`. Never fails: what does not fit is [`Value::Unknown`].
    pub fn parse(element: u32, data_type: u32, bytes: &[u8]) -> Value {
        parse(element, data_type, bytes)
            .unwrap_or_else(|| Value::Unknown { data_type, bytes: bytes.to_vec() })
    }

    /// Registry type and bytes.
    pub fn encode(&self) -> (u32, Vec<u8>) {
        match self {
            Value::Device(device) => (REG_BINARY, device.bytes().to_vec()),
            Value::Text(text) => (REG_SZ, terminated(text)),
            Value::Object(id) => (REG_SZ, terminated(&format!("{{{id}}}"))),
            Value::Objects(ids) => {
                let mut bytes: Vec<u8> = ids.iter().flat_map(|id| terminated(&format!("{{{id}}}"))).collect();
                bytes.extend([0, 0]);
                (REG_MULTI_SZ, bytes)
            }
            Value::Integer(number) => (REG_BINARY, number.to_le_bytes().to_vec()),
            Value::Boolean(yes) => (REG_BINARY, vec![u8::from(*yes)]),
            Value::Integers(numbers) => (REG_BINARY, numbers.iter().flat_map(|n| n.to_le_bytes()).collect()),
            Value::Unknown { data_type, bytes } => (*data_type, bytes.clone()),
        }
    }

    /// The device, if it is one.
    pub fn as_device(&self) -> Option<&DeviceElement> {
        if let Value::Device(device) = self { Some(device) } else { None }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    /// The object, or the objects, that it names.
    pub fn objects(&self) -> &[Guid] {
        match self {
            Value::Object(id) => std::slice::from_ref(id),
            Value::Objects(ids) => ids,
            _ => &[],
        }
    }

    /// The number, if it is one.
    pub fn as_integer(&self) -> Option<u64> {
        if let Value::Integer(number) = self { Some(*number) } else { None }
    }

    /// The truth, if it is one.
    pub fn as_boolean(&self) -> Option<bool> {
        if let Value::Boolean(yes) = self { Some(*yes) } else { None }
    }
}

fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = utf16le_bytes(text);
    bytes.extend([0, 0]);
    bytes
}

fn parse(element: u32, data_type: u32, bytes: &[u8]) -> Option<Value> {
    let text = || until_nul(&utf16le_lossy(bytes)).to_string();
    match (element::format(element), data_type) {
        (Format::Device, REG_BINARY) => DeviceElement::parse(bytes).map(Value::Device),
        (Format::Text, REG_SZ) => {
            let value = Value::Text(text());
            let own = value.encode().1;
            // Windows reads up to the first NUL, and stores have more of them. Text that would not come back otherwise (unpaired
            // surrogates, data after the NUL) stays raw.
            let padded = bytes.strip_prefix(&own[..]).is_some_and(is_zero);
            (padded || own[..] == [bytes, &[0, 0]].concat()).then_some(value)
        }
        (Format::Object, REG_SZ) => text().parse().ok().map(Value::Object),
        (Format::Objects, REG_MULTI_SZ) => utf16le_lossy(bytes)
            .split('\0')
            // An empty text ends the list; what stands behind it is not part of it.
            .take_while(|part| !part.is_empty())
            .map(|part| part.parse::<Guid>().ok())
            .collect::<Option<Vec<_>>>()
            .map(Value::Objects),
        (Format::Integer, REG_BINARY) if (1..=8).contains(&bytes.len()) => {
            let mut eight = [0u8; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            Some(Value::Integer(u64::from_le_bytes(eight)))
        }
        (Format::Boolean, REG_BINARY) if !bytes.is_empty() => Some(Value::Boolean(bytes[0] != 0)),
        (Format::Integers, REG_BINARY) if bytes.len().is_multiple_of(8) => {
            Some(Value::Integers(bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect()))
        }
        _ => None,
    }
}

/// What a value given by a user may refer to: the drives and partitions of a disk, the objects of a store.
pub trait Names {
    /// `C:`, `#3`, or a partition GUID as a device.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    fn partition(&self, text: &str) -> Result<Device>;

    /// An object by alias or GUID.
    ///
    /// # Errors
    /// `NotFound`.
    fn object(&self, text: &str) -> Result<Guid>;
}

/// Reads values as `bcdedit /set` takes them: several words are several objects or numbers.
///
/// # Errors
/// `Invalid` with the words that are possible.
pub fn from_words(object_type: u32, element: u32, given: &[&str], names: &dyn Names) -> Result<Value> {
    let bad = |expected: &str| {
        let name = element::name(object_type, element).map_or_else(|| format!("{element:08x}"), String::from);
        Error::invalid(Layer::Bcd, format!("a value that {name} cannot have"))
            .expected(expected)
            .found(given.join(" "))
    };
    let one = || match given {
        [word] => Ok(*word),
        _ => Err(bad("one value")),
    };
    match element::format(element) {
        Format::Device => Ok(Value::Device(device_from(one()?, element, names)?)),
        Format::Text => Ok(Value::Text(given.join(" "))),
        Format::Object => Ok(Value::Object(names.object(one()?)?)),
        Format::Objects => {
            given.iter().map(|word| names.object(word)).collect::<Result<_>>().map(Value::Objects)
        }
        Format::Integer => integer(object_type, element, one()?).map(Value::Integer).ok_or_else(|| {
            let words = element::words(object_type, element);
            bad(&if words.is_empty() { "a number".to_string() } else { words.join(", ") })
        }),
        Format::Boolean => match one()?.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" | "1" => Ok(Value::Boolean(true)),
            "no" | "off" | "false" | "0" => Ok(Value::Boolean(false)),
            _ => Err(bad("yes or no")),
        },
        Format::Integers => given
            .iter()
            .map(|word| number(word))
            .collect::<Option<_>>()
            .map(Value::Integers)
            .ok_or_else(|| bad("numbers")),
        Format::Unknown => Err(bad("an element whose format is known")),
    }
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn integer(object_type: u32, element: u32, word: &str) -> Option<u64> {
    let words = element::words(object_type, element);
    let place = words.iter().position(|name| name.eq_ignore_ascii_case(word));
    place.map(|place| place as u64).or_else(|| number(word))
}

/// Reads a device as bcdedit takes it: `boot`, `partition=C:`, `partition=#3`, `locate`, `locate=\path`,
/// `locate=custom:12000002`, `file=[C:]\x`, `vhd=[C:]\x.vhdx`, `ramdisk=[C:]\x.wim,{options}`.
fn device_from(text: &str, element: u32, names: &dyn Names) -> Result<DeviceElement> {
    let bad = || {
        Error::invalid(Layer::Bcd, format!("a device that is not understood: {text:?}")).advice(
            "write boot, locate, partition=C:, partition=#3, ramdisk=[C:]\\x.wim,{options}, vhd=[C:]\\x.vhdx",
        )
    };
    let (kind, rest) = text.split_once('=').unwrap_or((text, ""));
    let plain = |device| Ok(DeviceElement::build(device, Guid::ZERO));
    match (kind.to_ascii_lowercase().as_str(), rest) {
        ("boot", "") => plain(Device::Boot),
        ("partition", rest) if !rest.is_empty() => plain(names.partition(rest)?),
        ("locate", rest) => plain(locate_from(rest, element).ok_or_else(bad)?),
        ("file", rest) => {
            let (device, path) = on_device(rest, names, &bad)?;
            plain(Device::File { device, path })
        }
        ("vhd", rest) => {
            let (device, path) = on_device(rest, names, &bad)?;
            plain(Device::VirtualDisk(Box::new(Device::File { device, path })))
        }
        ("ramdisk", rest) => {
            let (file, options) = rest.rsplit_once(',').ok_or_else(bad)?;
            let (device, path) = on_device(file, names, &bad)?;
            Ok(DeviceElement::build(Device::Ramdisk { device, path }, names.object(options)?))
        }
        _ => Err(bad()),
    }
}

fn locate_from(rest: &str, element: u32) -> Option<Device> {
    let (element, path) = match rest {
        // The path of the application for its device, the directory of Windows for the system's.
        "" => (if element == 0x2100_0001 { 0x2200_0002 } else { 0x1200_0002 }, ""),
        rest => match rest.strip_prefix("custom:") {
            Some(digits) => (u32::from_str_radix(digits, 16).ok()?, ""),
            None => (0, rest),
        },
    };
    Some(Device::Locate { element, path: path.to_string(), parent: None })
}

/// `[C:]\path`: a device and a path on it.
fn on_device(text: &str, names: &dyn Names, bad: &dyn Fn() -> Error) -> Result<(Box<Device>, String)> {
    let (inner, path) = text.strip_prefix('[').and_then(|t| t.split_once(']')).ok_or_else(bad)?;
    if !path.starts_with('\\') {
        return Err(bad());
    }
    let device = match inner.to_ascii_lowercase().as_str() {
        "boot" => Device::Boot,
        "locate" => Device::Locate { element: 0x1200_0002, path: String::new(), parent: None },
        _ => names.partition(inner)?,
    };
    Ok((Box::new(device), path.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::names::TYPE_OSLOADER;
    use super::*;

    struct Disk;
    impl Names for Disk {
        fn partition(&self, text: &str) -> Result<Device> {
            if text == "C:" { Ok(Device::Boot) } else { Err(Error::not_found(Layer::Bcd, text)) }
        }
        fn object(&self, text: &str) -> Result<Guid> {
            text.parse().map_err(|_| Error::not_found(Layer::Bcd, text))
        }
    }

    #[test]
    fn registry_data_comes_back_as_it_was() {
        let list = Value::Objects(vec![Guid([1; 16]), Guid([2; 16])]);
        for (element, value) in [
            (0x1200_0004, Value::Text("Windows 11".into())),
            (0x2300_0003, Value::Object(Guid([7; 16]))),
            (0x2400_0001, list),
            (0x2500_0004, Value::Integer(30)),
            (0x1600_0020, Value::Boolean(true)),
            (0x1700_0077, Value::Integers(vec![0x1500_0075])),
        ] {
            let (data_type, bytes) = value.encode();
            assert_eq!(Value::parse(element, data_type, &bytes), value);
        }
        assert_eq!(Value::parse(0x2500_0004, REG_BINARY, &[5]), Value::Integer(5));
        assert!(matches!(Value::parse(0x2500_0004, REG_SZ, &[5]), Value::Unknown { .. }));
        for (tail, is_text) in
            [(&[][..], true), (&[0, 0], true), (&[0, 0, 0, 0, 0, 0], true), (&[0, 0, 0x78, 0], false)]
        {
            let bytes = [&[0x61, 0][..], tail].concat();
            let value = Value::parse(0x1200_0004, REG_SZ, &bytes);
            assert_eq!(value == Value::Text("a".into()), is_text, "{bytes:?}");
        }
    }

    #[test]
    fn words_are_taken_as_bcdedit_takes_them() {
        let value = |element, words: &[&str]| from_words(TYPE_OSLOADER, element, words, &Disk);
        assert_eq!(value(0x2500_0080, &["network"]).unwrap(), Value::Integer(1));
        assert_eq!(value(0x2600_0090, &["on"]).unwrap(), Value::Boolean(true));
        assert!(value(0x2500_0080, &["sometimes"]).unwrap_err().to_string().contains("DsRepair"));
        let device = value(0x2100_0001, &["partition=C:"]).unwrap();
        assert_eq!(device.as_device().unwrap().device(), &Device::Boot);
        let vhd = value(0x2100_0001, &[r"vhd=[C:]\a.vhdx"]).unwrap();
        assert!(matches!(vhd.as_device().unwrap().device(), Device::VirtualDisk(_)));
        assert!(value(0x2100_0001, &["partition=X:"]).is_err());
        assert!(value(0x2100_0001, &["nowhere"]).is_err());
    }
}
