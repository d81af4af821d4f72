//! The component store, `\Windows\WinSxS`: which versions of a file it holds.
//!
//! A component's directory is named `<arch>_<name>_<public key token>_<version>_<culture>_<hash>`.

use super::machine::{Installation, Machine};
use super::pe::{PeInfo, machine_name};
use crate::error::Result;
use crate::fs::{NodeId, NodeKind, read_file};
use serde::Serialize;

/// One copy of a file in the store.
#[derive(Debug, Clone, Serialize)]
pub struct StoreFile {
    /// Name of the component's directory.
    pub component: String,
    /// Version of the component, for sorting.
    pub component_version: [u32; 4],
    /// Path in the guest.
    pub path: String,
    /// The node of the file.
    #[serde(skip)]
    pub node: NodeId,
    /// Length in bytes.
    pub size: u64,
    /// What the file says; `None` when it cannot be restored from.
    pub pe: Option<PeInfo>,
    /// Why it cannot be restored from.
    pub problem: Option<String>,
}

impl StoreFile {
    /// True when Windows of that architecture could load it.
    pub fn is_usable_on(&self, architecture: &str) -> bool {
        self.pe.as_ref().is_some_and(|pe| machine_name(pe.machine) == architecture && pe.checksum_right)
    }
}

fn version_of(component: &str) -> Option<[u32; 4]> {
    let part = component.rsplit('_').nth(2)?;
    let numbers: Vec<u32> = part.split('.').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

/// All copies of the file `name` in the store, the newest component first. Components are looked into by their
/// directories' lists only; files are read when their name fits.
///
/// # Errors
/// Of the file system.
pub fn store_versions(machine: &Machine, installation: &Installation, name: &str) -> Result<Vec<StoreFile>> {
    let fs = machine.file_system(installation.volume)?;
    let Some(store) = fs.lookup(installation.root, "WinSxS")? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for component in fs.read_dir(store)?.into_iter().filter(|entry| entry.kind == NodeKind::Directory) {
        let Some(version) = version_of(&component.name) else { continue };
        let Some(node) = fs.lookup(component.id, name)? else { continue };
        let bytes = read_file(&*fs, node, "")?;
        let (pe, problem) = match PeInfo::parse(&bytes) {
            Ok(pe) => (Some(pe), None),
            Err(e) => (None, Some(e.message().to_string())),
        };
        found.push(StoreFile {
            path: format!("{}\\WinSxS\\{}\\{name}", installation.path, component.name),
            component: component.name,
            component_version: version,
            node,
            size: bytes.len() as u64,
            pe,
            problem,
        });
    }
    found.sort_by_key(|file| std::cmp::Reverse(file.component_version));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn versions_come_out_of_directory_names() {
        let name = "amd64_acpi.inf_31bf3856ad364e35_10.0.17763.7558_none_0a1b2c3d4e5f6071";
        assert_eq!(version_of(name), Some([10, 0, 17763, 7558]));
        assert_eq!(version_of("Backup"), None);
        assert_eq!(version_of("amd64_a_b_c_d_e"), None);
    }
}
