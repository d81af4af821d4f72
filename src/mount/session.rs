//! A mounted tree with the transaction below it: changes are staged, and published when somebody asks for it, at intervals, when
//! much is staged, and at the end; each time as one operation of the same session, so that one undo takes all of them back.
//!
//! While an operation is written, changes wait and reading goes on. When publishing fails (the host's disk is full),
//! everything stays staged and can be read, and the next publish tries again.
//! Verifying: the files that were changed are read again from the staged disk by the reading half, which decodes records with
//! code of its own, and compared with what the writing half says of them. Missing: `crate ntfs` is not asked here.

use super::fault::{Answer, Reason};
use super::gate::{Gate, Inside};
use super::slot::Access;
use super::tree::{Place, Tree, lock};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_base::time::FileTime;
use vmrescue_block::{Disk, DiskMut};
use vmrescue_fs::fat::FatVolume;
use vmrescue_fs::ntfs::Volume;
use vmrescue_fs::{FileSystem, NodeId, NodeKind, resolve};
use vmrescue_transaction::{OperationId, Record, Transaction};

/// Staged bytes beyond which a publish should not wait for its time. The overlay keeps an eighth of it in memory and the rest in a file.
const MUCH_STAGED_BYTES: u64 = 1 << 30;
/// Most files that a publish reads again; of more, these.
const MAX_VERIFIED: usize = 2000;
/// Bytes of a file on FAT that are compared at once, and at most.
const PIECE_BYTES: usize = 256 << 10;
const MAX_COMPARED_BYTES: u64 = 64 << 20;
/// Deepest directory of a FAT volume.
const MAX_DEPTH: usize = 256;

/// An operation that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its number in the history.
    pub id: OperationId,
    /// Staged bytes that went into it.
    pub staged_bytes: u64,
    /// Changes since the one before.
    pub changes: u64,
}

/// What a session does with changes.
pub enum Mode {
    /// There are none.
    ReadOnly,
    /// They are written into the image.
    Publish(Box<Staged>),
    /// They are thrown away at the end.
    Discard(Box<Staged>),
}

/// The transaction below a tree.
pub struct Staged {
    transaction: Transaction,
    disk: DiskMut,
    /// Where each slot of the tree lies on the disk, by the number of its partition.
    ranges: Vec<(u32, Range<u64>)>,
    record: Record,
    published: u64,
}

impl Staged {
    /// A transaction with the virtual disk over it, the volumes' ranges by partition number, and what the history says.
    /// `record.session` should be set.
    pub fn new(
        transaction: Transaction,
        disk: DiskMut,
        ranges: Vec<(u32, Range<u64>)>,
        record: Record,
    ) -> Staged {
        Staged { transaction, disk, ranges, record, published: 0 }
    }
}

/// See the module's documentation.
pub struct Session {
    tree: Tree,
    staged: Mutex<Option<Staged>>,
    publishes: bool,
    touched: Mutex<BTreeSet<(usize, NodeId)>>,
    gate: Gate,
    pub(super) dangling: Mutex<Vec<(usize, NodeId)>>,
    on_publish: Option<OnPublish>,
}

/// Told of each operation, and of each failure to write one.
pub type OnPublish = Box<dyn Fn(&Result<Published>) + Send + Sync>;

impl Session {
    /// A session over a tree.
    ///
    /// # Errors
    /// Of removing what an earlier session left behind.
    pub fn new(tree: Tree, mode: Mode, on_publish: Option<OnPublish>) -> Result<Session> {
        let (staged, publishes) = match mode {
            Mode::ReadOnly => (None, false),
            Mode::Publish(staged) => (Some(*staged), true),
            Mode::Discard(staged) => (Some(*staged), false),
        };
        let session = Session {
            tree,
            staged: Mutex::new(staged),
            publishes,
            touched: Mutex::default(),
            gate: Gate::default(),
            dangling: Mutex::default(),
            on_publish,
        };
        session.remove_leftovers()?;
        Ok(session)
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Notes that a file was changed, for the second look.
    pub(super) fn touch(&self, slot: usize, node: NodeId) {
        let mut touched = lock(&self.touched);
        if touched.len() < MAX_VERIFIED {
            touched.insert((slot, node));
        }
    }

    /// Runs a change: publishing waits for it, and it for publishing.
    pub(super) fn changing<T>(&self, work: impl FnOnce(&Tree) -> Answer<T>) -> Answer<T> {
        if !self.tree.is_writable() {
            return Err(Reason::ReadOnly.into());
        }
        let _inside = self.gate.enter();
        // Counted ahead: who publishes while this waits must not take it for done.
        self.tree.changes.fetch_add(1, Ordering::SeqCst);
        work(&self.tree)
    }

    /// Goes where changes are made, when nobody publishes: until this is dropped nobody will.
    pub(super) fn try_enter(&self) -> Option<Inside<'_>> {
        self.gate.try_enter()
    }

