//! A volume in plain text: reads decipher, writes encipher, sector by sector, in runs as long as they are asked for.

use super::cipher::{Cipher, MAX_SECTOR};
use super::layout::{Kept, Segment};
use std::ops::Range;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{Disk, DiskMut, Extent, ExtentKind};

/// Bytes that are enciphered at a time when writing.
const WRITE_BYTES: usize = 1 << 20;
/// Where the first sector of Windows Vista differs from the file system's: its name, and the cluster of the copy of $MFT.
const NAME: Range<usize> = 3..11;
const MIRROR: Range<usize> = 56..64;

/// A volume that is open: its map and its cipher, without the device.
pub struct View {
    pub(super) segments: Vec<Segment>,
    /// None where nothing is enciphered.
    pub(super) cipher: Option<Cipher>,
    pub(super) sector: u64,
    pub(super) length: u64,
    pub(super) mirror_cluster: u64,
    /// Why nothing may be written.
    pub(super) read_only: Option<String>,
}

impl std::fmt::Debug for View {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({:#x} bytes, {} segments)", self.length, self.segments.len())
    }
}

/// A step of a read or write: bytes `from..to` of the caller's buffer, which lie in one segment.
struct Step {
    from: usize,
    to: usize,
    /// On the medium, relative to the volume.
    place: u64,
    kept: Kept,
}

impl View {
    /// Length of the volume in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// True for a volume without any byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Why nothing may be written, if so.
    pub fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    fn segment(&self, offset: u64) -> Option<&Segment> {
        let index = self.segments.partition_point(|segment| segment.range.end <= offset);
        self.segments.get(index).filter(|segment| segment.range.contains(&offset))
    }

    fn steps(&self, offset: u64, length: usize) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        let mut from = 0;
        while from < length {
            let at = offset + from as u64;
            let segment = self
                .segment(at)
                .ok_or_else(|| Error::invalid(Layer::BitLocker, "no part of the volume lies there").at(at))?;
            let count = (segment.range.end - at).min((length - from) as u64) as usize;
            let place = segment.place + (at - segment.range.start);
            steps.push(Step { from, to: from + count, place, kept: segment.kept });
            from += count;
        }
        Ok(steps)
    }

    fn cipher(&self) -> Result<&Cipher> {
        self.cipher.as_ref().ok_or_else(|| Error::invalid(Layer::BitLocker, "the volume has no key"))
    }

    /// Reads plain text. `base` is where the volume begins on `disk`; the range lies inside the volume.
    pub(super) fn read(&self, disk: &Disk, base: u64, offset: u64, buf: &mut [u8]) -> Result<()> {
        for step in self.steps(offset, buf.len())? {
            let part = &mut buf[step.from..step.to];
            match step.kept {
                Kept::Plain => disk.read_at(base + step.place, part)?,
                Kept::Enciphered | Kept::Beyond => self.decipher(disk, base, step.place, part)?,
                Kept::Reserved => part.fill(0),
                Kept::FirstSector => {
                    let sector = self.first_sector(disk, base)?;
                    let at = step.place as usize;
                    part.copy_from_slice(&sector[at..at + part.len()]);
                }
                Kept::Unknown => return Err(self.unknown(step.place)),
            }
        }
        Ok(())
    }

    fn unknown(&self, place: u64) -> Error {
        Error::unsupported(Layer::BitLocker, "these sectors were being converted when the machine stopped").at(place)
            .advice("let Windows finish the conversion of this volume, on the machine or where the disk is attached to another")
    }

    /// The first sector of a volume of Windows Vista as its file system sees it.
    fn first_sector(&self, disk: &Disk, base: u64) -> Result<Vec<u8>> {
        let mut sector = disk.read_vec(base, self.sector as usize)?;
        sector[NAME].copy_from_slice(b"NTFS    ");
        sector[MIRROR].copy_from_slice(&self.mirror_cluster.to_le_bytes());
        Ok(sector)
    }

    /// Reads and deciphers bytes that need not begin or end with a sector.
    fn decipher(&self, disk: &Disk, base: u64, place: u64, buf: &mut [u8]) -> Result<()> {
        let cipher = self.cipher()?;
        let (mut place, mut rest) = (place, buf);
        while !rest.is_empty() {
            let within = (place % self.sector) as usize;
            let whole = rest.len() / self.sector as usize * self.sector as usize;
            if within == 0 && whole > 0 {
                let (part, after) = rest.split_at_mut(whole);
                disk.read_at(base + place, part)?;
                cipher.decrypt(place, part);
                (place, rest) = (place + whole as u64, after);
            } else {
                let start = place - within as u64;
                let mut sector = [0; MAX_SECTOR];
                let sector = &mut sector[..self.sector as usize];
                disk.read_at(base + start, sector)?;
                cipher.decrypt(start, sector);
                let count = rest.len().min(sector.len() - within);
                let (part, after) = rest.split_at_mut(count);
                part.copy_from_slice(&sector[within..within + count]);
                (place, rest) = (place + count as u64, after);
            }
        }
        Ok(())
    }

