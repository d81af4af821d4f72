//! The crash sweep of publish and undo, for the tests of this crate and of those that stage something of their own.

#![allow(clippy::unwrap_used, reason = "only tests call this; they may fail")]

use super::{
    Locked, OverlayOptions, Place, Record, Transaction, TransactionOptions, Verified, VerifiedPart, history,
    publish_staged,
};
use crate::place::Content;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Silent;
use vmrescue_block::testing::{CrashDevice, Fate};
use vmrescue_block::{Disk, DiskMut, MemoryDevice, Overlay, WritableDevice};

/// A transaction on an image, for tests that stage something of their own.
pub fn begin(path: &Path, options: &TransactionOptions) -> Result<Transaction> {
    Locked::open(path, options).map(Locked::stage)
}

impl Transaction {
    /// Verified by nothing but the check of the container.
    pub fn verified(self) -> Verified<()> {
        self.verify(|_| Ok(())).unwrap()
    }

    /// The same, for a session.
    pub fn verified_so_far(&mut self) -> VerifiedPart<'_, ()> {
        self.verify_so_far(|_| Ok(())).unwrap()
    }
}

/// State files in memory that stop working at the n-th write, with the file absent or as it was.
#[derive(Default)]
pub(crate) struct MemoryPlace {
    pub(crate) files: RefCell<BTreeMap<String, Vec<u8>>>,
    pub(crate) writes: Cell<u64>,
    pub(crate) dies_at: Cell<u64>,
    /// How often the names of all files were asked for, and a file was opened.
    pub(crate) looked: Cell<(u64, u64)>,
}

impl Place for MemoryPlace {
    fn names(&self) -> Result<Vec<String>> {
        let (listed, opened) = self.looked.get();
        self.looked.set((listed + 1, opened));
        Ok(self.files.borrow().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> Result<Disk> {
        let (listed, opened) = self.looked.get();
        self.looked.set((listed, opened + 1));
        let files = self.files.borrow();
        let bytes = files.get(name).ok_or_else(|| Error::not_found(Layer::Host, name))?;
        Ok(Disk::new(Arc::new(MemoryDevice::new(bytes.clone()))))
    }

    fn write(&self, name: &str, content: &mut Content<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        content(&mut bytes)?;
        if self.writes.get() >= self.dies_at.get() {
            return Err(Error::new(ErrorKind::Io, Layer::Host, "the power is gone"));
        }
        self.writes.set(self.writes.get() + 1);
        self.files.borrow_mut().insert(name.to_string(), bytes);
        Ok(())
    }

    fn create(&self, name: &str, content: &mut Content<'_>) -> Result<()> {
        if self.files.borrow().contains_key(name) {
            return Err(Error::new(ErrorKind::AlreadyExists, Layer::Host, name));
        }
        self.write(name, content)
    }

    fn append(&self, name: &str, offset: u64, content: &mut Content<'_>) -> Result<u64> {
        let mut bytes = self.files.borrow().get(name).cloned().unwrap_or_default();
        bytes.truncate(offset as usize);
        content(&mut bytes)?;
        let end = bytes.len() as u64;
        if self.writes.get() == self.dies_at.get() {
            // The power goes in the middle of it: a part of the new bytes may be there.
            self.writes.set(self.writes.get() + 1);
            bytes.truncate((offset + (end - offset) / 2) as usize);
            self.files.borrow_mut().insert(name.to_string(), bytes);
            return Err(Error::new(ErrorKind::Io, Layer::Host, "the power is gone"));
        }
        self.write(name, &mut |out| out.write_all(&bytes).map_err(|e| Error::io("memory", name, e)))?;
        Ok(end)
    }

    fn note(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        // Never durable here: the worst case.
        let _lost = (name, offset, bytes);
        Ok(())
    }

    fn hint(&self, name: &str, bytes: &[u8]) -> Result<()> {
        // Kept for sure, which is as possible as that it is lost.
        self.files.borrow_mut().insert(name.to_string(), bytes.to_vec());
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut files = self.files.borrow_mut();
        let bytes = files.remove(from).ok_or_else(|| Error::not_found(Layer::Host, from))?;
        files.insert(to.to_string(), bytes);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<u64> {
        let gone = self.files.borrow_mut().remove(name);
        Ok(gone.ok_or_else(|| Error::not_found(Layer::Host, name))?.len() as u64)
    }
}

pub(crate) fn staged(old: &[u8], new: &[u8]) -> (Disk, Vec<std::ops::Range<u64>>) {
    let base = Disk::new(Arc::new(MemoryDevice::new(old.to_vec())));
    let overlay = Overlay::new(base, OverlayOptions::default()).unwrap();
    let file = DiskMut::new(Arc::clone(&overlay) as Arc<dyn WritableDevice>);
    file.set_length(new.len() as u64).unwrap();
    file.write_at(0, new).unwrap();
    (file.as_disk(), overlay.dirty_ranges().unwrap())
}

/// Publishes `new` over `old` (or undoes it) with the power going at every step of image and state, and checks what
/// recovery makes of it; the number of crashes.
///
/// # Panics
/// When what recovery leaves is neither the old image nor the new one.
pub fn sweep(old: &[u8], new: &[u8], undoing: bool) -> u64 {
    sweep_at(old, new, undoing, 0..40)
}

/// As [`sweep`], at the steps that are named; the number of crashes.
///
/// # Panics
/// When what recovery leaves is neither the old image nor the new one.
pub fn sweep_at(old: &[u8], new: &[u8], undoing: bool, steps: impl Iterator<Item = u64> + Clone) -> u64 {
    let mut crashes = 0;
    for fate in [Fate::Lost, Fate::Kept, Fate::Torn] {
        for (on_image, step) in steps.clone().flat_map(|step| [(true, step), (false, step)]) {
            let place = MemoryPlace::default();
            place.dies_at.set(u64::MAX);
            let (disk, ranges) = staged(old, new);
            let start = if undoing { new } else { old };
            if undoing {
                let whole = DiskMut::new(Arc::new(CrashDevice::new(old.to_vec(), u64::MAX)));
                publish_staged(&place, &whole, &disk, &ranges, Record::default(), &Silent).unwrap();
                place.writes.set(0);
            }
            if !on_image {
                place.dies_at.set(step);
            }
            let device = Arc::new(CrashDevice::new(start.to_vec(), if on_image { step } else { u64::MAX }));
            let image = DiskMut::new(Arc::clone(&device) as Arc<dyn WritableDevice>);
            let died = if undoing {
                history::undo_at(&place, &image, None, false, &Silent).is_err()
            } else {
                publish_staged(&place, &image, &disk, &ranges, Record::default(), &Silent).is_err()
            };
            if !died {
                continue;
            }
            crashes += 1;
            place.dies_at.set(u64::MAX);
            let medium = Arc::new(CrashDevice::new(device.after_power_loss(fate), u64::MAX));
            let image = DiskMut::new(Arc::clone(&medium) as Arc<dyn WritableDevice>);
            history::recover_at(&place, &image, &Silent).unwrap();
            history::recover_at(&place, &image, &Silent).unwrap();
            let after = medium.after_power_loss(Fate::Lost);
            assert!(after == old || after == new, "between two states: {fate:?}, step {step}");
            if after == new {
                history::undo_at(&place, &image, None, false, &Silent).unwrap();
                assert!(medium.after_power_loss(Fate::Lost) == old);
            }
        }
    }
    crashes
}
