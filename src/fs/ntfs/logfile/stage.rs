//! The volume as the replay leaves it: pages in memory over the disk.

use std::collections::BTreeMap;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_REPLAY_BYTES;
use vmrescue_block::Disk;

/// Bytes of a staged page.
const PAGE: u64 = 4096;

/// Bytes of the volume that the replay changes.
pub(crate) struct Stage<'a> {
    disk: &'a Disk,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl<'a> Stage<'a> {
    /// Nothing is changed yet.
    pub(crate) fn new(disk: &'a Disk) -> Stage<'a> {
        Stage { disk, pages: BTreeMap::new() }
    }

    /// The bytes from `offset` as they are now.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.disk.read_at(offset, buf)?;
        let end = offset + buf.len() as u64; // inside the disk, as the read has shown
        for (number, page) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = number * PAGE;
            let (from, to) = (start.max(offset), (start + page.len() as u64).min(end));
            if from < to {
                let source = &page[(from - start) as usize..(to - start) as usize];
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        Ok(())
    }

    /// Changes bytes.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let (mut at, mut data) = (offset, data);
        // Bounded: every step takes at least one byte.
        while !data.is_empty() {
            let start = at / PAGE * PAGE;
            let page = match self.pages.get_mut(&(at / PAGE)) {
                Some(page) => page,
                None => {
                    if self.pages.len() as u64 * PAGE >= MAX_REPLAY_BYTES {
                        return Err(Error::limit(Layer::Ntfs, "bytes that the replay of $LogFile changes")
                            .expected(format!("at most {MAX_REPLAY_BYTES}")));
                    }
                    let length = PAGE.min(self.disk.len().saturating_sub(start)) as usize;
                    let page = self.disk.read_vec(start, length)?;
                    self.pages.entry(at / PAGE).or_insert(page)
                }
            };
            let within = (at - start) as usize;
            let room = page.get_mut(within..).unwrap_or_default();
            let take = room.len().min(data.len());
            if take == 0 {
                return Err(Error::invalid(Layer::Ntfs, "a write behind the end of the volume").at(at));
            }
            room[..take].copy_from_slice(&data[..take]);
            at += take as u64;
            data = &data[take..];
        }
        Ok(())
    }

    /// All that was changed: places and bytes.
    pub(crate) fn into_writes(self) -> Vec<(u64, Vec<u8>)> {
        self.pages.into_iter().map(|(number, page)| (number * PAGE, page)).collect()
    }
}
