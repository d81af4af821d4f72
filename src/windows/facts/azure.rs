//! The agent of Azure: its services, its version, and the extensions that it keeps in `C:\Packages\Plugins`.

use super::{Source, start_word};
use crate::PeInfo;
use serde::Serialize;
use vmrescue_fs::{NodeKind, read_file};

/// Extensions that are listed, and versions of each that are looked at.
const MAX_EXTENSIONS: usize = 200;

/// The agent of Azure.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AzureAgent {
    /// Version: of the folder that the service runs from, or of its file.
    pub version: Option<String>,
    /// Start of the service RdAgent.
    pub rd_agent: Option<&'static str>,
    /// Start of the service WindowsAzureGuestAgent.
    pub guest_agent: Option<&'static str>,
    /// The file of the guest agent is there.
    pub file_present: Option<bool>,
    /// Identifier of the virtual machine.
    pub vm_id: Option<String>,
    /// Extensions, by name.
    pub extensions: Vec<AzureExtension>,
}

/// An extension.
#[derive(Debug, Clone, Serialize)]
pub struct AzureExtension {
    /// Publisher and type, such as `Microsoft.Compute.VMAccessAgent`.
    pub name: String,
    /// Versions whose folders are there.
    pub versions: Vec<String>,
    /// What the last status file says: `success`, `error`, `transitioning`, ...
    pub status: Option<String>,
}

pub(super) fn read(source: &Source<'_>) -> Option<AzureAgent> {
    let start = |name: &str| source.start_of(name).map(start_word);
    let (rd_agent, guest_agent) = (start("RdAgent"), start("WindowsAzureGuestAgent"));
    let folder = source.node(&source.own("WindowsAzure")).is_some();
    if rd_agent.is_none() && guest_agent.is_none() && !folder {
        return None;
    }
    let image = source.system.text(r"%\Services\WindowsAzureGuestAgent", "ImagePath");
    let path = image.as_deref().and_then(|image| {
        let end = image.to_ascii_lowercase().find(".exe")? + 4;
        source.guest_path(image.get(..end)?)
    });
    let file = path.as_deref().map(|path| source.node(path));
    let version = image.as_deref().and_then(folder_version).or_else(|| {
        let (fs, node) = file.clone()??;
        let bytes = source.seen(path.as_deref().unwrap_or_default(), read_file(&*fs, node, ""))?;
        // A file that is no whole program has no version; whether it can run is not asked here.
        PeInfo::parse(&bytes).ok()?.file_version
    });
    Some(AzureAgent {
        version,
        rd_agent,
        guest_agent,
        file_present: file.map(|file| file.is_some()),
        vm_id: source.software.text(r"Microsoft\Windows Azure", "VmId"),
        extensions: extensions(source),
    })
}

/// `C:\WindowsAzure\GuestAgent_2.7.41491.1010_2021-...\WindowsAzureGuestAgent.exe`
fn folder_version(image: &str) -> Option<String> {
    let rest = image.split("GuestAgent_").nth(1)?;
    let version: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    (!version.is_empty()).then_some(version)
}

fn extensions(source: &Source<'_>) -> Vec<AzureExtension> {
    let Some((fs, plugins)) = source.node(&source.own(r"Packages\Plugins")) else { return Vec::new() };
    let folder = source.own(r"Packages\Plugins");
    let Some(list) = source.seen(&folder, fs.read_dir(plugins)) else { return Vec::new() };
    let mut found: Vec<AzureExtension> = Vec::new();
    for entry in list.into_iter().filter(|entry| entry.kind == NodeKind::Directory).take(MAX_EXTENSIONS) {
        let place = format!(r"{folder}\{}", entry.name);
        let all = source.seen(&place, fs.read_dir(entry.id));
        let versions: Vec<String> = all.into_iter().flatten().map(|version| version.name).collect();
        let status = versions.last().and_then(|version| {
            let version = source.seen(&place, fs.lookup(entry.id, version))??;
            let folder = source.seen(&place, fs.lookup(version, "Status"))??;
            let files = source.seen(&place, fs.read_dir(folder))?;
            let last = files
                .into_iter()
                .filter(|file| file.size_bytes < 1 << 20)
                .filter_map(|file| {
                    file.name.strip_suffix(".status")?.parse::<u64>().ok().map(|n| (n, file.id))
                })
                .max_by_key(|(number, _)| *number)?;
            status(&source.seen(&place, read_file(&*fs, last.1, ""))?)
        });
        found.push(AzureExtension { name: entry.name, versions, status });
    }
    found
}

/// The status in an extension's status file.
fn status(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    // The agent may be at writing it: what is no JSON has no status.
    let document: serde_json::Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let first = document.get(0).unwrap_or(&document);
    Some(first.get("status")?.get("status")?.as_str()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_states_are_found() {
        let image = r"C:\WindowsAzure\GuestAgent_2.7.41491.1010_2021-05-01\WindowsAzureGuestAgent.exe";
        assert_eq!(folder_version(image).as_deref(), Some("2.7.41491.1010"));
        assert_eq!(folder_version(r"C:\WindowsAzure\Packages\WindowsAzureGuestAgent.exe"), None);
        let text = br#"[{"version":1,"status":{"operation":"Enable","status":"success"}}]"#;
        assert_eq!(status(text).as_deref(), Some("success"));
        assert_eq!(status(b"[{"), None);
    }
}
