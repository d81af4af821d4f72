//! Findings as they are collected: the list for people, bounded, and what a repair would have to do.

use super::codes::{Code, Mend};
use std::collections::BTreeMap;
use vmrescue_base::error::{Defect, Layer, Severity};

/// Most defects of one code that are listed; one line more says how many there were.
const MAX_OF_A_CODE: usize = 100;
/// Most remedies that are kept: a repair goes on with the rest in its next round.
const MAX_REMEDIES: usize = 1 << 18;

/// What puts a finding right. Names and keys are $FILE_NAME values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The boot sector from its copy.
    BootSector,
    /// The copy of the boot sector from the first.
    BootCopy,
    /// Write a record's copy in $MFTMirr.
    Mirror(u64),
    /// Write a record from its copy in $MFTMirr.
    FromMirror(u64),
    /// $Bitmap from the runs.
    ClusterBitmap,
    /// The bitmap of $MFT from the records.
    RecordBitmap,
    /// The bitmap of an index from its tree.
    IndexBitmap {
        /// Record of the index.
        record: u64,
        /// Name of the index, UTF-16LE.
        name: Vec<u8>,
    },
    /// The record's own number or count of names.
    Header(u64),
    /// Take an entry out of a directory.
    RemoveEntry {
        /// Record of the directory.
        directory: u64,
        /// The key.
        key: Vec<u8>,
        /// Where the entry leads to.
        reference: u64,
    },
    /// Put an entry into a directory.
    AddEntry {
        /// Reference of the file.
        reference: u64,
        /// The name.
        key: Vec<u8>,
    },
    /// Give a file, whose directory is gone, a name in `\found.000`.
    Orphan {
        /// Reference of the file.
        reference: u64,
        /// The name that leads nowhere.
        key: Vec<u8>,
    },
    /// Free an extension record without a base.
    FreeExtension(u64),
    /// The second copy of the descriptors in $SDS, from the first.
    SdsMirror,
    /// Take a key out of an index of $Extend.
    RemoveKey {
        /// `$Reparse` or `$ObjId`.
        file: &'static str,
        /// The key.
        key: Vec<u8>,
    },
    /// Put a key into an index of $Extend.
    AddKey {
        /// `$Reparse` or `$ObjId`.
        file: &'static str,
        /// The key.
        key: Vec<u8>,
        /// The data behind it.
        data: Vec<u8>,
    },
    /// Clear the mark `dirty`.
    Dirty,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    counts: BTreeMap<&'static str, usize>,
    pub(super) defects: Vec<Defect>,
    pub(super) remedies: Vec<Remedy>,
    /// Codes that keep a repair from starting, and those that it leaves.
    pub(super) refuses: bool,
    pub(super) leaves: bool,
}

impl Notes {
    /// Notes a finding.
    pub(super) fn note(&mut self, code: Code, at: impl Into<Option<u64>>, detail: impl Into<String>) {
        self.refuses |= code.mend == Mend::Refuses;
        self.leaves |= code.mend == Mend::Leaves && code.severity != Severity::Note;
        let count = self.counts.entry(code.name).or_default();
        *count += 1;
        if *count <= MAX_OF_A_CODE {
            self.defects.push(Defect::new(code.name, code.severity, Layer::Ntfs, at, detail));
        }
    }

    /// Notes a finding with what puts it right.
    pub(super) fn mend(
        &mut self,
        code: Code,
        at: impl Into<Option<u64>>,
        detail: impl Into<String>,
        remedy: Remedy,
    ) {
        self.note(code, at, detail);
        // Many findings have one remedy: whole bitmaps.
        if self.remedies.last() != Some(&remedy) && self.remedies.len() < MAX_REMEDIES {
            self.remedies.push(remedy);
        }
    }

    /// Notes a finding of a code that is mended elsewhere, here not.
    pub(super) fn leave(&mut self, code: Code, at: impl Into<Option<u64>>, detail: impl Into<String>) {
        self.note(code, at, detail);
        self.leaves = true;
    }

    /// Takes over the findings of a part.
    pub(super) fn merge(&mut self, part: Notes) {
        self.refuses |= part.refuses;
        self.leaves |= part.leaves;
        for defect in part.defects {
            let kept = self.counts.get(defect.code).copied().unwrap_or(0);
            if self.defects.iter().filter(|known| known.code == defect.code).count() < MAX_OF_A_CODE
                && kept < MAX_OF_A_CODE
            {
                self.defects.push(defect);
            }
        }
        for (code, count) in part.counts {
            *self.counts.entry(code).or_default() += count;
        }
        let room = MAX_REMEDIES.saturating_sub(self.remedies.len());
        self.remedies.extend(part.remedies.into_iter().take(room));
    }

    /// The list, with a line for each code that has more than are listed.
    pub(super) fn finish(&mut self) -> Vec<Defect> {
        for (code, count) in self.counts.iter().filter(|(_, count)| **count > MAX_OF_A_CODE) {
            let detail = format!("{count} of these in all, the first {MAX_OF_A_CODE} are listed");
            self.defects.push(Defect::new(code, Severity::Note, Layer::Ntfs, None, detail));
        }
        std::mem::take(&mut self.defects)
    }
}
