//! `WinSxS\pending.xml`: what poqexec does at the next start. A queue of primitive operations on files and keys (`POQ` elements), the
//! transactions and components they belong to, and the installers that run after them. Written by the servicing stack; not documented by
//! Microsoft; read here as far as its element names speak. Missing: rollback data is only counted.

use crate::xml::{Part, Parts, decode};
use serde::Serialize;
use std::collections::BTreeMap;

/// File operations that are kept one by one; all are counted.
const MAX_KEPT: usize = 2000;
/// Changes of components that are kept one by one.
const MAX_CHANGES: usize = 5000;
/// Kinds of operations that are counted apart.
const MAX_KINDS: usize = 64;

/// An operation on a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileOperation {
    /// Name of the element: `HardlinkFile`, `MoveFile`, `DeleteFile`, `CreateFile`.
    pub kind: String,
    /// Where the content comes from.
    pub source: Option<String>,
    /// The file that is made, replaced or deleted.
    pub target: String,
    /// The loader needs the target: a file of System32 or of its drivers that starts the machine.
    pub boot: bool,
}

/// One queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// What follows it, such as `reboot`.
    pub post_action: Option<String>,
    /// How many operations it has.
    pub operations: u64,
    /// How many of these stand before its checkpoint: the critical ones. `None` without a checkpoint.
    pub before_checkpoint: Option<u64>,
}

/// What pending.xml says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PendingXml {
    /// Bytes of the file.
    pub size: u64,
    /// Identifier of the transaction, the same as `PendingXmlIdentifier` in COMPONENTS.
    pub identifier: Option<String>,
    /// Version of the servicing stack that wrote it.
    pub stack_version: Option<String>,
    /// How many transactions.
    pub transactions: u64,
    /// Components that change, with their new version.
    pub changes: Vec<String>,
    /// The queues, in order.
    pub queues: Vec<Queue>,
    /// How many operations of each kind.
    pub operations: BTreeMap<String, u64>,
    /// Operations on files, those that the loader needs first.
    pub files: Vec<FileOperation>,
    /// How many installers run after it.
    pub installers: u64,
    /// The end of the document is there.
    pub complete: bool,
}

/// Reads the document; one that is cut off gives what is there.
pub fn parse_pending_xml(bytes: &[u8]) -> PendingXml {
    let text = decode(bytes);
    let mut found = PendingXml { size: bytes.len() as u64, ..PendingXml::default() };
    let mut in_queue = false;
    let mut path: Vec<&str> = Vec::new();
    for part in Parts(&text) {
        match part {
            Part::Open(tag, empty) => {
                let name = tag.local();
                match name {
                    "PendingTransaction" => {
                        found.identifier = tag.attribute("Identifier").map(|text| text.into_owned());
                        found.stack_version = tag.attribute("WcpVersion").map(|text| text.into_owned());
                    }
                    "POQ" => {
                        in_queue = !empty;
                        let post_action = tag.attribute("postAction").map(|text| text.into_owned());
                        found.queues.push(Queue { post_action, ..Queue::default() });
                    }
                    "Transaction" if path.last() == Some(&"Transactions") => found.transactions += 1,
                    "Change" if path.last() == Some(&"ChangeList") && found.changes.len() < MAX_CHANGES => {
                        let family =
                            tag.attribute("Family").or_else(|| tag.attribute("family")).unwrap_or_default();
                        let new = tag.attribute("New").or_else(|| tag.attribute("new")).unwrap_or_default();
                        found.changes.push(format!("{family} {new}").trim().to_string());
                    }
                    _ if path.last() == Some(&"InstallerQueue") => found.installers += 1,
                    _ if name.eq_ignore_ascii_case("Checkpoint") => {
                        if let Some(queue) = found.queues.last_mut() {
                            queue.before_checkpoint.get_or_insert(queue.operations);
                        }
                    }
                    _ if in_queue && path.last() == Some(&"POQ") => {
                        let source = tag.attribute("source").map(|text| text.into_owned());
                        let target = tag.attribute("destination").or_else(|| tag.attribute("path"));
                        found.operation(name, source, target.map(|text| text.into_owned()));
                    }
                    _ => {}
                }
                if !empty && path.len() < 64 {
                    path.push(name);
                }
            }
            Part::Close(name) => {
                let name = crate::xml::local(name);
                if let Some(at) = path.iter().rposition(|open| *open == name) {
                    path.truncate(at);
                }
                in_queue &= name != "POQ";
                found.complete |= name == "PendingTransaction";
            }
            Part::Text(_) => {}
        }
    }
    found.files.sort_by_key(|operation| !operation.boot);
    found
}

