//! Any bytes as a .reg file; what can be read goes into a hive, and the text of that hive is read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmrescue_registry::reg_text::{self, Operation};
use vmrescue_registry::HiveEditor;

fuzz_target!(|data: &[u8]| {
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
    let mut text = reg_text::HEADER.to_string();
    reg_text::key_text(&editor.hive().root(), "ROOT", &mut text).expect("the text of a whole hive");
});
