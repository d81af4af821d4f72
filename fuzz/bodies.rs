//! What the fuzz targets do with any bytes. The everyday suite does the same to mutated hives (`tests/suite/registry_fuzz.rs`), so this
//! file names no fuzzer.

use vmrescue_base::error::Severity;
use vmrescue_base::time::FileTime;
use vmrescue_registry::reg_text::{self, Operation};
use vmrescue_registry::{DataType, Hive, HiveEditor, rebuild};

fn damage(hive: &Hive) -> Option<String> {
    let found = hive.check().into_iter().find(|defect| defect.severity == Severity::Error);
    found.map(|defect| format!("{defect:?}"))
}

/// Any bytes as a hive and its log: read, checked, searched for what was deleted, rebuilt. What was rebuilt has no damage.
pub(crate) fn hive(data: &[u8]) {
    let (hive, log) = data.split_at(data.len() - data.len() / 4);
    for hive in [Hive::parse(data.to_vec()), Hive::parse_with_logs(hive.to_vec(), &[log.to_vec()])] {
        let Ok(hive) = hive else { continue };
        let _defects = hive.check();
        let _remnants = hive.deleted();
        let mut text = String::new();
        let _damaged = reg_text::key_text(&hive.root(), "ROOT", &mut text);
        if let Ok((bytes, _lost)) = rebuild(&hive) {
            let rebuilt = Hive::parse(bytes).expect("what was rebuilt is a hive");
            assert_eq!(damage(&rebuilt), None);
        }
    }
}

/// Any bytes as a .reg file; what can be read goes into a hive, and the text of that hive is read again.
pub(crate) fn reg_text(data: &[u8]) {
    let Ok(operations) = reg_text::parse(data) else { return };
    let mut editor = HiveEditor::new_hive("ROOT").expect("a new hive");
    for operation in operations {
        // Keys that are too deep, names that cannot be: refused, never worse.
        let _refused = match operation {
            Operation::CreateKey { key } => editor.create_key(&key),
            Operation::DeleteKey { key } => editor.delete_key(&key, true),
            Operation::Set { key, name, data_type, data } => editor.set_value(&key, &name, data_type, &data),
            Operation::DeleteValue { key, name } => editor.delete_value(&key, &name),
        };
    }
    assert_eq!(damage(editor.hive()), None);
    let mut text = reg_text::HEADER.to_string();
    reg_text::key_text(&editor.hive().root(), "ROOT", &mut text).expect("the text of a whole hive");
    // A name of a key over several lines is the one thing that no .reg file can say.
    let _not_said = reg_text::parse(&reg_text::file_bytes(&text));
}

/// Random edits of a new hive, and of any bytes that an editor takes: afterwards there is no damage that was not there before.
pub(crate) fn hive_edit(data: &[u8]) {
    let (edits, hive) = data.split_at(data.len().min(256));
    let editor = Hive::parse(hive.to_vec())
        .ok()
        .map(Hive::accept)
        .filter(|hive| damage(hive).is_none())
        .and_then(|hive| HiveEditor::new(hive).ok());
    let mut editor = match editor {
        Some(editor) => editor,
        None => HiveEditor::new_hive("ROOT").expect("a new hive"),
    };
    // Keys that were there, and those that the edits make.
    let there: Vec<String> =
        editor.hive().root().subkeys().into_iter().flatten().take(8).map(|key| key.name()).collect();
    for edit in edits.chunks_exact(4) {
        let name = |byte: u8| match byte % 6 {
            0 => "a/b".to_string(),
            1 => "ж".repeat(1 + usize::from(byte) / 5),
            2 => format!("\u{10f801}{byte}"),
            3 => "ıµς".to_string(),
            4 if !there.is_empty() => there[usize::from(byte) % there.len()].clone(),
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
    assert_eq!(damage(&Hive::parse(bytes).expect("a hive")), None);
}
