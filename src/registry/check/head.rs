//! The base block: what Windows asks of it before it looks at anything else.

use crate::hive::{Hive, VERSIONS};
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Defect, Layer, Severity};

pub(super) fn check(hive: &Hive, defects: &mut Vec<Defect>) {
    let bytes = hive.bytes();
    let number = |at| u32_at(bytes, at).unwrap_or(0);
    let bins = number(40) as usize;
    let mut bad = |at: u64, text: String| {
        defects.push(Defect::new("hive-base-bad", Severity::Error, Layer::Hive, at, text));
    };
    if number(20) > 1 || !VERSIONS.contains(&number(24)) {
        bad(20, format!("Windows knows no hives of version {}.{}", number(20), number(24)));
    }
    if number(28) != 0 {
        bad(28, format!("the base block says that this is no hive but a log (type {})", number(28)));
    }
    if number(32) != 1 {
        bad(32, format!("the base block names a form that no hive has ({})", number(32)));
    }
    if bins == 0 || !bins.is_multiple_of(4096) {
        bad(40, format!("{bins} bytes of bins, which is no whole number of pages"));
    }
}
