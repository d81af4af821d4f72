//! Which builds this installation was: rollups among the packages, upgrades that Setup noted (`SYSTEM\Setup\Source OS (...)`), and what Windows
//! Update says of its last work (`SOFTWARE\...\WindowsUpdate\Auto Update\Results`).

use super::{Package, below, value_of};
use crate::unread::Unseen;
use serde::Serialize;
use vmrescue_base::error::Result;
use vmrescue_base::time::FileTime;
use vmrescue_registry::Hive;

/// Where Setup notes the builds that it replaced.
const SETUP: &str = r"HKLM\SYSTEM\Setup";

/// A build that the installation had or has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildStep {
    /// `17763.7558`, or a build alone.
    pub build: String,
    /// When it came (rollups), or was left (upgrades), as it is written there.
    pub time: Option<String>,
    /// Product and release, for upgrades.
    pub product: Option<String>,
    /// The KB that brought it.
    pub kb: Option<String>,
    /// Where it stands.
    pub source: String,
    /// State of the package, for rollups.
    pub state: Option<&'static str>,
}

/// The last result of a kind of work of Windows Update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentResult {
    /// `Detect`, `Download` or `Install`.
    pub work: String,
    /// When it last succeeded, UTC, as it is written there.
    pub last_success: Option<String>,
    /// Code of the last failure, 0 for none.
    pub last_error: Option<u32>,
}

/// The build that the identity of a rollup names: `Package_for_RollupFix~...~~17763.7558.1.6` is `17763.7558`.
pub(super) fn build_of(identity: &str) -> Option<String> {
    if !identity.to_ascii_lowercase().starts_with("package_for_rollupfix") {
        return None;
    }
    let mut parts = identity.rsplit('~').next()?.split('.');
    let (first, second) = (parts.next()?, parts.next()?);
    let numbers = first.parse::<u32>().is_ok_and(|build| build > 1000) && second.parse::<u32>().is_ok();
    numbers.then(|| format!("{first}.{second}"))
}

/// Rollups and upgrades, the oldest first.
pub(super) fn builds(packages: &[Package], system: Option<&Hive>, unseen: &Unseen) -> Result<Vec<BuildStep>> {
    let mut steps = Vec::new();
    if let Some(setup) = system.map(|hive| hive.key("Setup")).transpose()?.flatten() {
        for key in below(&setup, SETUP, unseen) {
            let name = key.name();
            if !name.starts_with("Source OS") {
                continue;
            }
            let value = |name: &str| value_of(&key, SETUP, name, unseen);
            let text = |name: &str| value(name).and_then(|value| value.as_string());
            let number = |name: &str| value(name).and_then(|value| value.as_u32());
            let build = text("CurrentBuildNumber").or_else(|| text("CurrentBuild")).unwrap_or_default();
            let build = number("UBR").map_or(build.clone(), |ubr| format!("{build}.{ubr}"));
            let release = text("DisplayVersion").or_else(|| text("ReleaseId")).unwrap_or_default();
            let product = format!("{} {release}", text("ProductName").unwrap_or_default());
            let time = number("InstallDate")
                .map(|seconds| FileTime::from_unix_seconds(i64::from(seconds)).to_string());
            steps.push(BuildStep {
                build,
                time,
                product: Some(product.trim().to_string()),
                kb: None,
                source: format!(r"HKLM\SYSTEM\Setup\{name}"),
                state: None,
            });
        }
    }
    for package in packages {
        let Some(build) = build_of(&package.identity) else { continue };
        steps.push(BuildStep {
            build,
            time: package.installed.clone(),
            product: None,
            kb: package.kb.clone(),
            source: package.identity.clone(),
            state: Some(package.state_name),
        });
    }
    steps.sort_by(|a, b| a.time.cmp(&b.time).then_with(|| a.build.cmp(&b.build)));
    Ok(steps)
}

/// What Windows Update says of its last work.
pub(super) fn agent_results(software: &Hive, unseen: &Unseen) -> Result<Vec<AgentResult>> {
    let path = r"Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\Results";
    let Some(list) = software.key(path)? else { return Ok(Vec::new()) };
    let result = |key: &vmrescue_registry::Key<'_>| AgentResult {
        work: key.name(),
        last_success: value_of(key, path, "LastSuccessTime", unseen).and_then(|value| value.as_string()),
        last_error: value_of(key, path, "LastError", unseen).and_then(|value| value.as_u32()),
    };
    Ok(below(&list, path, unseen).iter().map(result).collect())
}

#[cfg(test)]
mod tests {
    use super::build_of;

    #[test]
    fn rollups_name_their_build() {
        assert_eq!(
            build_of("Package_for_RollupFix~31bf3856ad364e35~amd64~~17763.7558.1.6").as_deref(),
            Some("17763.7558")
        );
        assert_eq!(build_of("Package_for_KB5062557~31bf3856ad364e35~amd64~~10.0.1.4"), None);
        assert_eq!(build_of("Package_for_RollupFix~x~y~~10.0.1.4"), None);
    }
}