    /// True when so much is staged that it should be published ahead of its time. Not while somebody publishes.
    pub fn holds_much(&self) -> bool {
        self.publishes
            && self.staged.try_lock().is_ok_and(|staged| {
                staged.as_ref().is_some_and(|staged| staged.transaction.staged_bytes() > MUCH_STAGED_BYTES)
            })
    }

    /// True when changes wait to be published.
    pub fn is_behind(&self) -> bool {
        self.publishes
            && lock(&self.staged).as_ref().is_some_and(|staged| staged.published < self.tree.changes())
    }

    /// Bytes that are staged.
    pub fn staged_bytes(&self) -> u64 {
        lock(&self.staged).as_ref().map_or(0, |staged| staged.transaction.staged_bytes())
    }

    /// Writes everything that was changed into the image, as one operation. `None` when nothing differs, or the session
    /// throws its changes away.
    ///
    /// # Errors
    /// Of the host; `Disagreement` when the second reader sees something else. Then everything is still staged.
    pub fn publish(&self, progress: &dyn Progress) -> Result<Option<Published>> {
        if !self.publishes {
            return Ok(None);
        }
        let asked = self.tree.changes();
        let mut staged = lock(&self.staged);
        let Some(staged) = staged.as_mut() else { return Ok(None) };
        if staged.published >= asked {
            return Ok(None);
        }
        let _alone = self.gate.shut();
        let published = self.publish_gated(staged, progress);
        if let Some(tell) = &self.on_publish {
            match &published {
                Ok(None) => {}
                Ok(Some(done)) => tell(&Ok(*done)),
                Err(e) => {
                    let same = Error::new(e.kind(), e.layer(), e.detail());
                    tell(&Err(e.offset().into_iter().fold(same, Error::at)));
                }
            }
        }
        published
    }

    /// Closes the operation of the session in the history; nothing more will be published.
    ///
    /// # Errors
    /// Of the host; the image holds everything that was published.
    pub fn finish(&self) -> Result<()> {
        match lock(&self.staged).as_mut() {
            Some(staged) => staged.transaction.finish(),
            None => Ok(()),
        }
    }

    fn publish_gated(&self, staged: &mut Staged, progress: &dyn Progress) -> Result<Option<Published>> {
        for slot in &self.tree.slots {
            if let Access::Write(fs) = &slot.access {
                fs.write().unwrap_or_else(PoisonError::into_inner).sync()?;
            }
        }
        let Staged { transaction, disk, ranges, .. } = staged;
        disk.flush()?;
        let (changes, staged_bytes) = (self.tree.changes(), transaction.staged_bytes());
        let mut record = staged.record.clone();
        record.changes = serde_json::json!({"changes": changes - staged.published});
        let verified = transaction.verify_so_far(|_| self.verify(&disk.as_disk(), ranges))?;
        let id = verified.publish(record, progress)?;
        let published = id.map(|id| Published { id, staged_bytes, changes: changes - staged.published });
        staged.published = changes;
        lock(&self.touched).clear();
        Ok(published)
    }

