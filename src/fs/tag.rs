//! What the tag of a reparse point ([MS-FSCC] 2.1.2.1) says of a file: that it is a link, or that its content is kept
//! somewhere else, so that the clusters of the file are no content at all.
//!
//! Only tags with the bit "name surrogate" are links. Others belong to a filter driver that puts the content in when
//! Windows runs; offline such a file reads as zeros, which must never be taken for what the file holds.
//! Missing: the chunk store of Data Deduplication is not read.

use super::{Attributes, NodeKind};

/// Bit of the tag: the file stands for another name.
const NAME_SURROGATE: u32 = 0x2000_0000;
/// A file whose data lies compressed in the stream `WofCompressedData`, or in a WIM.
pub(crate) const WOF: u32 = 0x8000_0017;
/// FILE_ATTRIBUTE_OFFLINE, FILE_ATTRIBUTE_RECALL_ON_OPEN, FILE_ATTRIBUTE_RECALL_ON_DATA_ACCESS.
const NOT_HERE: u32 = 0x1000 | 0x4_0000 | 0x40_0000;

/// Where the content of a file with this tag can be kept, and whether it is never in the file itself.
fn elsewhere(tag: u32) -> Option<(&'static str, bool)> {
    Some(match tag {
        0x8000_0013 => ("the chunk store of Data Deduplication", true),
        0x8000_0007 => ("the common store of Single Instance Storage", true),
        0xC000_0004 | 0x8000_0006 => ("the remote storage of Hierarchical Storage Management", false),
        0x8000_0015 | 0x8000_0021 => ("a cloud storage (OneDrive)", false),
        0x8000_001E => ("a cloud share (Azure File Sync)", false),
        0x8000_0018 | 0x9000_1018 => ("a layer of a Windows container", false),
        0x9000_001C => ("a projected file system", false),
        tag if tag & 0xFFFF_0FFF == 0x9000_001A => ("a cloud storage (such as OneDrive)", false),
        _ => return None,
    })
}

/// What a node with this tag is. Sockets, pipes and devices of WSL, links of NFS and of the app store are no files either.
pub(crate) fn kind_of(tag: Option<u32>, directory: bool) -> NodeKind {
    match tag {
        Some(tag) if tag & NAME_SURROGATE != 0 => NodeKind::Reparse,
        Some(0x8000_0014 | 0x8000_001B | 0x8000_0023..=0x8000_0026) => NodeKind::Reparse,
        _ if directory => NodeKind::Directory,
        _ => NodeKind::File,
    }
}

/// The place where the content of a file's unnamed stream is kept, when it is not (or not whole) in its clusters.
///
/// A tag that is not known counts only when nothing of the file is here. `allocated_bytes`: of a resident stream, its size.
pub fn content_elsewhere(
    tag: u32,
    attributes: Attributes,
    size_bytes: u64,
    allocated_bytes: u64,
) -> Option<&'static str> {
    if size_bytes == 0 || tag == WOF || tag & NAME_SURROGATE != 0 {
        return None;
    }
    let not_whole = attributes.0 & NOT_HERE != 0 || allocated_bytes < size_bytes;
    match elsewhere(tag) {
        Some((place, always)) => (always || not_whole).then_some(place),
        None => (attributes.0 & NOT_HERE != 0 || allocated_bytes == 0)
            .then_some("a place that only the filter driver of its reparse tag knows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_surrogates_are_links() {
        for (tag, directory, kind) in [
            (0xA000_0003, true, NodeKind::Reparse),
            (0xA000_000C, false, NodeKind::Reparse),
            (0xA000_001D, false, NodeKind::Reparse),
            (0x9000_601A, true, NodeKind::Directory),
            (0x9000_001A, false, NodeKind::File),
            (0x8000_0013, false, NodeKind::File),
            (WOF, false, NodeKind::File),
            (0x8000_0024, false, NodeKind::Reparse),
        ] {
            assert_eq!(kind_of(Some(tag), directory), kind, "{tag:#x}");
        }
    }

    #[test]
    fn content_that_is_not_here_is_named() {
        let plain = Attributes(Attributes::REPARSE_POINT);
        let offline = Attributes(0x1000);
        assert!(content_elsewhere(0x8000_0013, plain, 5, 4096).is_some(), "dedup: never here");
        assert!(content_elsewhere(0x8000_0013, plain, 0, 0).is_none(), "an empty file has no content");
        assert!(content_elsewhere(0x9000_301A, plain, 8192, 8192).is_none(), "a hydrated cloud file is here");
        assert!(content_elsewhere(0x9000_301A, offline, 8192, 8192).is_some());
        assert!(content_elsewhere(0x9000_301A, plain, 8192, 4096).is_some(), "partly here");
        assert!(content_elsewhere(0x0000_001F, plain, 8192, 4096).is_none(), "unknown tag, data here");
        assert!(content_elsewhere(0x0000_001F, plain, 8192, 0).is_some(), "unknown tag, nothing here");
        assert!(content_elsewhere(WOF, plain, 8192, 0).is_none());
    }
}
