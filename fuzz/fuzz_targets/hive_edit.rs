//! Random edits of a new hive, and of any bytes that an editor takes: afterwards there is no damage that was not there before.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmrescue_base::error::Severity;
use vmrescue_base::time::FileTime;
use vmrescue_registry::{DataType, Hive, HiveEditor};

fuzz_target!(|data: &[u8]| {
    let (edits, hive) = data.split_at(data.len().min(256));
    let damaged = |hive: &Hive| hive.check().iter().any(|defect| defect.severity == Severity::Error);
    let editor = Hive::parse(hive.to_vec())
        .ok()
        .map(Hive::accept)
        .filter(|hive| !damaged(hive))
        .and_then(|hive| HiveEditor::new(hive).ok());
    let mut editor = match editor {
        Some(editor) => editor,
        None => HiveEditor::new_hive("ROOT").expect("a new hive"),
    };
    for edit in edits.chunks_exact(4) {
        let name = |byte: u8| match byte % 5 {
            0 => "a/b".to_string(),
            1 => "ж".repeat(1 + usize::from(byte) / 5),
            2 => format!("\u{10f801}{byte}"),
            3 => "ıµς".to_string(),
            _ => format!("k{byte}"),
        };
        let path = format!("{}\\{}", name(edit[1]), name(edit[2]));
        let size = [0, 4, 5, 300, 16_343, 16_344, 16_345, 32_689][usize::from(edit[3] % 8)];
        let _refused = match edit[0] % 5 {
            0 => editor.delete_key(&name(edit[1]), true),
            1 => editor.delete_value(&path, &name(edit[3])),
            2 => editor.rename_key(&name(edit[1]), &name(edit[2])).map(|()| true),
            3 => editor.create_key(&path),
            _ => editor.set_value(&path, &name(edit[3]), DataType(u32::from(edit[3])), &vec![edit[1]; size]),
        };
    }
    let bytes = editor.finish(FileTime::now()).expect("an edited hive").bytes;
    assert!(!damaged(&Hive::parse(bytes).expect("a hive")));
});
