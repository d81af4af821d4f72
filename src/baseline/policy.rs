//! Which differences matter: rules in TOML, the first that fits counts; without one a difference fails.

use serde::{Deserialize, Serialize};
use std::path::Path;
use vmrescue_base::error::{Error, Layer, Result};

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The image is not as it should be.
    Fail,
    /// Shown, and no more.
    Note,
    /// Not shown.
    Ignore,
}

/// A rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Pattern for the area.
    #[serde(default = "any")]
    pub area: String,
    /// Pattern for the name.
    #[serde(default = "any")]
    pub name: String,
    /// What the difference means.
    pub level: Level,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

fn any() -> String {
    "*".into()
}

/// A policy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its rules.
    #[serde(default, rename = "rule")]
    pub rules: Vec<Rule>,
}

impl Policy {
    /// Reads a policy from a file.
    ///
    /// # Errors
    /// Of the host; `Invalid` with line and column.
    pub fn read(path: &Path) -> Result<Policy> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("cannot be read", path, e))?;
        Policy::parse(&text).map_err(|e| e.in_file(path))
    }

    /// Reads a policy from its text.
    ///
    /// # Errors
    /// `Invalid` with line and column.
    pub fn parse(text: &str) -> Result<Policy> {
        toml::from_str(text).map_err(|e| Error::invalid(Layer::Windows, "not a policy").caused_by(e))
    }

    /// What a difference means, and why.
    pub fn judge(&self, area: &str, name: &str) -> (Level, String) {
        let fits = |rule: &&Rule| {
            vmrescue_base::text::fits(&rule.area, area) && vmrescue_base::text::fits(&rule.name, name)
        };
        self.rules.iter().find(fits).map_or((Level::Fail, String::new()), |r| (r.level, r.reason.clone()))
    }
}
