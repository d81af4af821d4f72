//! Which of the documented offline repairs have a script: the ids of the acceptance table against the sources of the scripts.

use super::script::Script;
use serde::Serialize;

/// Id and class of every procedure whose article was read and whose steps can be done offline: `FULL` by simple operations, `FULL-ENG` with engineered
/// ones, `FULL*` derived.
const PROCEDURES: &[(&str, &str)] = &[
    ("AZ-A01", "FULL"),
    ("AZ-A02", "FULL-ENG"),
    ("AZ-A03", "FULL"),
    ("AZ-A05", "FULL"),
    ("AZ-A07", "FULL-ENG"),
    ("AZ-A10", "FULL"),
    ("AZ-A11", "FULL"),
    ("AZ-A12", "FULL"),
    ("AZ-B01", "FULL-ENG"),
    ("AZ-B02", "FULL"),
    ("AZ-B03", "FULL-ENG"),
    ("AZ-B04", "FULL"),
    ("AZ-B05", "FULL-ENG"),
    ("AZ-B07", "FULL-ENG"),
    ("AZ-B08", "FULL"),
    ("AZ-B10", "FULL-ENG"),
    ("AZ-B11", "FULL-ENG"),
    ("AZ-B14", "FULL-ENG"),
    ("AZ-B15", "FULL-ENG"),
    ("AZ-B16", "FULL-ENG"),
    ("AZ-B17", "FULL-ENG"),
    ("AZ-B18", "FULL-ENG"),
    ("AZ-B19", "FULL-ENG"),
    ("AZ-B20", "FULL"),
    ("AZ-B21", "FULL-ENG"),
    ("AZ-B23", "FULL"),
    ("AZ-B31", "FULL-ENG"),
    ("AZ-B32", "FULL"),
    ("AZ-B36", "FULL"),
    ("AZ-B39", "FULL"),
    ("AZ-B40", "FULL"),
    ("AZ-B41", "FULL"),
    ("AZ-C01", "FULL"),
    ("AZ-C02", "FULL"),
    ("AZ-C03", "FULL"),
    ("AZ-C04", "FULL"),
    ("AZ-C05", "FULL"),
    ("AZ-C06", "FULL*"),
    ("AZ-C07", "FULL*"),
    ("AZ-C08", "FULL"),
    ("AZ-C10", "FULL"),
    ("AZ-C11", "FULL"),
    ("AZ-C12", "FULL"),
    ("AZ-C13", "FULL"),
    ("AZ-C14", "FULL"),
    ("AZ-C15", "FULL"),
    ("AZ-C16", "FULL"),
    ("AZ-C17", "FULL*"),
    ("AZ-C18", "FULL*"),
    ("AZ-C19", "FULL"),
    ("WC-01", "FULL-ENG"),
    ("WC-03", "FULL-ENG"),
    ("WS-01", "FULL"),
    ("WS-02", "FULL"),
    ("RS-01", "FULL"),
    ("RS-02", "FULL"),
    ("RS-03", "FULL"),
    ("RS-04", "FULL"),
    ("RS-05", "FULL-ENG"),
    ("RS-06", "FULL"),
    ("RS-07", "FULL-ENG"),
    ("RS-09", "FULL"),
    ("RS-10", "FULL"),
    ("RS-11", "FULL"),
    ("RS-12", "FULL"),
    ("RS-13", "FULL"),
    ("RS-15", "FULL"),
    ("RS-16", "FULL"),
    ("RS-17", "FULL"),
    ("RS-21", "FULL"),
    ("RS-22", "FULL"),
    ("INC-01", "FULL"),
    ("INC-03", "FULL*"),
    ("INC-08", "FULL"),
];

/// One procedure and the scripts that name it.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// Id of the procedure.
    pub id: &'static str,
    /// Its class.
    pub class: &'static str,
    /// Names of the scripts.
    pub scripts: Vec<String>,
}

/// All procedures, in the order of the table.
pub fn coverage(scripts: &[Script]) -> Vec<Coverage> {
    PROCEDURES
        .iter()
        .map(|(id, class)| {
            let named = scripts.iter().filter(|script| script.source.iter().any(|source| source == id));
            Coverage { id, class, scripts: named.map(|script| script.name.clone()).collect() }
        })
        .collect()
}
