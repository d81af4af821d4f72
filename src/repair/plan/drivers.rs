//! Steps that put drivers and system files back.

use super::Planner;
use crate::change::Change;
use crate::key_path::key_path;
use sha2::{Digest, Sha256};
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_boot::{Chain, Part};
use vmrescue_fs::path::GuestPath;
use vmrescue_windows::{PeInfo, StoreFile, expand_image_path, machine_name, store_versions};

impl Planner<'_> {
    pub(super) fn restore(&mut self, name: &str, version: &str) -> Result<()> {
        let is_file = [".sys", ".exe", ".dll", ".efi", ".nls"]
            .iter()
            .any(|ext| name.to_ascii_lowercase().ends_with(ext));
        let (file, place) = self.driver_place(name, is_file)?;
        let architecture = &self.installation.architecture;
        let wanted = |found: &&StoreFile| {
            let own = found.pe.as_ref().and_then(|pe| pe.file_version.as_deref()).unwrap_or_default();
            version.is_empty() || own == version || found.component.contains(&format!("_{version}_"))
        };
        let now = self.file(&place)?;
        let is_data = file.to_ascii_lowercase().ends_with(".nls");
        let healthy = now.as_deref().is_some_and(|bytes| match PeInfo::parse(bytes) {
            Ok(pe) => machine_name(pe.machine) == architecture && pe.checksum_right,
            // A code page is no program file.
            Err(_) => is_data && !is_zero(bytes),
        });
        if healthy && version.is_empty() {
            return Ok(());
        }
        // The bytes that the build expects are better than any other healthy version.
        if version.is_empty() && self.restore_exact(&place)? {
            return Ok(());
        }
        // The whole store is gone through: only for a file that needs it.
        let versions = store_versions(self.machine, self.installation, &file)?;
        let usable: Vec<_> = versions.iter().filter(|found| found.is_restorable_on(architecture)).collect();
        let notes = self.planned.notes.len();
        if !usable.iter().any(wanted)
            && self.restore_from_source(&file, &place, version, now.as_ref(), &versions)?
        {
            return Ok(());
        }
        let Some(best) = usable.iter().copied().find(|found| wanted(found)) else {
            // What a source has and was not taken, and why.
            let refused = self.planned.notes.split_off(notes.min(self.planned.notes.len()));
            let advice = if refused.is_empty() {
                "name a healthy machine's disk, an install.wim or a folder of the same build: --source FILE"
            } else {
                "a version of another build is taken when it is asked for: --set version=VERSION"
            };
            let mut there: Vec<String> = versions
                .iter()
                .map(|found| {
                    format!("{} ({})", found.component, found.problem.as_deref().unwrap_or("usable"))
                })
                .collect();
            there.extend(refused);
            return Err(Error::not_found(
                Layer::Windows,
                format!("the component store has no healthy {file} to restore"),
            )
            .expected(format!("a full PE file for {architecture} {version}"))
            .found(if there.is_empty() { "no copy at all".to_string() } else { there.join("; ") })
            .advice(advice));
        };
        if self.file(&best.path)? == now {
            return Ok(());
        }
        let own = best.pe.as_ref().and_then(|pe| pe.file_version.clone());
        let own = own.unwrap_or_else(|| best.component_version.map(|part| part.to_string()).join("."));
        let why = format!(
            "version {own}, {} of {} copies in the component store are healthy",
            usable.len(),
            versions.len()
        );
        self.planned.changes.push(Change::FileLink { path: place, target: best.path.clone(), why });
        Ok(())
    }

    /// The boot chain of the installation, walked once.
    fn chain(&self) -> Result<&Chain> {
        if self.chain.get().is_none() {
            let chain = vmrescue_boot::walk(self.machine, self.installation)?;
            // Nobody else sets it: the planner is used by one thread.
            return Ok(self.chain.get_or_init(|| chain));
        }
        self.chain.get().ok_or_else(|| Error::invalid(Layer::Windows, "the boot chain was not walked"))
    }

    /// Puts back every file of the start that is missing or broken; what no source has is noted.
    pub(super) fn restore_boot_files(&mut self) -> Result<()> {
        let broken: Vec<String> = self
            .chain()?
            .broken()
            .filter(|(link, _)| link.is_file() && link.part != Part::SystemHive)
            .map(|(link, _)| link.place.clone())
            .collect();
        for place in broken {
            match self.restore(&place, "") {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    self.planned.notes.push(format!("{place}: {e}"));
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// File name and guest path of a driver, which is named by its file, the path of that, or its service.
    pub(super) fn driver_place(&mut self, name: &str, is_file: bool) -> Result<(String, String)> {
        if let Some((_, file)) = name.rsplit_once('\\') {
            return Ok((file.to_string(), name.to_string()));
        }
        if is_file {
            // Where the start looks for it: not every driver lies among the drivers.
            if let Some(link) = self.chain()?.file(name) {
                return Ok((name.to_string(), link.place.clone()));
            }
            let folder =
                if name.to_ascii_lowercase().ends_with(".sys") { r"System32\drivers" } else { "System32" };
            return Ok((name.to_string(), format!(r"{}\{folder}\{name}", self.installation.path)));
        }
        let key = format!(r"HKLM\SYSTEM\CurrentControlSet\Services\{name}");
        let at = key_path(self.machine, self.installation, &key)?;
        let found = self.hive(&at.hive)?.key(&at.key)?;
        let found = found.ok_or_else(|| Error::not_found(Layer::Windows, format!("no driver {name}")))?;
        let image = found.value("ImagePath")?.and_then(|value| value.as_string()).unwrap_or_default();
        let parts = expand_image_path(&image, name, true).ok_or_else(|| {
            Error::not_found(Layer::Windows, "its ImagePath cannot be resolved").found(image)
        })?;
        let volume = self.installation.path.split('\\').next().unwrap_or_default();
        let file = parts.last().cloned().unwrap_or_default();
        Ok((file, format!("{volume}\\{}", parts.join("\\"))))
    }

    /// Takes the file from `--source`: a PE file of the right machine type, whole, and of this build or of the version that was asked for.
    fn restore_from_source(
        &mut self,
        file: &str,
        place: &str,
        version: &str,
        now: Option<&Vec<u8>>,
        store: &[StoreFile],
    ) -> Result<bool> {
        let build = format!(".{}.", self.installation.build);
        for source in &self.context.sources {
            for found in source.find(file)? {
                let own = found.pe.file_version.clone().unwrap_or_default();
                let fits = if version.is_empty() { own.contains(&build) } else { own == version };
                if !fits
                    || machine_name(found.pe.machine) != self.installation.architecture
                    || !found.pe.checksum_right
                {
                    self.planned.notes.push(format!("{}: not taken, version {own}", found.from));
                    continue;
                }
                if now == Some(&found.data) {
                    return Ok(true);
                }
                let of_own_version = format!("_{own}_");
                let entry = store.iter().find(|entry| {
                    entry.component.contains(&of_own_version) && matches!(entry.payload, "pe" | "other")
                });
                let hash = vmrescue_base::text::hex(&Sha256::digest(&found.data));
                if entry
                    .is_some_and(|entry| entry.expected_sha256.as_ref().is_some_and(|wanted| *wanted != hash))
                {
                    let why = "its SHA-256 is not the one of the component's manifest";
                    self.planned.notes.push(format!("{}: not taken, {why}", found.from));
                    continue;
                }
                let (size, from) = (found.data.len() as u64, format!("{}, version {own}", found.from));
                let node = self.machine.resolve(&GuestPath::parse(place)?)?.1;
                if let Some(entry) = entry.filter(|entry| Some(entry.node) != node) {
                    // The store's own copy of this version is broken: both names get the content, as one file.
                    let path = entry.path.clone();
                    let why = format!("version {own}, as the store has it");
                    let link = Change::FileLink { path: place.to_string(), target: path.clone(), why };
                    self.planned
                        .changes
                        .extend([Change::FileWrite { path, data: found.data.into(), size, from }, link]);
                    return Ok(true);
                }
                // The file may be one with a component of another version, which must not get this content.
                let shared = store.iter().find(|entry| Some(entry.node) == node);
                if shared.is_some_and(|entry| !entry.component.contains(&of_own_version)) {
                    self.planned.changes.push(Change::FileDelete { path: place.to_string() });
                }
                let path = place.to_string();
                self.planned.changes.push(Change::FileWrite { path, data: found.data.into(), size, from });
                return Ok(true);
            }
        }
        Ok(false)
    }
}
