use super::*;
use crate::{DataType, Hive, HiveEditor};
use proptest::prelude::*;
use vmrescue_base::time::FileTime;

fn hive(values: &[(&str, u32, Vec<u8>)]) -> Hive {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    for (name, kind, data) in values {
        editor.set_value("Software\\Test", name, DataType(*kind), data).unwrap();
    }
    Hive::parse(editor.finish(FileTime::now()).unwrap().bytes).unwrap()
}

fn exported(hive: &Hive) -> String {
    let mut text = HEADER.to_string();
    key_text(&hive.key("Software\\Test").unwrap().unwrap(), r"HKEY_LOCAL_MACHINE\SOFTWARE\Test", &mut text)
        .unwrap();
    text
}

fn utf16(text: &str) -> Vec<u8> {
    vmrescue_base::text::utf16le_bytes(text)
}

/// What regedit writes for such a key: escapes, number formats, and lines that end at column 80 and 78.
#[test]
fn the_text_is_regedits() {
    let hive = hive(&[
        ("", 1, utf16("the default\0")),
        ("Path", 1, utf16("C:\\Temp\\\"x\"\0")),
        ("Number", 4, vec![0x1f, 0, 0, 0]),
        ("Blob", 3, (0u8..60).collect()),
        ("Expand", 2, utf16("%x%\0")),
        ("Multi", 7, utf16("a\0b\0\0")),
        ("Big", 11, vec![1, 0, 0, 0, 0, 0, 0, 0]),
        ("Nothing", 0, Vec::new()),
        ("Odd", 1, utf16("no end")),
        ("Short", 4, vec![1, 2]),
    ]);
    let text = exported(&hive);
    let expected = [
        "Windows Registry Editor Version 5.00",
        "",
        r"[HKEY_LOCAL_MACHINE\SOFTWARE\Test]",
        "@=\"the default\"",
        r#""Path"="C:\\Temp\\\"x\"""#,
        "\"Number\"=dword:0000001f",
        r#""Blob"=hex:00,01,02,03,04,05,06,07,08,09,0a,0b,0c,0d,0e,0f,10,11,12,13,14,15,\"#,
        r"  16,17,18,19,1a,1b,1c,1d,1e,1f,20,21,22,23,24,25,26,27,28,29,2a,2b,2c,2d,2e,\",
        "  2f,30,31,32,33,34,35,36,37,38,39,3a,3b",
        "\"Expand\"=hex(2):25,00,78,00,25,00,00,00",
        "\"Multi\"=hex(7):61,00,00,00,62,00,00,00,00,00",
        "\"Big\"=hex(b):01,00,00,00,00,00,00,00",
        "\"Nothing\"=hex(0):",
        "\"Odd\"=hex(1):6e,00,6f,00,20,00,65,00,6e,00,64,00",
        "\"Short\"=hex(4):01,02",
        "",
        "",
    ];
    assert_eq!(text, expected.join("\r\n"));
    assert!(text.lines().all(|line| line.len() <= 80));
    assert_eq!(file_bytes(&text)[..4], [0xff, 0xfe, b'W', 0]);
}

