//! The codes of everything that the checker can find: how bad it is, what it means, and what a repair does about it.
//! `docs/check.md` is written from this table.

use std::fmt::Write;
use vmrescue_base::error::Severity;

/// What `check --repair` does about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// It has one right answer, which is written.
    Mends,
    /// It is left as it is, and does not keep anything else from being mended.
    Leaves,
    /// What clusters, records or names there are is not certain: no repair starts.
    Refuses,
}

/// One kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Its stable name.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What a repair does.
    pub mend: Mend,
    /// What it means.
    pub meaning: &'static str,
}

macro_rules! codes {
    ($($ident:ident $name:literal $severity:ident $mend:ident $meaning:literal)*) => {
        $(pub(super) const $ident: Code =
            Code { name: $name, severity: Severity::$severity, mend: Mend::$mend, meaning: $meaning };)*
        /// All codes, in the order of the documentation.
        pub const CODES: &[Code] = &[$($ident),*];
    };
}

codes! {
    BOOT_SECTOR "ntfs-boot-sector" Error Mends "the boot sector is damaged; the volume was read by its copy"
    BOOT_COPY "ntfs-boot-copy" Warning Mends "the copy of the boot sector, in the last sector, differs from it"
    VOLUME_CUT "ntfs-volume-cut" Error Refuses "the volume is larger than the partition or image that holds it"
    MFT_PLACE "ntfs-mft-place" Error Leaves "$MFT says of itself that it begins elsewhere than the boot sector says"
    MIRROR_PLACE "ntfs-mirror-place" Warning Leaves "$MFTMirr begins elsewhere than the boot sector says"
    MIRROR "ntfs-mirror" Warning Mends "one of the first records differs from its copy in $MFTMirr"
    MIRROR_BETTER "ntfs-mirror-better" Error Mends "one of the first records is damaged, its copy in $MFTMirr is whole"
    MFT_UNREADABLE "ntfs-mft-unreadable" Error Refuses "a part of $MFT cannot be read"
    SYSTEM_FILE "ntfs-system-file" Error Refuses "a file of the file system itself is missing, or lacks what makes it one"
    VOLUME_DIRTY "ntfs-volume-dirty" Warning Mends "the volume is marked dirty: Windows will run chkdsk at its next start"
    LOG_NOT_CLEAN "ntfs-log-not-clean" Note Leaves "$LogFile holds changes that were not finished; a repair finishes them first, or refuses where that is not possible"
    UPCASE "ntfs-upcase" Error Refuses "$UpCase is no table of upper-case letters"
    BAD_CLUSTERS "ntfs-bad-clusters" Note Leaves "the volume knows of bad clusters"
    BAD_SIZE "ntfs-bad-size" Warning Leaves "$BadClus:$Bad is not as long as the volume"
    RECORD "ntfs-record" Error Refuses "a file record in use cannot be read: its signature is wrong, or it is torn"
    RECORD_HEADER "ntfs-record-header" Error Refuses "the header of a file record does not hold its own fields"
    RECORD_NUMBER "ntfs-record-number" Warning Mends "a file record carries the number of another one"
    RECORD_SEQUENCE "ntfs-record-sequence" Warning Leaves "a file record in use has sequence number 0"
    ATTRIBUTE "ntfs-attribute" Error Refuses "an attribute does not hold its own fields"
    ATTRIBUTE_ORDER "ntfs-attribute-order" Warning Leaves "attributes are not in the order of their types and names"
    ATTRIBUTE_INSTANCE "ntfs-attribute-instance" Warning Leaves "two attributes of a record have one instance number, or one that is not given out yet"
    ATTRIBUTE_TWICE "ntfs-attribute-twice" Error Refuses "a file has two attributes of one type and name"
    ATTRIBUTE_FORM "ntfs-attribute-form" Error Refuses "an attribute lies in clusters that must lie in its record, or the other way round"
    STANDARD_INFORMATION "ntfs-standard-information" Error Leaves "a file has no $STANDARD_INFORMATION, or one of a length that cannot be"
    FILE_NAME "ntfs-file-name" Error Refuses "a $FILE_NAME does not hold its own fields"
    WITHOUT_NAME "ntfs-record-without-name" Error Leaves "a file has no name at all"
    NAME_PAIR "ntfs-name-pair" Warning Leaves "a Win32 name stands without its DOS name, or the other way round"
    LINK_COUNT "ntfs-link-count" Warning Mends "a file record counts other names than it has"
    RUN_LIST "ntfs-run-list" Error Refuses "a run list cannot be decoded, leads out of the volume or ends elsewhere than it says"
    RUN_SIZES "ntfs-run-sizes" Error Leaves "allocated, real, initialized and run-list lengths of an attribute contradict each other"
    HOLE "ntfs-hole" Error Leaves "an attribute that is neither sparse nor compressed has a hole"
    CLUSTER_SHARED "ntfs-cluster-shared" Error Refuses "clusters belong to two files, or twice to one (cross-linked)"
    LIST "ntfs-attribute-list" Error Refuses "an attribute list cannot be read or does not hold its own entries"
    LIST_ORDER "ntfs-attribute-list-order" Warning Leaves "entries of an attribute list are not in order"
    LIST_ENTRY "ntfs-attribute-list-entry" Error Refuses "an attribute list names an attribute that is not there"
    LIST_MISSING "ntfs-attribute-list-missing" Error Refuses "an attribute is missing in the attribute list of its file"
    LIST_SEGMENTS "ntfs-attribute-list-segments" Error Refuses "segments of an attribute do not follow each other"
    EXTENSION_UNOWNED "ntfs-extension-unowned" Warning Mends "an extension record belongs to no file: its base record is gone; freed when that is certain"
    INDEX "ntfs-index" Error Refuses "an index cannot be walked: a torn block, a block of another place, a circle, an entry that cannot be"
    INDEX_HEADER "ntfs-index-header" Error Refuses "the root of an index says another kind, order or block size than it must"
    INDEX_ORDER "ntfs-index-order" Error Refuses "keys of an index are not in order"
    INDEX_NODE_FLAG "ntfs-index-node-flag" Warning Leaves "a node of an index says that it has children and has none, or the other way round"
    INDEX_MARKED_FREE "ntfs-index-block-marked-free" Error Mends "a block of an index is in use and its bitmap calls it free"
    INDEX_MARKED_USED "ntfs-index-block-lost" Warning Mends "a block of an index is not in use and its bitmap calls it used"
    DIRECTORY "ntfs-directory" Error Refuses "a directory has no index, or a file has one"
    DIRECTORY_LOOP "ntfs-directory-loop" Error Refuses "directories contain each other in a circle: no way leads to them from the root"
    ENTRY_WITHOUT_FILE "ntfs-entry-without-file" Error Mends "a directory entry leads to a record that is free, was reused, or does not have this name; removed"
    ENTRY_PARENT "ntfs-entry-parent" Error Mends "a directory entry names another directory as its parent; rewritten from the record"
    NAME_NOT_IN_INDEX "ntfs-name-not-in-index" Error Mends "a file has a name in a directory that has no entry for it; added"
    ORPHAN "ntfs-orphan" Error Mends "a file's directory is gone: it gets a name in \\found.000"
    BITMAP "ntfs-bitmap" Error Refuses "$Bitmap cannot be read or is too short"
    BITMAP_MARKED_FREE "ntfs-bitmap-used-marked-free" Error Mends "clusters are in use and $Bitmap calls them free"
    BITMAP_MARKED_USED "ntfs-bitmap-lost-cluster" Warning Mends "clusters are marked in use and nothing holds them"
    MFT_BITMAP "ntfs-mft-bitmap" Error Refuses "the bitmap of $MFT cannot be read or is too short"
    RECORD_MARKED_FREE "ntfs-record-marked-free" Error Mends "a record is in use and the bitmap of $MFT calls it free"
    RECORD_MARKED_USED "ntfs-record-marked-used" Warning Mends "a record is free and the bitmap of $MFT calls it used"
    SECURITY_ID "ntfs-security-id" Error Leaves "a file's security id is not in $Secure"
    SDS "ntfs-sds" Error Leaves "a security descriptor in $SDS is damaged: hash, length, place or form"
    SDS_MIRROR "ntfs-sds-mirror" Warning Mends "the second copy of security descriptors in $SDS differs from the first"
    SECURE_INDEX "ntfs-secure-index" Error Leaves "$SII or $SDH do not say what $SDS holds"
    REPARSE_INDEX "ntfs-reparse-index" Warning Mends "$Reparse:$R and the reparse points of the files differ"
    OBJECT_ID_INDEX "ntfs-object-id-index" Warning Mends "$ObjId:$O and the object ids of the files differ"
    QUOTA "ntfs-quota" Warning Leaves "an entry of $Quota cannot be"
}

