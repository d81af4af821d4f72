//! A repair script: one TOML file with documentation, parameters, conditions and steps.
//!
//! The form is published as `docs/script.schema.json`, and every script is checked against it.

mod action;
mod condition;
mod schema;
mod shipped;

pub use action::Action;
pub use condition::{BcdCondition, Condition, Loop, ParameterCondition, RegistryCondition};
pub use shipped::shipped;

use serde::Deserialize;
use std::collections::BTreeMap;
use vmrescue_base::error::{Error, Layer, Result};

/// A repair script.
#[derive(Debug, Clone, Deserialize)]
pub struct Script {
    /// Name on the command line.
    pub name: String,
    /// One line.
    pub title: String,
    /// What it does, when to use it.
    pub documentation: String,
    /// Where the procedure is described.
    #[serde(default)]
    pub source: Vec<String>,
    /// What remains to be done when the machine runs again, or elsewhere.
    #[serde(default)]
    pub remains: String,
    /// Where it may be run.
    #[serde(default)]
    pub applies: Condition,
    /// Parameters by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParameterType {
    /// Anything.
    #[default]
    Text,
    /// A number, decimal or after `0x`.
    Number,
    /// `yes` or `no`.
    YesNo,
    /// Name of a service: no path.
    Service,
    /// A guest path.
    Path,
    /// A GUID in braces.
    Guid,
}

impl ParameterType {
    /// True when the text is one.
    pub fn takes(self, text: &str) -> bool {
        match self {
            ParameterType::Text => true,
            ParameterType::Number => match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).is_ok(),
                None => text.parse::<u64>().is_ok(),
            },
            ParameterType::YesNo => matches!(text, "yes" | "no"),
            ParameterType::Service => !text.is_empty() && !text.contains(['\\', '/', '*', '?']),
            ParameterType::Path => vmrescue_fs::path::GuestPath::parse(text).is_ok(),
            ParameterType::Guid => {
                let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
                inner.is_some_and(|inner| inner.parse::<vmrescue_base::guid::Guid>().is_ok())
            }
        }
    }
}

/// A parameter of a script; steps use it as `${name}`.
#[derive(Debug, Clone, Deserialize)]
pub struct Parameter {
    /// What it means.
    pub documentation: String,
    /// Its value when none is given; without a default it must be given.
    pub default: Option<String>,
    /// Nobody but the user may read it: it stands in no history and in no report.
    #[serde(default)]
    pub secret: bool,
    /// What it may be.
    #[serde(default, rename = "type")]
    pub kind: ParameterType,
}

/// One step.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// Only when this holds.
    #[serde(default)]
    pub when: Condition,
    /// Once for each of these; `${item}` names it.
    pub for_each: Option<Loop>,
    /// What is missing is a note, and no error.
    #[serde(default)]
    pub optional: bool,
    /// Left out on a disk without Windows.
    #[serde(default)]
    pub windows_only: bool,
    /// Why somebody has to agree to it.
    #[serde(rename = "unsafe")]
    pub consent: Option<String>,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
}

impl Script {
    /// True when it changes partitions and file systems only, but for steps that are for Windows only: it needs no installation.
    pub fn is_for_disk(&self) -> bool {
        let below = |step: &Step| {
            matches!(
                step.action,
                Action::PartitionSetActive { .. }
                    | Action::PartitionSetType { .. }
                    | Action::PartitionClearAttributes { .. }
                    | Action::PartitionRepairGpt {}
                    | Action::PartitionRestore {}
                    | Action::PartitionRepairBootSector { .. }
                    | Action::FileSystemRepair { .. }
            )
        };
        let mut needed = self.steps.iter().filter(|step| !step.windows_only).peekable();
        needed.peek().is_some() && needed.all(below)
    }

    /// Parses a script.
    ///
    /// # Errors
    /// `Invalid` with line and column.
    pub fn parse(text: &str) -> Result<Script> {
        if text.len() as u64 > vmrescue_base::limits::MAX_SCRIPT_BYTES {
            return Err(Error::limit(Layer::Script, "the script is too large"));
        }
        schema::check(text)?;
        toml::from_str(text).map_err(|e| Error::invalid(Layer::Script, e.to_string().trim_end().to_string()))
    }