    /// Writes plain text; what is `None` is zeros. The range lies inside the volume.
    pub(super) fn write(
        &self,
        disk: &DiskMut,
        base: u64,
        offset: u64,
        length: u64,
        data: Option<&[u8]>,
    ) -> Result<()> {
        if let Some(why) = &self.read_only {
            return Err(Error::refused(Layer::BitLocker, format!("this volume is not written: {why}"))
                .at(offset)
                .advice("it can be read; let Windows finish what it is doing to the volume, or put its metadata right, then write"));
        }
        // In pieces, so that a large range of zeros takes no memory; all steps are looked at before the first is done.
        let pieces = |done: u64| (length - done).min(WRITE_BYTES as u64) as usize;
        let mut done = 0;
        while done < length {
            let count = pieces(done);
            for step in self.steps(offset + done, count)? {
                self.check_step(&step, offset + done, data.and_then(|data| data.get(done as usize..)))?;
            }
            done += count as u64;
        }
        let mut scratch = vec![0; pieces(0).next_multiple_of(MAX_SECTOR) + 2 * MAX_SECTOR];
        done = 0;
        while done < length {
            let count = pieces(done);
            for step in self.steps(offset + done, count)? {
                let from = done as usize;
                let part = data.map(|data| &data[from + step.from..from + step.to]);
                self.write_step(disk, base, &step, part, &mut scratch)?;
            }
            done += count as u64;
        }
        Ok(())
    }

    fn check_step(&self, step: &Step, at: u64, data: Option<&[u8]>) -> Result<()> {
        match step.kept {
            Kept::Plain | Kept::Enciphered => Ok(()),
            Kept::Reserved => Err(Error::refused(Layer::BitLocker, "BitLocker keeps its own data there, which is not overwritten")
                .at(at + step.from as u64)
                .advice("the file system of the volume says that these clusters are free or another file's: check it (vmrescue check)")),
            Kept::Beyond => {
                Err(Error::refused(Layer::BitLocker, "the metadata of the volume says that it ends before")
                    .at(at + step.from as u64)
                    .advice("nothing of a file system lies there: check it (vmrescue check)"))
            }
            Kept::Unknown => Err(self.unknown(step.place)),
            Kept::FirstSector => {
                let kept = |field: &Range<usize>, value: &[u8]| {
                    field.clone().zip(value).all(|(at, value)| {
                        let within = at.checked_sub(step.place as usize).filter(|at| *at < step.to - step.from);
                        within.is_none_or(|within| data.map_or(0, |data| data[step.from + within]) == *value)
                    })
                };
                if kept(&NAME, b"NTFS    ") && kept(&MIRROR, &self.mirror_cluster.to_le_bytes()) {
                    return Ok(());
                }
                Err(Error::refused(Layer::BitLocker, "the first sector of this volume keeps its name and the place of $MFTMirr").at(0))
            }
        }
    }

    fn write_step(
        &self,
        disk: &DiskMut,
        base: u64,
        step: &Step,
        data: Option<&[u8]>,
        scratch: &mut [u8],
    ) -> Result<()> {
        let count = step.to - step.from;
        let fill = |target: &mut [u8]| match data {
            Some(data) => target.copy_from_slice(data),
            None => target.fill(0),
        };
        match step.kept {
            Kept::Plain => match data {
                Some(data) => disk.write_at(base + step.place, data),
                None => disk.zero_at(base + step.place..base + step.place + count as u64),
            },
            Kept::FirstSector => {
                let before = disk.as_disk().read_vec(base, self.sector as usize)?;
                let mut sector = before.clone();
                fill(&mut sector[step.place as usize..step.place as usize + count]);
                sector[NAME].copy_from_slice(&before[NAME]);
                sector[MIRROR].copy_from_slice(&before[MIRROR]);
                disk.write_at(base, &sector)
            }
            Kept::Enciphered => {
                let cipher = self.cipher()?;
                let within = (step.place % self.sector) as usize;
                let start = step.place - within as u64;
                let size = (within + count).next_multiple_of(self.sector as usize);
                let sectors = &mut scratch[..size];
                let sector = self.sector as usize;
                // The rest of the first and of the last sector stays what it is.
                if within != 0 {
                    self.decipher(&disk.as_disk(), base, start, &mut sectors[..sector])?;
                }
                if !(within + count).is_multiple_of(sector) && (within == 0 || size > sector) {
                    let last = size - sector;
                    self.decipher(&disk.as_disk(), base, start + last as u64, &mut sectors[last..])?;
                }
                fill(&mut sectors[within..within + count]);
                cipher.encrypt(start, sectors);
                disk.write_at(base + start, sectors)
            }
            Kept::Reserved | Kept::Unknown | Kept::Beyond => Err(self.unknown(step.place)),
        }
    }

    /// What lies at `offset`: enciphered bytes are data, whatever the container says of them.
    pub(super) fn extent(&self, disk: &Disk, base: u64, offset: u64) -> Result<Extent> {
        let left = |segment: &Segment| segment.range.end - offset;
        match self.segment(offset) {
            Some(segment) if segment.kept == Kept::Plain => {
                let inner = disk.extent_at(base + segment.place + (offset - segment.range.start))?;
                Ok(Extent { kind: inner.kind, length_bytes: inner.length_bytes.min(left(segment)) })
            }
            Some(segment) => {
                let kind = if segment.kept == Kept::Reserved { ExtentKind::Zero } else { ExtentKind::Data };
                Ok(Extent { kind, length_bytes: left(segment) })
            }
            None => Err(Error::invalid(Layer::BitLocker, "no part of the volume lies there").at(offset)),
        }
    }
}
