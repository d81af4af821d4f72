//! Times of files as they are printed: a date that is not there is none, and not the beginning of all times.

use serde_json::{Value, json};
use vmrescue_base::time::FileTime;
use vmrescue_fs::Times;

/// A time for programs; null when there is none.
pub(super) fn time_json(time: FileTime) -> Value {
    if time.is_zero() { Value::Null } else { time.to_string().into() }
}

/// The four times for programs.
pub(super) fn times_json(times: Times) -> Value {
    json!({"created": time_json(times.created), "modified": time_json(times.modified),
        "changed": time_json(times.changed), "accessed": time_json(times.accessed)})
}

/// A time for people.
pub(super) fn time_text(time: FileTime) -> String {
    if time.is_zero() { "-".into() } else { time.to_string() }
}