#[test]
fn every_syntax_is_read() {
    let text = "Windows Registry Editor Version 5.00\r\n\r\n; words\r\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\A]\r\n@=\"d\"\r\n\
        \"x\"=-\r\n\"h\"=hex(7):61,00,\\\r\n  00,00,00,00\r\n\"e\\\\q\\\"\"=DWORD:10\r\n\r\n[-HKEY_LOCAL_MACHINE\\SOFTWARE\\B]\r\n\"gone\"=\"x\"\r\n";
    let key = || r"HKEY_LOCAL_MACHINE\SOFTWARE\A".to_string();
    let set = |name: &str, kind, data| Operation::Set {
        key: key(),
        name: name.into(),
        data_type: DataType(kind),
        data,
    };
    let expected = vec![
        Operation::CreateKey { key: key() },
        set("", 1, utf16("d\0")),
        Operation::DeleteValue { key: key(), name: "x".into() },
        set("h", 7, vec![0x61, 0, 0, 0, 0, 0]),
        set("e\\q\"", 4, vec![16, 0, 0, 0]),
        Operation::DeleteKey { key: r"HKEY_LOCAL_MACHINE\SOFTWARE\B".into() },
    ];
    assert_eq!(parse(&file_bytes(text)).unwrap(), expected);
    assert_eq!(parse(text.as_bytes()).unwrap(), expected);
    assert_eq!(parse(&file_bytes(text)[2..]).unwrap(), expected, "without the mark");
    let more = "Windows Registry Editor Version 5.00\n[HKLM\\SOFTWARE\\a]b]  ; words\n  \"two\"=\"first\nsecond\" ; end\n\"b\" = hex:01,\\\n\n ; between\n  02\n\
        \"n\"=dword:0000000f ; fifteen\n@=-\n\"t\"=hex(ffff0009):\n\"u\"=hex(b):01,00,00,00,00,00,00,00";
    let key = r"HKLM\SOFTWARE\a]b".to_string();
    let set = |name: &str, kind, data| Operation::Set {
        key: key.clone(),
        name: name.into(),
        data_type: DataType(kind),
        data,
    };
    let expected = vec![
        Operation::CreateKey { key: key.clone() },
        set("two", 1, utf16("first\nsecond\0")),
        set("b", 3, vec![1, 2]),
        set("n", 4, vec![15, 0, 0, 0]),
        Operation::DeleteValue { key: key.clone(), name: String::new() },
        set("t", 0xffff_0009, Vec::new()),
        set("u", 11, vec![1, 0, 0, 0, 0, 0, 0, 0]),
    ];
    assert_eq!(parse(more.as_bytes()).unwrap(), expected);
    let western = parse(b"REGEDIT4\n[k]\n\"\x80\"=\"\xfc\"\n").unwrap();
    assert!(matches!(&western[1], Operation::Set { name, data, .. } if name == "€" && *data == utf16("ü\0")));
    let cyrillic =
        parse_with(b"REGEDIT4\n[\xea]\n\"x\"=hex(2):e6,00\n", CodePage::new(1251).unwrap()).unwrap();
    assert!(matches!(&cyrillic[1], Operation::Set { key, data, .. } if key == "к" && *data == utf16("ж\0")));
    let old = b"REGEDIT4\n[HKEY_CURRENT_USER\\X]\n\"a\"=hex(2):25,78,25,00\n\"u\"=\"\xfc\"\n";
    let Operation::Set { data, .. } = &parse(old).unwrap()[1] else { panic!("no value") };
    assert_eq!(*data, utf16("%x%\0"));
    let Operation::Set { data, .. } = &parse(old).unwrap()[2] else { panic!("no value") };
    assert_eq!(*data, utf16("ü\0"));
    for (bad, line) in [
        ("[x", "line 3"),
        ("\"a\"=nonsense", "line 3"),
        ("\"a\"=hex:zz", "line 3"),
        ("\"a\"=\"no end", "line 3"),
        ("\"a\"=\"x\" y", "line 3"),
        ("words", "line 3"),
    ] {
        let error = parse(format!("REGEDIT4\n[k]\n{bad}\n").as_bytes()).unwrap_err().to_string();
        assert!(error.contains(line), "{error}");
    }
    assert!(parse(b"anything").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    /// What is exported comes back as it was; nothing panics.
    #[test]
    fn values_come_back(
        values in prop::collection::btree_map("[a-z\\\\\"=@ äж]{0,9}", (0u32..12, prop::collection::vec(any::<u8>(), 0..90)), 0..8),
        noise in prop::collection::vec(any::<u8>(), 0..200), line in "[\\x20-\\x7e]{0,60}",
    ) {
        let list: Vec<(&str, u32, Vec<u8>)> = values.iter().map(|(name, (kind, data))| (name.as_str(), *kind, data.clone())).collect();
        let mut seen = std::collections::BTreeSet::new();
        let list: Vec<_> = list.into_iter().filter(|(name, ..)| seen.insert(name.to_uppercase())).collect();
        if !list.is_empty() {
            let read = parse(&file_bytes(&exported(&hive(&list)))).unwrap();
            let mut back: Vec<(String, u32, Vec<u8>)> = read.into_iter().filter_map(|operation| match operation {
                Operation::Set { name, data_type, data, .. } => Some((name, data_type.0, data)),
                _ => None,
            }).collect();
            back.sort();
            let mut wanted: Vec<_> = list.iter().map(|(n, k, d)| ((*n).to_string(), *k, d.clone())).collect();
            wanted.sort();
            prop_assert_eq!(back, wanted);
        }
        drop(parse(&noise));
        drop(parse(format!("REGEDIT4\n[k]\n{line}").as_bytes()));
    }
}