    /// The scripts of a folder: every file that ends with `.toml`.
    ///
    /// # Errors
    /// Of the host; as [`Script::parse`], naming the file.
    pub fn folder(folder: &std::path::Path) -> Result<Vec<Script>> {
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io("cannot be read", folder, e))?;
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        let read = |path: &std::path::PathBuf| {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io("cannot be read", path, e))?;
            Script::parse(&text).map_err(|e| e.in_file(path))
        };
        files.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::registry_data;
    use vmrescue_base::text::fits;
    use vmrescue_registry::DataType;

    #[test]
    fn every_shipped_script_parses_and_names_itself_once() {
        let scripts = shipped().unwrap();
        let names: std::collections::BTreeSet<&str> =
            scripts.iter().map(|script| script.name.as_str()).collect();
        assert_eq!(names.len(), shipped::SHIPPED.len());
        assert!(scripts.iter().all(|script| script.documentation.len() > 40 && !script.steps.is_empty()));
    }

    #[test]
    fn an_error_in_a_script_has_a_line() {
        let e = Script::parse("name = \"x\"\ntitle = 7\n").unwrap_err().to_string();
        assert!(e.contains("line 2"), "{e}");
        let head = "name = 'x'\ntitle = 'x'\ndocumentation = 'x'\n";
        for (rest, wanted) in [
            ("[[steps]]\nop = 'file.copy'\nfrom = 'a'\n", "needs the key \"to\""),
            (
                "[[steps]]\nop = 'file.copy'\n   frm = 'a'\n",
                "line 6, column 4: steps[0] (file.copy) has no key \"frm\"",
            ),
            ("[[steps]]\nop = 'file.cpoy'\n", "line 5, column 6: there is no op \"file.cpoy\""),
            ("[[steps]]\nop = 'bcd.rebuild'\nwhen = { firmware = 'efi' }\n", "line 6, column 21"),
            ("[[steps]]\nop = 'bcd.rebuild'\nwhen = { not = [{ nothing = 'x' }] }\n", "no key \"nothing\""),
            ("[[steps]]\nfrom = 'a'\n", "line 4, column 1: steps[0] has no op"),
            ("steps = 3\n", "steps must be a array"),
        ] {
            let e = Script::parse(&format!("{head}{rest}")).unwrap_err().to_string();
            assert!(e.contains(wanted), "{e}");
        }
    }

    /// What the schema allows is what the code reads: a step of every kind with every key.
    #[test]
    fn schema_and_code_know_the_same_steps() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/script.schema.json")).unwrap();
        let kinds = schema["properties"]["steps"]["items"]["oneOf"].as_array().unwrap();
        for kind in kinds {
            let mut step = String::from("[[steps]]\n");
            for (key, value) in kind["properties"].as_object().unwrap() {
                let text = match (value["const"].as_str(), value["type"].as_str(), value["$ref"].as_str()) {
                    (Some(op), ..) => format!("'{op}'"),
                    (_, Some("boolean"), _) => "true".to_string(),
                    (_, _, Some("#/$defs/condition")) => {
                        "{ min_build = '1', registry = { key = 'k' } }".into()
                    }
                    (_, _, Some(_)) => "{ values = ['1'] }".into(),
                    _ => "'x'".into(),
                };
                step.push_str(&format!("{key} = {text}\n"));
            }
            let script = format!("name = 'x'\ntitle = 'x'\ndocumentation = 'x'\n{step}");
            Script::parse(&script).unwrap_or_else(|e| panic!("{e}\n{script}"));
        }
        assert!(kinds.len() >= 30);
    }

    #[test]
    fn parameters_have_types() {
        for (kind, good, bad) in [
            (ParameterType::Number, "0x10", "ten"),
            (ParameterType::YesNo, "yes", "true"),
            (ParameterType::Service, "storvsc", "a\\b"),
            (ParameterType::Path, r"C:\Windows", "Windows"),
            (
                ParameterType::Guid,
                "{4d36e967-e325-11ce-bfc1-08002be10318}",
                "4d36e967-e325-11ce-bfc1-08002be10318",
            ),
        ] {
            assert!(kind.takes(good) && !kind.takes(bad), "{kind:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
        #[test]
        fn damaged_scripts_are_errors_and_never_panic(
            which in 0usize..shipped::SHIPPED.len(), at in proptest::prelude::any::<proptest::sample::Index>(),
            what in "[\\x00-\\x7f]{0,6}", pattern in ".{0,12}", name in ".{0,12}",
        ) {
            let mut text = shipped::SHIPPED[which].to_string();
            let mut place = at.index(text.len());
            while !text.is_char_boundary(place) { place -= 1; }
            text.insert_str(place, &what);
            drop(Script::parse(&text));
            drop(Script::parse(&what));
            fits(&pattern, &name);
            drop(registry_data(DataType::BINARY, &pattern));
            drop(registry_data(DataType::QWORD, &pattern));
        }
    }

    #[test]
    fn patterns_fit_as_in_the_shell() {
        assert!(fits("c-00000291*.sys", "C-00000291-00000000-00000032.sys"));
        assert!(!fits("c-00000291*.sys", "C-00000292-0.sys"));
        assert!(fits("*.blf", "a.BLF") && !fits("x", "xy"));
    }

    #[test]
    fn registry_data_is_what_reg_exe_takes() {
        assert_eq!(registry_data(DataType::DWORD, "0x10").unwrap(), [16, 0, 0, 0]);
        assert_eq!(registry_data(DataType::BINARY, "0aFF").unwrap(), [10, 255]);
        assert_eq!(registry_data(DataType::SZ, "a").unwrap(), [97, 0, 0, 0]);
        assert!(registry_data(DataType::DWORD, "x").is_err());
    }
}