impl PendingXml {
    fn operation(&mut self, name: &str, source: Option<String>, target: Option<String>) {
        if let Some(queue) = self.queues.last_mut() {
            queue.operations += 1;
        }
        if self.operations.len() < MAX_KINDS || self.operations.contains_key(name) {
            *self.operations.entry(name.to_string()).or_insert(0) += 1;
        }
        let Some(target) = target.filter(|_| name.ends_with("File") && !name.starts_with("Set")) else {
            return;
        };
        let boot = is_boot_file(&target);
        if boot || self.files.len() < MAX_KEPT {
            self.files.push(FileOperation { kind: name.into(), source, target, boot });
        }
    }

    /// All operations of all queues.
    pub fn operation_count(&self) -> u64 {
        self.queues.iter().map(|queue| queue.operations).sum()
    }
}

/// True for the files without which the machine does not start.
fn is_boot_file(target: &str) -> bool {
    let lower = target.to_ascii_lowercase();
    let Some(at) = lower.find(r"\system32\") else { return false };
    let rest = &lower[at + r"\system32\".len()..];
    if let Some(driver) = rest.strip_prefix(r"drivers\") {
        return driver.ends_with(".sys") && !driver.contains('\\');
    }
    const NAMES: [&str; 14] = [
        "ntoskrnl.exe",
        "hal.dll",
        "ci.dll",
        "winload.exe",
        "winload.efi",
        "winresume.exe",
        "winresume.efi",
        "kdcom.dll",
        "ntdll.dll",
        "smss.exe",
        "csrss.exe",
        "wininit.exe",
        "services.exe",
        "lsass.exe",
    ];
    NAMES.contains(&rest)
        || NAMES.contains(&rest.rsplit('\\').next().unwrap_or_default()) && rest.starts_with(r"boot\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Written for this test, with the element names that published excerpts show.
    const SAMPLE: &str = r#"<?xml version='1.0' encoding='utf-8'?>
<PendingTransaction Version="3.1" WcpVersion="10.0.17763.7558 (WinBuild.160101.0800)" Identifier="916ae75edb30da01">
	<Transactions><Transaction TransactionId="1"/><Transaction TransactionId="2"/></Transactions>
	<ChangeList><Change Family="acpi.inf, Culture=neutral" New="10.0.17763.7558"/></ChangeList>
	<POQ postAction="reboot">
		<CreateDirectory path="\SystemRoot\x"/>
		<HardlinkFile source="\SystemRoot\WinSxS\amd64_acpi.inf_x\acpi.sys" destination="\??\C:\Windows\System32\drivers\acpi.sys"/>
		<Checkpoint/>
		<SetKeyValue path="\Registry\Machine\x" name="y &amp; z" type="0x00000001" encoding="base64" value="AA=="/>
	</POQ>
	<POQ><MoveFile source="\SystemRoot\WinSxS\Temp\PendingRenames\1" destination="\??\C:\Windows\notepad.exe"/>
	<DeleteFile path="\SystemRoot\System32\boot\winload.efi"/></POQ>
	<InstallerQueue Length="0x1"><Install installer="x"/></InstallerQueue>
	<RollbackInformation><AdminHints></AdminHints></RollbackInformation>
</PendingTransaction>"#;

    #[test]
    fn operations_are_counted_and_boot_files_come_first() {
        let found = parse_pending_xml(SAMPLE.as_bytes());
        assert_eq!(found.identifier.as_deref(), Some("916ae75edb30da01"));
        assert_eq!((found.transactions, found.installers, found.operation_count()), (2, 1, 5));
        assert_eq!(found.queues[0].post_action.as_deref(), Some("reboot"));
        assert_eq!((found.queues[0].before_checkpoint, found.queues[1].before_checkpoint), (Some(2), None));
        assert_eq!(found.operations["HardlinkFile"], 1);
        assert_eq!(found.changes, ["acpi.inf, Culture=neutral 10.0.17763.7558"]);
        assert!(found.complete && found.files.len() == 3);
        assert!(found.files[0].boot && found.files[1].boot && !found.files[2].boot);
        let cut = parse_pending_xml(&SAMPLE.as_bytes()[..SAMPLE.len() - 30]);
        assert!(!cut.complete && cut.operation_count() == 5);
    }

    proptest! {
        #[test]
        fn any_document_is_read_without_panic(cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = SAMPLE.as_bytes().to_vec();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len()));
            let found = parse_pending_xml(&bytes);
            // Each is an element; a queue that is not closed any more takes what follows it for its own.
            let elements = bytes.iter().filter(|byte| **byte == b'<').count();
            prop_assert!(found.operation_count() <= elements as _);
        }
    }
}
