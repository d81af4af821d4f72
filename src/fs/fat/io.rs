//! A disk as the standard library's reader, writer and seeker, which `fatfs` wants.

use std::io::{self, Read, Seek, SeekFrom, Write};
use vmrescue_block::{Disk, DiskMut};

/// A disk with a position.
pub(super) struct DiskIo {
    disk: Disk,
    writer: Option<DiskMut>,
    position: u64,
}

impl DiskIo {
    pub(super) fn new(disk: Disk, writer: Option<DiskMut>) -> DiskIo {
        DiskIo { disk, writer, position: 0 }
    }

    fn room(&self, wanted: usize) -> usize {
        self.disk.len().saturating_sub(self.position).min(wanted as u64) as usize
    }
}

impl Read for DiskIo {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.room(buf.len());
        self.disk.read_at(self.position, &mut buf[..count]).map_err(io::Error::other)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for DiskIo {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let Some(writer) = &self.writer else {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading"));
        };
        let count = self.room(data.len());
        writer.write_at(self.position, &data[..count]).map_err(io::Error::other)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for DiskIo {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.disk.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the start"))?;
        Ok(self.position)
    }
}
