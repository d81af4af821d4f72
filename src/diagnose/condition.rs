//! Whether a condition of a rule holds, and what shows it.

use super::data::{BcdTest, FileTest, RegistryTest, ServiceTest, When};
use super::scene::{FoundFile, Scene};
use vmrescue_base::text::fits;
use vmrescue_registry::Key;
use vmrescue_windows::bcd::{Firmware, Options, view};
use vmrescue_windows::{Weight, roles};

/// Evidence, when it holds.
type Seen = Option<Vec<String>>;

fn one(line: String) -> Seen {
    Some(vec![line])
}

fn fits_one(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, text))
}

/// `17763`, `17763.7558` or `17763.7558-7677`.
fn build_fits(pattern: &str, build: u32, revision: u32) -> bool {
    let (wanted, revisions) = pattern.split_once('.').map_or((pattern, None), |(b, r)| (b, Some(r)));
    if wanted.parse() != Ok(build) {
        return false;
    }
    let Some(revisions) = revisions else { return true };
    let (first, last) = revisions.split_once('-').unwrap_or((revisions, revisions));
    first.parse().is_ok_and(|first: u32| first <= revision)
        && last.parse().is_ok_and(|last: u32| revision <= last)
}

/// Build and revision in the identity of a cumulative update: `Package_for_RollupFix~...~~17763.7558.1.6`.
fn rollup_build(identity: &str) -> Option<(u32, u32)> {
    let version = identity.strip_prefix("Package_for_RollupFix")?.rsplit('~').next()?;
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl When {
    /// The evidence, when everything that it names holds; `None` when it does not.
    pub(super) fn holds(&self, scene: &Scene<'_>) -> Seen {
        let mut seen = Vec::new();
        let mut all = |part: Seen| part.map(|lines| seen.extend(lines));
        all(self.installation(scene))?;
        all(self.packages(scene))?;
        for test in &self.service {
            all(service(test, scene))?;
        }
        for test in &self.bcd {
            all(element(test, scene))?;
        }
        for test in &self.registry {
            all(registry(test, scene))?;
        }
        for test in &self.file {
            all(file(test, scene))?;
        }
        for test in &self.event {
            all(super::events::seen(&test.id, &test.provider, &test.subject, test.at_least, scene))?;
        }
        if !self.bugcheck.is_empty() {
            all(super::history::bugcheck(&self.bugcheck, scene))?;
        }
        if !self.any.is_empty() {
            all(self.any.iter().find_map(|other| other.holds(scene)))?;
        }
        if self.not.iter().any(|other| other.holds(scene).is_some()) {
            return None;
        }
        Some(seen)
    }

    /// What the installation itself says.
    fn installation(&self, scene: &Scene<'_>) -> Seen {
        let installation = scene.installation;
        let mut seen = Vec::new();
        if !self.build.is_empty() {
            seen.push(build(&self.build, scene)?);
        }
        if let Some(wanted) = &self.architecture
            && *wanted != installation.architecture
        {
            return None;
        }
        if let Some(wanted) = &self.firmware {
            let is = if scene.layout().firmware == Firmware::Uefi { "uefi" } else { "bios" };
            (is == wanted).then_some(())?;
        }
        if !self.edition.is_empty() {
            fits_one(&self.edition, &installation.edition).then_some(())?;
            seen.push(format!("the edition is {}", installation.edition));
        }
        if !self.role.is_empty() {
            let there = roles(scene.machine, installation);
            let there =
                scene.unseen.found("the roles of the machine", "HKLM\\SYSTEM", Weight::Partial, there)?;
            let role = there.iter().find(|role| self.role.iter().any(|wanted| wanted == role.name()))?;
            seen.push(format!("the machine is a {}", role.name()));
        }
        Some(seen)
    }

    /// What packages say.
    fn packages(&self, scene: &Scene<'_>) -> Seen {
        let mut seen = Vec::new();
        for (wanted, states) in [(&self.kb, &[0x65, 0x70, 0x80][..]), (&self.pending_kb, &[0x5, 0x60][..])] {
            if !wanted.is_empty() {
                let found = scene.updates().packages.iter().find(|package| {
                    // What nothing will finish waits for no start.
                    states.contains(&package.state)
                        && !package.orphaned
                        && package.kb.as_ref().is_some_and(|kb| wanted.iter().any(|w| w == kb))
                })?;
                seen.push(format!("package {} is {}", found.identity, found.state_name));
            }
        }
        if let Some(wanted) = self.pending {
            let pending = &scene.updates().pending;
            (wanted != pending.is_empty()).then_some(())?;
            seen.extend(pending.iter().take(3).cloned());
        }
        Some(seen)
    }
}

/// The build, or that of an update that waits.
fn build(wanted: &[String], scene: &Scene<'_>) -> Option<String> {
    let (build, revision) = (scene.installation.build, scene.installation.ubr);
    if wanted.iter().any(|pattern| build_fits(pattern, build, revision)) {
        return Some(format!("the build is {build}.{revision}"));
    }
    let waiting = scene.updates().packages.iter();
    let waiting = waiting.filter(|package| matches!(package.state, 0x60 | 0x65) && !package.orphaned);
    waiting.filter_map(|package| Some((package, rollup_build(&package.identity)?))).find_map(
        |(package, (build, revision))| {
            wanted
                .iter()
                .any(|pattern| build_fits(pattern, build, revision))
                .then(|| format!("package {} is {}", package.identity, package.state_name))
        },
    )
}

fn service(test: &ServiceTest, scene: &Scene<'_>) -> Seen {
    let found = scene.services().iter().find(|service| {
        fits(&test.name, &service.name)
            && (test.start.is_empty() || test.start.iter().any(|start| start == service.start_name()))
    })?;
    one(format!(
        r"HKLM\SYSTEM\{}\Services\{}: Start = {}",
        scene.control_set(),
        found.name,
        found.start_name()
    ))
}

fn registry(test: &RegistryTest, scene: &Scene<'_>) -> Seen {
    let mut seen = None;
    scene.keys(&test.key, &mut |path, key| {
        if seen.is_none() {
            seen = key_fits(test, path, key, scene);
        }
    });
    seen.map(|line| vec![line])
}

fn key_fits(test: &RegistryTest, path: &str, key: &Key<'_>, scene: &Scene<'_>) -> Option<String> {
    let Some(name) = &test.value else { return Some(format!("{path} is there")) };
    let value = scene.value_of(path, key, name)?;
    let text = scene.text(path, &value)?;
    let holds = (test.is.is_empty() || fits_one(&test.is, &text))
        && !fits_one(&test.is_not, &text)
        && test.at_least.is_none_or(|least| value.as_u32().is_some_and(|number| number >= least))
        && test.bits.is_none_or(|bits| value.as_u32().is_some_and(|number| number & bits == bits));
    holds.then(|| format!("{path}: {name} = {text}"))
}

fn file(test: &FileTest, scene: &Scene<'_>) -> Seen {
    scene.files(&test.path).iter().find_map(|file| file_fits(test, file, scene)).map(|line| vec![line])
}

fn file_fits(test: &FileTest, file: &FoundFile, scene: &Scene<'_>) -> Option<String> {
    let mut line = file.path.clone();
    if test.modified_from.is_some() || test.modified_before.is_some() {
        // Times in this form sort as text.
        let time = scene.metadata(file)?.times.modified.to_string();
        let inside = test.modified_from.as_ref().is_none_or(|from| time.as_str() >= from.as_str())
            && test.modified_before.as_ref().is_none_or(|before| time.as_str() < before.as_str());
        inside.then_some(())?;
        line = format!("{line}, last written {}", time.get(..19).unwrap_or(&time));
    }
    if !test.version.is_empty() {
        let version = scene.version(file)?;
        fits_one(&test.version, &version).then_some(())?;
        line = format!("{line} has version {version}");
    }
    if let Some(other) = &test.differs_from {
        let (own, theirs) = (scene.version(file)?, scene.version(&scene.file(other)?)?);
        (own != theirs).then_some(())?;
        line = format!("{line} has version {own}, {} has {theirs}", scene.path(other));
    }
    if test.broken {
        line = format!("{line}: {}", scene.broken(file)?);
    } else if line == file.path {
        line.push_str(" is there");
    }
    Some(line)
}

fn element(test: &BcdTest, scene: &Scene<'_>) -> Seen {
    let (path, store) = scene.store()?;
    // What is no name of an object, no object has.
    let id = format!("{{{}}}", store.resolve(&test.object).ok()?);
    let objects = view(store, &scene.machine.disk_map(), Options { aliases: true });
    let own = objects.into_iter().find(|object| object.identifier == id)?;
    let element = own.elements.into_iter().find(|e| e.name.eq_ignore_ascii_case(&test.element))?;
    let text = element.value.join(" ");
    let number = || text.split(' ').next().and_then(|word| word.parse::<u64>().ok());
    let holds = (test.is.is_empty() || fits_one(&test.is, &text))
        && test.at_least.is_none_or(|least| number().is_some_and(|number| number >= least));
    holds.then(|| vec![format!("{path}: {} {} is {text}", test.object, element.name)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_fit_alone_and_in_ranges() {
        assert!(build_fits("17763", 17763, 1) && build_fits("17763.7558", 17763, 7558));
        assert!(build_fits("17763.7558-7677", 17763, 7558) && build_fits("17763.7558-7677", 17763, 7677));
        assert!(!build_fits("17763.7558-7677", 17763, 7678) && !build_fits("17763.7558", 17763, 7559));
        assert!(
            !build_fits("17763", 17764, 1) && !build_fits("x", 17763, 1) && !build_fits("17763.x", 17763, 1)
        );
        let identity = "Package_for_RollupFix~31bf3856ad364e35~amd64~~26100.4652.1.10";
        assert_eq!(rollup_build(identity), Some((26100, 4652)));
        assert_eq!(rollup_build("Package_for_KB5062557~31bf~amd64~~10.0.1.4"), None);
    }
}
