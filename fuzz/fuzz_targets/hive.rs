//! Any bytes as a hive: read, checked, searched for what was deleted, rebuilt. What was rebuilt has no damage.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmrescue_base::error::Severity;
use vmrescue_registry::{Hive, rebuild};

fuzz_target!(|data: &[u8]| {
    let (hive, log) = data.split_at(data.len() - data.len() / 4);
    let Ok(hive) = Hive::parse_with_logs(hive.to_vec(), &[log.to_vec()]) else { return };
    let _defects = hive.check();
    let _remnants = hive.deleted();
    if let Ok((bytes, _lost)) = rebuild(&hive) {
        let rebuilt = Hive::parse(bytes).expect("what was rebuilt is a hive");
        let damage = rebuilt.check().into_iter().find(|defect| defect.severity == Severity::Error);
        assert!(damage.is_none(), "{damage:?}");
    }
});
