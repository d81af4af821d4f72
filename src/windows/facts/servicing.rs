//! Updates in short: the servicing stack, and what waits for the next start. `updates` tells the whole story.

use super::Source;
use serde::Serialize;

const SERVICING: &str = r"Microsoft\Windows\CurrentVersion\Component Based Servicing";

/// Updates in short.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Servicing {
    /// Version of the servicing stack, the newest that is registered.
    pub stack_version: Option<String>,
    /// Packages that the registry lists; `None` when it cannot be read.
    pub packages: Option<u32>,
    /// A restart is pending.
    pub reboot_pending: bool,
    /// What waits for the next start, each with its place.
    pub pending: Vec<String>,
}

fn version_numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

pub(super) fn read(source: &Source<'_>) -> Servicing {
    let software = &source.software;
    let stack = software.key(&format!(r"{SERVICING}\Version")).and_then(|key| {
        let names = key.values_lenient().0.into_iter().map(|value| value.name());
        names.filter_map(|name| version_numbers(&name).map(|numbers| (numbers, name))).max()
    });
    let packages = software.key(&format!(r"{SERVICING}\Packages")).map(|key| key.subkey_count());
    let pending = match crate::updates(source.machine, source.installation) {
        Ok(updates) => updates.pending,
        Err(e) => {
            source.notes.add(format!("updates: {e}"));
            Vec::new()
        }
    };
    Servicing {
        stack_version: stack.map(|(_, name)| name),
        packages,
        reboot_pending: !pending.is_empty(),
        pending,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_compared_as_numbers() {
        use super::version_numbers as v;
        assert!(v("10.0.17763.10000") > v("10.0.17763.7558"));
        assert_eq!(v("10.0.x"), None);
    }
}