    /// Reads the changed files again, with the reading half.
    fn verify(&self, disk: &Disk, ranges: &[(u32, Range<u64>)]) -> Result<()> {
        let touched = lock(&self.touched).clone();
        for (index, slot) in self.tree.slots.iter().enumerate() {
            let nodes: Vec<NodeId> =
                touched.iter().filter(|(s, _)| *s == index).map(|(_, node)| *node).collect();
            let range = ranges.iter().find(|(number, _)| *number == slot.number);
            let Some((_, range)) = range.filter(|_| !nodes.is_empty()) else { continue };
            if slot.info.kind.starts_with("fat") {
                let second = FatVolume::open(disk.window(range.clone())?)?;
                slot.look(|fs| nodes.iter().try_for_each(|node| again_on_fat(fs, &second, *node)))?;
                continue;
            }
            if slot.info.kind != "ntfs" {
                continue;
            }
            let second = Volume::open(disk.window(range.clone())?)?;
            for node in nodes {
                compare(node, slot.look(|fs| facts(fs, node)), facts(&second, node))?;
            }
        }
        Ok(())
    }

    /// Takes away what a killed session left without a name.
    fn remove_leftovers(&self) -> Result<()> {
        for index in 0..self.tree.slots.len() {
            if !self.tree.slots[index].is_writable() {
                continue;
            }
            let root = self.tree.slots[index].root;
            let names = self.tree.slots[index].look(|fs| fs.read_dir(root))?;
            for entry in names.into_iter().filter(|e| super::unlinked::Unlinked::is_hidden(&e.name)) {
                let removed =
                    self.changing(|tree| tree.slots[index].change(|fs| Ok(fs.remove(root, &entry.name)?)));
                if let Err(fault) = removed {
                    return Err(fault
                        .error
                        .unwrap_or_else(|| Error::invalid(Layer::FileSystem, "a leftover stays")));
                }
            }
        }
        Ok(())
    }

    /// A file is opened; its bytes stay until it is closed as often.
    ///
    /// # Errors
    /// Of cutting it, when `truncate` is set.
    pub fn open(&self, number: u64, truncate: bool) -> Answer<()> {
        if truncate {
            self.set_len(number, 0)?;
        }
        self.tree.unlinked.opened(number);
        Ok(())
    }

    /// A handle is closed. The last one of a file without a name takes the file away.
    ///
    /// # Errors
    /// Of removing it.
    pub fn close(&self, number: u64) -> Answer<()> {
        let Some(name) = self.tree.unlinked.closed(number) else { return Ok(()) };
        let Place::Node(slot, _) = self.tree.place(number)? else { return Ok(()) };
        self.changing(|tree| {
            let root = tree.slots[slot].root;
            tree.slots[slot].change(|fs| Ok(fs.remove(root, &name)?))
        })
    }
}

/// What two readers must agree on.
type Agreed = Option<(u64, u32, u32, vmrescue_fs::Times, Vec<String>, Vec<(String, u64)>)>;

fn facts(fs: &dyn FileSystem, node: NodeId) -> Result<Agreed> {
    let metadata = match fs.metadata(node) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut names: Vec<String> = fs.names(node)?.into_iter().map(|name| name.name).collect();
    names.sort();
    let mut streams: Vec<(String, u64)> =
        fs.streams(node)?.into_iter().map(|stream| (stream.name, stream.size_bytes)).collect();
    streams.sort();
    Ok(Some((metadata.size_bytes, metadata.links, metadata.attributes.0, metadata.times, names, streams)))
}

/// The way to a file from the root; `None` when it has no name any more. A name that is long and 8.3 at once is the only one of its file.
fn way_to(fs: &dyn FileSystem, node: NodeId) -> Result<Option<Vec<String>>> {
    let (mut parts, mut at) = (Vec::new(), node);
    while at != fs.root() {
        let names = match fs.names(at) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let Some(name) = names.into_iter().min_by_key(|name| name.short) else { return Ok(None) };
        if parts.len() > MAX_DEPTH {
            return Err(Error::damaged(Layer::Fat, "directories that contain one another"));
        }
        parts.push(name.name);
        at = name.directory;
    }
    parts.reverse();
    Ok(Some(parts))
}

