//! A hive in memory, for reading.

use super::cell::{BASE_BYTES, base_checksum, bins_bytes, signed};
use super::key::Key;
use super::log;
use vmrescue_base::bytes::{slice_at, u32_at};
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::text::{until_nul, utf16le_lossy};

/// Minor versions of hives: 3 since NT 4, 4 and 5 since XP, 6 for layered ones.
pub(super) const VERSIONS: std::ops::RangeInclusive<u32> = 3..=6;

/// A hive in memory.
#[derive(Clone)]
pub struct Hive {
    pub(super) bytes: Vec<u8>,
    defects: Vec<Defect>,
    pub(super) clean: bool,
    /// Hives that are clean and whole are trusted to have the hashes of names right.
    pub(super) hashes_are_right: bool,
}

impl std::fmt::Debug for Hive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hive({} bytes)", self.bytes.len())
    }
}

impl Hive {
    /// Parses the file of a hive. Only the base block is looked at here; the rest when it is asked for.
    ///
    /// # Errors
    /// `Damaged` when this is no hive or its root key cannot be read.
    pub fn parse(bytes: Vec<u8>) -> Result<Hive> {
        let base = |text: &str| Error::damaged(Layer::Hive, text.to_string()).at(0);
        if bytes.len() as u64 > vmrescue_base::limits::MAX_HIVE_BYTES {
            return Err(Error::limit(Layer::Hive, "a hive may not be larger than 2 GiB"));
        }
        if bytes.get(..4) != Some(b"regf") {
            return Err(base("this is not a registry hive").expected("regf"));
        }
        let mut defects = Vec::new();
        let mut note = |code, offset, text: &str| {
            let severity = if code == "hive-cut-off" { Severity::Error } else { Severity::Warning };
            defects.push(Defect::new(code, severity, Layer::Hive, offset, text));
        };
        let sum_right = u32_at(&bytes, 508) == Some(base_checksum(&bytes));
        if !sum_right {
            note("hive-base-checksum", 508, "the checksum of the base block is wrong");
        }
        let sequences_equal = u32_at(&bytes, 4) == u32_at(&bytes, 8);
        if !sequences_equal {
            note("hive-not-clean", 4, "the last write was not finished; the transaction logs hold the rest");
        }
        let said = u32_at(&bytes, 40).unwrap_or(0) as usize;
        if said > bytes.len().saturating_sub(BASE_BYTES) {
            note("hive-cut-off", 40, "the file is shorter than the hive");
        }
        let hashes_are_right = defects.is_empty();
        let hive = Hive { bytes, defects, clean: sum_right && sequences_equal, hashes_are_right };
        let root = u32_at(&hive.bytes, 36).unwrap_or(0);
        if signed(&hive.bytes, root, b"nk").is_none() {
            return Err(base("the root key cannot be read")
                .at(BASE_BYTES as u64 + u64::from(root))
                .advice("look for a copy in System32\\config\\RegBack or in a restore point"));
        }
        Ok(hive)
    }

    /// A hive under construction, whose root is not there yet.
    pub(super) fn without_root(bytes: Vec<u8>) -> Hive {
        Hive { bytes, defects: Vec::new(), clean: true, hashes_are_right: true }
    }

    /// As [`Hive::parse`], with what the transaction logs hold applied in memory when the hive is not clean.
    ///
    /// # Errors
    /// As [`Hive::parse`].
    pub fn parse_with_logs(bytes: Vec<u8>, logs: &[Vec<u8>]) -> Result<Hive> {
        match log::replay(&bytes, logs) {
            Some(recovered) => match Hive::parse(recovered) {
                // Never worse than before: a replay that breaks the root is not taken.
                Ok(mut hive) => {
                    let text = "changes from the transaction logs were applied in memory";
                    hive.defects.push(Defect::new(
                        "hive-log-replayed",
                        Severity::Note,
                        Layer::Hive,
                        None,
                        text,
                    ));
                    Ok(hive)
                }
                Err(_) => Hive::parse(bytes),
            },
            None => Hive::parse(bytes),
        }
    }

    /// True when the bytes are those of the file: nothing was applied from logs and nothing put right.
    pub fn is_as_on_disk(&self) -> bool {
        !self.defects.iter().any(|defect| matches!(defect.code, "hive-log-replayed" | "hive-accepted"))
    }

    /// True when the last write was finished.
    pub(super) fn is_closed(&self) -> bool {
        u32_at(&self.bytes, 4) == u32_at(&self.bytes, 8)
    }

    /// True when the hive was closed and its base block is right: an edit can begin.
    pub fn is_clean(&self) -> bool {
        self.clean
    }

    /// Takes the hive as it lies, for one that was not closed and whose logs are gone, or whose base block has a wrong
    /// checksum: both sequence numbers become the last one that was confirmed. What the last write had not finished is lost,
    /// and the walk over all cells ([`Hive::check`]) has to say whether what is there fits together.
    #[must_use]
    pub fn accept(mut self) -> Hive {
        if self.clean {
            return self;
        }
        let (begun, confirmed) = (u32_at(&self.bytes, 4).unwrap_or(0), u32_at(&self.bytes, 8).unwrap_or(0));
        if let Some(place) = self.bytes.get_mut(4..8) {
            place.copy_from_slice(&confirmed.to_le_bytes());
        }
        let sum = base_checksum(&self.bytes);
        if let Some(place) = self.bytes.get_mut(508..512) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        self.defects.retain(|defect| !matches!(defect.code, "hive-not-clean" | "hive-base-checksum"));
        let text = if begun == confirmed {
            "the base block had a wrong checksum, which was computed anew".to_string()
        } else {
            format!(
                "write {begun} was not finished and its logs are gone; the hive is taken as write {confirmed} left it"
            )
        };
        self.defects.push(Defect::new("hive-accepted", Severity::Note, Layer::Hive, 4, text));
        self.clean = true;
        self
    }

    /// What was found wrong when the hive was opened.
    pub fn defects(&self) -> &[Defect] {
        &self.defects
    }

    /// Every defect that a walk over all cells finds.
    pub fn check(&self) -> Vec<Defect> {
        let mut defects = self.defects.clone();
        super::check::check(self, &mut defects);
        defects
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file, taken out of the hive.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Minor version: 3 to 6.
    pub fn minor_version(&self) -> u32 {
        u32_at(&self.bytes, 24).unwrap_or(0)
    }

    /// Name of the file as the base block has it; cut to its last 31 characters by Windows.
    pub fn file_name(&self) -> String {
        let bytes = slice_at(&self.bytes, 48, 64).unwrap_or_default();
        until_nul(&utf16le_lossy(bytes)).to_string()
    }

    /// Bytes of all bins.
    pub fn bins_bytes(&self) -> usize {
        bins_bytes(&self.bytes)
    }

    /// The root key.
    pub fn root(&self) -> Key<'_> {
        Key { hive: self, offset: u32_at(&self.bytes, 36).unwrap_or(0) }
    }

    /// The key at `path` below the root; `\` between names, case does not matter, "" is the root.
    ///
    /// # Errors
    /// `Damaged` when a list on the way cannot be read.
    pub fn key(&self, path: &str) -> Result<Option<Key<'_>>> {
        let mut key = self.root();
        for name in super::path::names(path) {
            match key.subkey(name)? {
                Some(next) => key = next,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }
}
