//! Reads the table of all files ahead, once a walk over a volume is under way.
//!
//! A walk asks for records in the order of directories, which is any order on the disk: a short read for each. $MFT from one end to the
//! other takes a fraction of that. Nothing is kept here; the host has it in memory then. Only for volumes that are read, and
//! only the beginning of very large tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vmrescue_fs::FileSystem;

/// Directories that are listed before it counts as a walk.
const A_WALK: u32 = 64;
/// Most bytes of $MFT that are read ahead.
const MOST_BYTES: u64 = 512 << 20;
/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Counts the listings of one volume.
#[derive(Default)]
pub(super) struct Ahead(AtomicU32);

impl Ahead {
    /// A directory is listed. The one that makes it a walk starts the reading, in a thread of its own.
    pub(super) fn listed(&self, fs: &Arc<dyn FileSystem>) {
        // Told apart before it is counted, so that the count cannot wrap.
        if self.0.load(Ordering::Relaxed) > A_WALK || self.0.fetch_add(1, Ordering::Relaxed) != A_WALK {
            return;
        }
        let fs = Arc::clone(fs);
        // Without a thread the walk is slower, nothing else.
        drop(std::thread::Builder::new().name("mount-ahead".into()).spawn(move || read(&*fs)));
    }
}

/// Bytes that were read. What cannot be read stops it: whoever asks for it is told.
fn read(fs: &dyn FileSystem) -> u64 {
    let Ok(Some(table)) = fs.lookup(fs.root(), "$MFT") else { return 0 };
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < MOST_BYTES {
        match fs.read(table, "", at, &mut piece) {
            Ok(count) if count > 0 => at += count as u64,
            _ => break,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmrescue_block::{DiskMut, MemoryDevice};
    use vmrescue_fs::ntfs::{FormatSpec, Volume, format};

    #[test]
    fn the_whole_table_is_read_once() {
        let disk = DiskMut::new(Arc::new(MemoryDevice::zeroed(16 << 20)));
        format(&disk, &FormatSpec::default()).unwrap();
        let fs: Arc<dyn FileSystem> = Arc::new(Volume::open(disk.as_disk()).unwrap());
        let table = fs.lookup(fs.root(), "$MFT").unwrap().unwrap();
        let size = fs.metadata(table).unwrap().size_bytes;
        assert!(size >= 16 << 10);
        assert_eq!(read(&*fs), size);
        let ahead = Ahead::default();
        for _ in 0..=A_WALK + 5 {
            ahead.listed(&fs);
        }
        assert_eq!(ahead.0.load(Ordering::Relaxed), A_WALK + 1);
    }
}