/// Reads a file of a FAT volume again by its path: the id of a file that was renamed holds for its session only. Its content is compared, too.
fn again_on_fat(fs: &dyn FileSystem, second: &FatVolume, node: NodeId) -> Result<()> {
    let Some(way) = way_to(fs, node)? else {
        return match fs.metadata(node) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(_) => Err(Error::new(
                ErrorKind::Disagreement,
                Layer::Verify,
                format!("file {:#x} has no path by which it could be read again", node.0),
            )),
        };
    };
    let Some(there) = resolve(second, &way)? else {
        return compare(node, facts(fs, node), Ok(None));
    };
    compare(node, facts(fs, node), facts(second, there))?;
    if fs.metadata(node)?.kind == NodeKind::Directory {
        return Ok(());
    }
    let (mut at, mut ours, mut theirs) = (0, vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    while at < MAX_COMPARED_BYTES {
        let count = fs.read(node, "", at, &mut ours)?;
        let other = second.read(there, "", at, &mut theirs)?;
        if ours[..count] != theirs[..other] {
            return Err(Error::new(
                ErrorKind::Disagreement,
                Layer::Verify,
                format!("the content of {} reads otherwise than it was written", way.join("\\")),
            )
            .at(at)
            .advice("nothing was written; the mount can still be read"));
        }
        if count == 0 {
            break;
        }
        at += count as u64;
    }
    Ok(())
}

fn compare(node: NodeId, ours: Result<Agreed>, theirs: Result<Agreed>) -> Result<()> {
    let agree = match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        // What neither can read was not verified.
        _ => false,
    };
    if agree {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Disagreement,
        Layer::Verify,
        format!("file {:#x} reads otherwise than it was written", node.0),
    )
    .expected(format!("{ours:?}"))
    .found(format!("{theirs:?}"))
    .advice("nothing was written; the mount can still be read"))
}

/// A word for all operations of one session.
pub fn session_word() -> String {
    format!("mount-{:x}-{}", FileTime::now().0, std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A FAT volume with one file in a directory.
    fn fat(content: &[u8]) -> FatVolume {
        use vmrescue_fs::FileSystemMut;
        use vmrescue_fs::fat::{FatVolumeMut, FormatSpec, format};
        let device = std::sync::Arc::new(vmrescue_block::MemoryDevice::new(vec![0; 4 << 20]));
        let disk = DiskMut::new(std::sync::Arc::clone(&device) as _);
        format(&disk, &FormatSpec::default()).unwrap();
        let mut volume = FatVolumeMut::open(disk).unwrap();
        let root = volume.root();
        let folder = volume.create(root, "EFI", NodeKind::Directory).unwrap();
        let file = volume.create(folder, "a long name.efi", NodeKind::File).unwrap();
        volume.write(file, "", 0, content).unwrap();
        volume.sync().unwrap();
        FatVolume::open(Disk::new(device)).unwrap()
    }

    #[test]
    fn a_file_on_fat_that_reads_otherwise_is_no_agreement() {
        let (ours, other, short) =
            (fat(&[7; 3000]), fat(&[[7; 2999].as_slice(), &[8]].concat()), fat(&[7; 2999]));
        let node = resolve(&ours, &["EFI", "a long name.efi"]).unwrap().unwrap();
        again_on_fat(&ours, &fat(&[7; 3000]), node).unwrap();
        for wrong in [other, short] {
            assert_eq!(again_on_fat(&ours, &wrong, node).unwrap_err().kind(), ErrorKind::Disagreement);
        }
    }

    #[test]
    fn what_neither_decoder_can_read_is_no_agreement() {
        let bad = || Err(Error::damaged(Layer::Ntfs, "no record"));
        let facts = || Ok(Some((1, 1, 0, vmrescue_fs::Times::default(), Vec::new(), Vec::new())));
        for (ours, theirs, agree) in [
            (facts(), facts(), true),
            (Ok(None), Ok(None), true),
            (bad(), bad(), false),
            (facts(), bad(), false),
            (bad(), facts(), false),
            (facts(), Ok(None), false),
        ] {
            let found = compare(NodeId(7), ours, theirs);
            assert_eq!(found.is_ok(), agree, "{found:?}");
        }
    }
}