/// The documentation of all codes, as a page of Markdown (`docs/check.md`).
pub fn codes_page() -> String {
    let mut page = String::from(
        "# What the check of an NTFS volume finds\n\n\
         `vmrescue check IMAGE` reads a volume and cannot write to it. One pass over $MFT collects every record, attribute, run and \
         name; the directories are then walked and compared with the names in the records, the bitmaps with the runs, the indexes of \
         $Extend and $Secure with the files. Each finding has a code, a severity, a place in bytes from the beginning of the volume, \
         and a sentence. Sizes and times that a directory repeats of its files are not compared: Windows itself leaves them stale.\n\n\
         `vmrescue check IMAGE --repair` mends what has one right answer. It works on a staged copy, checks that copy again, and \
         publishes it as one operation that `vmrescue undo` takes back byte for byte. The mark `dirty` is cleared only when nothing \
         else is left. *Refuses* in the table: with this damage it is not certain which clusters, records or names there are, so no repair starts.\n\n\
         | code | severity | with `--repair` | meaning |\n|---|---|---|---|\n",
    );
    rows(&mut page, CODES);
    page.push_str(
        "\nAt most 100 findings of one code are listed, and a note under the same code says how many there are.\n\n\
         Not looked at: the contents of access control lists beyond their frame, the records of $LogFile and $UsnJrnl, compressed data, \
         $AttrDef.\n\n\
         # What the check of a FAT volume finds\n\n\
         One walk from the root follows every chain of clusters and reads every directory; what two chains go through is cross-linked, \
         what is in use and no chain goes through is lost. The copies of the allocation table are compared, and the boot sector and \
         FSInfo of FAT32 with their copies and counts. Where the copies of the table differ and the first has damage, one that has none is \
         taken. Refused repairs, undo and the mark `dirty` are as for NTFS.\n\n\
         | code | severity | with `--repair` | meaning |\n|---|---|---|---|\n",
    );
    rows(&mut page, crate::fat::CODES);
    page.push_str(
        "\nAn EFI system partition without FAT is reported for the disk: `system-partition-no-file-system`, `system-partition-not-fat` \
         (`vmrescue repair IMAGE system-partition`).\n",
    );
    page
}

/// The rows of a table of codes.
fn rows(page: &mut String, codes: &[Code]) {
    for code in codes {
        let does = match code.mend {
            Mend::Mends => "mends",
            Mend::Leaves => "leaves it",
            Mend::Refuses => "refuses",
        };
        let _infallible =
            writeln!(page, "| `{}` | {} | {does} | {} |", code.name, code.severity.name(), code.meaning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_distinct_and_documented() {
        let names: BTreeSet<&str> = CODES.iter().map(|code| code.name).collect();
        assert_eq!(names.len(), CODES.len());
        let page = include_str!("../../../../docs/check.md");
        // What the check of a hive finds stands behind it, written by hand.
        assert!(
            page.starts_with(&codes_page()),
            "docs/check.md does not begin with what codes_page() writes"
        );
    }
}
