//! When a script or a step is meant, and what a step is done for.

use serde::Deserialize;

/// Holds when everything that it names holds; an empty one always does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// `BUILD` or `BUILD.UBR`: at least this.
    pub min_build: Option<String>,
    /// `BUILD` or `BUILD.UBR`: at most this.
    pub max_build: Option<String>,
    /// `amd64`, `arm64`, `x86`.
    pub architecture: Option<String>,
    /// `uefi`, `bios`.
    pub firmware: Option<String>,
    /// `domain-controller`, `hyper-v`, `failover-cluster`.
    pub role: Option<String>,
    /// An article whose package is installed.
    pub kb: Option<String>,
    /// An article whose package waits for the next start.
    pub pending_kb: Option<String>,
    /// A guest path that is there; the last part may be a pattern.
    pub file: Option<String>,
    /// A key, a value, its data.
    pub registry: Option<RegistryCondition>,
    /// An element of the boot store.
    pub bcd: Option<BcdCondition>,
    /// A parameter of the script.
    pub parameter: Option<ParameterCondition>,
    /// At least one of these holds.
    pub any: Vec<Condition>,
    /// None of these holds.
    pub not: Vec<Condition>,
}

/// A key is there; with `value` that value; with `data` it has these data as reg.exe writes them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RegistryCondition {
    /// The key.
    pub key: String,
    /// Name of the value.
    pub value: Option<String>,
    /// Its data.
    pub data: Option<String>,
}

/// An element of the boot store is there; with `value` it has this value as bcdedit writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BcdCondition {
    /// The object.
    pub object: String,
    /// The element.
    pub element: String,
    /// Its value.
    pub value: Option<String>,
}

/// A parameter has this value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ParameterCondition {
    /// Its name.
    pub name: String,
    /// The value.
    pub is: String,
}

/// What a step is done for, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Loop {
    /// Services and drivers whose name fits.
    pub services: Option<String>,
    /// Only those with this start.
    pub start: Option<String>,
    /// Only drivers.
    pub drivers_only: bool,
    /// Files whose name fits the last part of the path.
    pub files: Option<String>,
    /// Keys by a path whose parts may be patterns.
    pub keys: Option<String>,
    /// `ControlSet001` and so on.
    pub control_sets: bool,
    /// These.
    pub values: Vec<String>,
}
