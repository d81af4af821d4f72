//! What differs between two baselines.

use super::facts::Baseline;
use super::policy::{Level, Policy};
use serde::Serialize;
use std::collections::BTreeMap;

/// A value that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The area.
    pub area: String,
    /// The name.
    pub name: String,
    /// Its value in the golden baseline; nothing when it is not there.
    pub golden: Option<String>,
    /// Its value here; nothing when it is not there.
    pub here: Option<String>,
    /// What the policy says.
    pub level: Level,
    /// Why, when the policy's rule says it.
    pub reason: String,
}

/// All differences that the policy does not leave out: those that fail first, then by area and name.
pub fn compare(golden: &Baseline, here: &Baseline, policy: &Policy) -> Vec<Difference> {
    let empty = BTreeMap::new();
    let mut found = Vec::new();
    let areas: std::collections::BTreeSet<&String> = golden.areas.keys().chain(here.areas.keys()).collect();
    for area in areas {
        let (old, new) = (golden.areas.get(area).unwrap_or(&empty), here.areas.get(area).unwrap_or(&empty));
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names.into_iter().filter(|name| old.get(*name) != new.get(*name)) {
            let (level, reason) = policy.judge(area, name);
            found.push(Difference {
                area: area.clone(),
                name: name.clone(),
                golden: old.get(name).cloned(),
                here: new.get(name).cloned(),
                level,
                reason,
            });
        }
    }
    found.retain(|difference| difference.level != Level::Ignore);
    found.sort_by_key(|difference| difference.level != Level::Fail);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(values: &[(&str, &str, &str)]) -> Baseline {
        let mut areas: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (area, name, value) in values {
            areas.entry((*area).into()).or_default().insert((*name).into(), (*value).into());
        }
        Baseline { schema: "vmrescue.baseline/1".into(), areas }
    }

    #[test]
    fn the_policy_says_what_matters() {
        let golden =
            made(&[("services", "a", "auto"), ("services", "b", "auto"), ("packages", "p", "installed")]);
        let here =
            made(&[("services", "a", "disabled"), ("services", "c", "auto"), ("windows", "build", "1")]);
        let all = compare(&golden, &here, &Policy::default());
        assert_eq!(all.len(), 5);
        assert_eq!(all[0].name, "p");
        let policy = "[[rule]]\narea = 'services'\nname = 'a'\nlevel = 'fail'\nreason = 'needed'\n\
                      [[rule]]\narea = 'services'\nlevel = 'note'\n[[rule]]\nlevel = 'ignore'\n";
        let judged = compare(&golden, &here, &Policy::parse(policy).unwrap());
        let short: Vec<(&str, Level)> = judged.iter().map(|d| (d.name.as_str(), d.level)).collect();
        assert_eq!(short, [("a", Level::Fail), ("b", Level::Note), ("c", Level::Note)]);
        assert_eq!(judged[0].reason, "needed");
        assert!(compare(&golden, &golden, &Policy::default()).is_empty());
        let wrong = Policy::parse("[[rule]]\nlevel = 'perhaps'\n").unwrap_err().to_string();
        assert!(wrong.contains("line 2"), "{wrong}");
    }
}
