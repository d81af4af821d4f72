//! The files that the loader takes before Windows can read its own disk, with what signatures and the component store say of them. Which they are,
//! and what is wrong with them, is told by the walk of the boot chain (`vmrescue-boot`): one broken is 0xc0000098, 0xc000000f or 0xc0000428 on the screen.

use super::Driver;
use super::file::{FileFacts, Files, Verdict};
use crate::authenticode::Signature;
use crate::machine::Installation;
use serde::Serialize;
use vmrescue_base::error::Result;

/// Updates of the processor, which the loader takes when they are there.
const WHEN_THERE: [&str; 2] = ["mcupdate_GenuineIntel.dll", "mcupdate_AuthenticAMD.dll"];

/// Why the boot needs a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum BootReason {
    /// The loader.
    Loader,
    /// The kernel, or a part that is loaded with it.
    Kernel,
    /// A driver that starts at boot.
    Driver {
        /// Name of its service.
        service: String,
        /// Its turn, from 1.
        order: u32,
        /// Its group.
        group: String,
    },
    /// Another file of this list imports it.
    Import {
        /// File name of the first that does.
        of: String,
    },
    /// Data that the loader reads.
    Data {
        /// What it is.
        what: String,
    },
}

impl BootReason {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            BootReason::Loader => "loader".into(),
            BootReason::Kernel => "kernel".into(),
            BootReason::Driver { service, group, .. } if group.is_empty() => service.clone(),
            BootReason::Driver { service, group, .. } => format!("{service} ({group})"),
            BootReason::Import { of } => format!("imported by {of}"),
            BootReason::Data { what } => what.clone(),
        }
    }
}

/// A file that the boot needs.
#[derive(Debug, Clone, Serialize)]
pub struct BootFile {
    /// Path in the guest.
    pub path: String,
    /// Why it is needed.
    pub reason: BootReason,
    /// How it stands.
    pub verdict: Verdict,
    /// Why the verdict is not `ok`.
    pub problems: Vec<String>,
    /// What was seen.
    pub facts: Option<FileFacts>,
}

/// A file that the loader takes, by its own walk (`vmrescue-boot`).
#[derive(Debug, Clone)]
pub struct BootWanted {
    /// Path in the guest.
    pub path: String,
    /// Why it is needed.
    pub reason: BootReason,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// The start ends there; else the loader goes on, or may.
    pub stops: bool,
    /// It is a program file.
    pub program: bool,
}

/// The list, in the order of the loader; microcode is taken when it is there.
pub(super) fn boot_files(
    files: &mut Files<'_>,
    installation: &Installation,
    drivers: &[Driver],
    wanted: &[BootWanted],
) -> Result<Vec<BootFile>> {
    let mut list: Vec<BootFile> = Vec::new();
    let volume = installation.path.split('\\').next().unwrap_or_default();
    for name in WHEN_THERE {
        let parts = ["Windows", "System32", name].map(String::from);
        if files.exists(&parts)? {
            let path = format!("{volume}\\{}", parts.join("\\"));
            let problem = files.look(&path, &parts, true, true)?.problem.clone();
            let verdict = if problem.is_some() { Verdict::Check } else { Verdict::Ok };
            let problems = problem.into_iter().collect();
            list.push(BootFile { path, reason: BootReason::Kernel, verdict, problems, facts: None });
        }
    }
    for file in wanted {
        let parts: Vec<String> = file.path.split('\\').skip(1).map(String::from).collect();
        files.look(&file.path, &parts, file.program, true)?;
        let reason = match &file.reason {
            BootReason::Driver { service, .. } => {
                let own = drivers.iter().find(|driver| driver.service.name.eq_ignore_ascii_case(service));
                BootReason::Driver {
                    service: service.clone(),
                    order: own.and_then(|own| own.load_order).unwrap_or(0),
                    group: own.map(|own| own.service.group.clone()).unwrap_or_default(),
                }
            }
            other => other.clone(),
        };
        let verdict = match &file.problem {
            None => Verdict::Ok,
            Some(_) if file.stops => Verdict::Bad,
            Some(_) => Verdict::Check,
        };
        let problems = file.problem.iter().cloned().collect();
        list.push(BootFile { path: file.path.clone(), reason, verdict, problems, facts: None });
    }
    Ok(list)
}

impl BootFile {
    /// Takes over what was found since, and judges.
    pub(super) fn finish(&mut self, files: &Files<'_>, catalogs: bool) {
        let Some(facts) = files.get(&self.path) else { return };
        // The walk has said so where the loader asks for signatures.
        if let Signature::Broken { .. } = facts.signature
            && self.problems.is_empty()
        {
            self.note(facts.signature.text());
        }
        if facts.signature == Signature::Missing && catalogs {
            self.note("no signature in it, and no catalog names it".into());
        }
        if let Some(origin) = &facts.store {
            if origin.hash_fits == Some(false) {
                self.note("its SHA-256 is not the one of its component's manifest".into());
            }
            if let (Some(false), Some(is), Some(wins)) = (origin.is_winner, &origin.version, &origin.winner) {
                self.note(format!("it is version {is} of its component, and {wins} wins"));
            }
            if origin.tie == crate::Tie::Differs && facts.size.is_some() && self.verdict == Verdict::Ok {
                self.note("the component store has files of this name, and none is this one".into());
            }
        }
        self.facts = Some(facts.clone());
    }

    fn note(&mut self, words: String) {
        self.problems.push(words);
        self.verdict = self.verdict.max(Verdict::Check);
    }
}
