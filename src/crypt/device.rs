//! A disk on which the volumes that are open are shown in plain text; everything else is the disk itself.

use super::view::View;
use std::ops::Range;
use std::sync::Arc;
use vmrescue_base::error::Result;
use vmrescue_block::{BlockDevice, Disk, DiskMut, Extent, Geometry, WritableDevice};

/// A volume that is open: where it begins on the disk, and its view.
pub type Part = (u64, Arc<View>);

/// The disk with these volumes in plain text, to read.
pub fn plain(disk: Disk, parts: &[Part]) -> Disk {
    if parts.is_empty() {
        return disk;
    }
    Disk::new(Arc::new(Plain { disk, parts: parts.to_vec() }))
}

/// The disk with these volumes in plain text, to write: what is written to them is enciphered. `disk` is a staged one.
pub fn plain_mut(disk: DiskMut, parts: &[Part]) -> DiskMut {
    if parts.is_empty() {
        return disk;
    }
    DiskMut::new(Arc::new(PlainMut { disk, parts: parts.to_vec() }))
}

struct Plain {
    disk: Disk,
    parts: Vec<Part>,
}

struct PlainMut {
    disk: DiskMut,
    parts: Vec<Part>,
}

/// The stretches of `range`: each in one volume, or in none.
fn split(parts: &[Part], range: Range<u64>) -> Vec<(Range<u64>, Option<&Part>)> {
    let mut found = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let inside = parts.iter().find(|(base, view)| (*base..base.saturating_add(view.len())).contains(&at));
        let end = match inside {
            Some((base, view)) => base.saturating_add(view.len()),
            None => parts.iter().map(|(base, _)| *base).filter(|base| *base > at).min().unwrap_or(range.end),
        };
        found.push((at..end.min(range.end), inside));
        at = end;
    }
    found
}

fn read(disk: &Disk, parts: &[Part], offset: u64, buf: &mut [u8]) -> Result<()> {
    for (range, part) in split(parts, offset..offset + buf.len() as u64) {
        let target = &mut buf[(range.start - offset) as usize..(range.end - offset) as usize];
        match part {
            Some((base, view)) => view.read(disk, *base, range.start - base, target)?,
            None => disk.read_at(range.start, target)?,
        }
    }
    Ok(())
}

fn extent(disk: &Disk, parts: &[Part], offset: u64) -> Result<Extent> {
    let all = split(parts, offset..disk.len());
    let Some((range, part)) = all.first() else { return disk.extent_at(offset) };
    let found = match part {
        Some((base, view)) => view.extent(disk, *base, offset - base)?,
        None => disk.extent_at(offset)?,
    };
    Ok(Extent { length_bytes: found.length_bytes.min(range.end - range.start), ..found })
}

impl BlockDevice for Plain {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        read(&self.disk, &self.parts, offset, buf)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        extent(&self.disk, &self.parts, offset)
    }
}

impl BlockDevice for PlainMut {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        read(&self.disk.as_disk(), &self.parts, offset, buf)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        extent(&self.disk.as_disk(), &self.parts, offset)
    }
}

impl WritableDevice for PlainMut {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        for (range, part) in split(&self.parts, offset..offset + data.len() as u64) {
            let from = &data[(range.start - offset) as usize..(range.end - offset) as usize];
            match part {
                Some((base, view)) => {
                    view.write(&self.disk, *base, range.start - base, from.len() as u64, Some(from))?;
                }
                None => self.disk.write_at(range.start, from)?,
            }
        }
        Ok(())
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        for (range, part) in split(&self.parts, range) {
            match part {
                Some((base, view)) => {
                    view.write(&self.disk, *base, range.start - base, range.end - range.start, None)?;
                }
                None => self.disk.zero_at(range)?,
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }
}
