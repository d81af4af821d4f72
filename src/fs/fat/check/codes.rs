//! The codes of everything that the check of a FAT volume can find; `docs/check.md` has this table.

use crate::ntfs::{Code, Mend};
use vmrescue_base::error::Severity;

macro_rules! codes {
    ($($ident:ident $name:literal $severity:ident $mend:ident $meaning:literal)*) => {
        $(pub(super) const $ident: Code =
            Code { name: $name, severity: Severity::$severity, mend: Mend::$mend, meaning: $meaning };)*
        /// All codes, in the order of the documentation.
        pub const CODES: &[Code] = &[$($ident),*];
    };
}

codes! {
    BOOT_SECTOR "fat-boot-sector" Error Mends "the boot sector is damaged; the volume was read by its copy"
    BOOT_COPY "fat-boot-copy" Warning Mends "the copy of the boot sector differs from it, or is not there"
    VOLUME_CUT "fat-volume-cut" Error Refuses "the volume is larger than the partition or image that holds it"
    TABLE_SHORT "fat-table-short" Error Refuses "the allocation table has fewer entries than the volume has clusters"
    INFO "fat-info" Warning Mends "FSInfo is damaged or not there"
    INFO_COUNT "fat-info-count" Warning Mends "FSInfo counts other free clusters than there are"
    FIRST_ENTRY "fat-first-entry" Warning Mends "the first entry of the allocation table does not carry the media byte"
    DIRTY "fat-dirty" Warning Mends "the volume is marked dirty: Windows will check it at its next start"
    MEDIUM_ERRORS "fat-medium-errors" Note Leaves "Windows met errors of the medium on this volume"
    BAD_CLUSTERS "fat-bad-clusters" Note Leaves "the volume knows of bad clusters"
    COPIES_DIFFER "fat-copies-differ" Warning Mends "the copies of the allocation table differ; the one without damage is kept"
    TABLE_UNREADABLE "fat-table-unreadable" Error Refuses "a part of the allocation table cannot be read"
    CROSS_LINKED "fat-cross-linked" Error Refuses "clusters belong to two files (cross-linked)"
    CYCLE "fat-chain-cycle" Error Refuses "a chain of clusters leads back into itself"
    CHAIN "fat-chain" Error Leaves "a chain of clusters leads to a free or bad cluster, or out of the volume"
    CHAIN_SHORT "fat-chain-short" Error Leaves "a file has fewer clusters than its size needs: its end is lost"
    CHAIN_LONG "fat-chain-long" Warning Mends "a file has more clusters than its size needs; they are freed"
    FIRST_CLUSTER "fat-first-cluster" Error Leaves "a file or directory begins at a cluster that cannot be"
    LOST_CLUSTERS "fat-lost-clusters" Warning Mends "clusters are marked in use and no file has them; they become files in \\FOUND.000"
    DIRECTORY_UNREADABLE "fat-directory-unreadable" Error Leaves "a directory cannot be read, or is too long"
    DOT_ENTRIES "fat-dot-entries" Error Mends "a directory lacks `.` or `..`, or they lead elsewhere"
    DIRECTORY_SIZE "fat-directory-size" Warning Mends "the entry of a directory has a size"
    DIRECTORY_DEPTH "fat-directory-depth" Error Leaves "directories are nested too deeply"
    LONG_NAME "fat-long-name" Warning Mends "parts of a long name belong to no file: wrong order, checksum or entry; removed"
    SHORT_NAME "fat-short-name" Warning Leaves "an 8.3 name has characters that cannot be"
    NAME_TWICE "fat-name-twice" Error Leaves "two files of a directory have one name"
    ATTRIBUTES "fat-attributes" Warning Leaves "an entry has attributes that contradict each other, or a volume label lies outside of the root"
}
