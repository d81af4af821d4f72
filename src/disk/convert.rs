//! Conversion of any container into any other: what reads as zero is not written, a reader runs ahead of the writer.

use super::{DiskOptions, NewFile};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, DiskMut, Extent, ExtentKind, HostFile};
use vmrescue_image as image;
use vmrescue_image::{CreateSpec, Kind};
use vmrescue_transaction::refuse_pending;

/// Bytes that are read at once.
const CHUNK_BYTES: u64 = 2 << 20;
/// Bytes in which zeros are looked for.
const PIECE_BYTES: usize = 64 << 10;
/// Chunks on their way between the two threads.
const CHUNKS: usize = 4;

/// Copies the virtual disk of `source` into a new container. `target` carries its name only when it is whole. Parts of the disk that
/// the source's container has lost (it was cut off, its table is damaged) read as zero in the copy: they are what is returned.
///
/// # Errors
/// `AlreadyExists`; of opening the source; of the host.
pub fn convert(
    source: &Path,
    target: &Path,
    kind: Kind,
    block_bytes: Option<u64>,
    options: &DiskOptions,
    progress: &dyn Progress,
) -> Result<Vec<Range<u64>>> {
    let file = Arc::new(HostFile::open_read(source)?);
    let before = file.stamp()?;
    refuse_pending(source)?;
    for parent in image::parents(source, &options.opening())? {
        refuse_pending(&parent)?;
    }
    let container = image::open_file(&Disk::new(Arc::clone(&file) as Arc<_>), source, &options.opening())?;
    let geometry = container.disk.geometry();
    let sector =
        if matches!(kind, Kind::VhdxFixed | Kind::VhdxDynamic) { geometry.logical_sector_bytes } else { 512 };
    let spec = CreateSpec { kind, size: geometry.length_bytes, block_bytes, logical_sector_bytes: sector };
    if geometry.logical_sector_bytes != sector && kind != Kind::Raw {
        return Err(Error::invalid(Layer::Vhd, "a VHD has 512-byte sectors, this disk has 4096")
            .advice("convert into a VHDX or into a raw file"));
    }
    let rules = super::outputs_of(source, &options.opening(), options.force)?;
    if options.dry_run {
        // Everything but the copying; what is lost of the source is told by `disk check`.
        rules.check(target)?;
        let nothing = Disk::new(Arc::new(vmrescue_block::MemoryDevice::new(Vec::new())));
        let tried = vmrescue_block::Overlay::new(nothing, vmrescue_block::OverlayOptions::default())?;
        image::create(&DiskMut::new(tried as Arc<_>), &spec)?;
        return Ok(Vec::new());
    }
    let new = NewFile::create(target, &rules)?;
    image::create(new.file(), &spec)?;
    let disk = image::open_mut(new.file(), None)?.disk;
    let holes = Mutex::new(Vec::new());
    copy_pieces(&container.disk, &disk, "converting", Some(&holes), progress)?;
    drop(disk);
    // Whoever starts the machine meanwhile is not kept from it; the copy is then of no moment at all.
    if file.stamp()? != before {
        return Err(Error::refused(
            Layer::Image,
            "the image was changed by another program while it was copied",
        )
        .in_file(source)
        .advice("nothing was made; shut the machine down and copy again"));
    }
    new.finish()?;
    Ok(holes.into_inner().unwrap_or_else(PoisonError::into_inner))
}

type Chunk = (u64, Vec<u8>);

/// Copies everything that does not read as zero into `to`, which is as long and reads as zero.
///
/// # Errors
/// Of both disks; `Interrupted`.
pub fn copy_disk(from: &Disk, to: &DiskMut, what: &str, progress: &dyn Progress) -> Result<()> {
    copy_pieces(from, to, what, None, progress)
}

/// As [`copy_disk`]; with `holes`, parts that the container has lost are left as zeros and noted.
fn copy_pieces(
    from: &Disk,
    to: &DiskMut,
    what: &str,
    holes: Option<&Mutex<Vec<Range<u64>>>>,
    progress: &dyn Progress,
) -> Result<()> {
    progress.begin(what, Some(from.len()));
    let (filled, chunks) = sync_channel::<Chunk>(CHUNKS);
    let (emptied, buffers) = sync_channel::<Vec<u8>>(CHUNKS + 2);
    let done = std::thread::scope(|scope| {
        let reader = scope.spawn(move || read_ahead(from, &filled, &buffers, holes, progress));
        let written = write_chunks(to, &chunks, &emptied);
        // A writer that failed stops the reader by not taking any more.
        drop(chunks);
        drop(emptied);
        let read = reader.join().map_err(|_| Error::invalid(Layer::Image, "the reading thread failed"))?;
        written.and(read)
    });
    progress.end();
    done
}

fn read_ahead(
    from: &Disk,
    filled: &SyncSender<Chunk>,
    buffers: &Receiver<Vec<u8>>,
    holes: Option<&Mutex<Vec<Range<u64>>>>,
    progress: &dyn Progress,
) -> Result<()> {
    let mut offset = 0;
    while offset < from.len() {
        if progress.cancelled() {
            return Err(Error::new(ErrorKind::Interrupted, Layer::Image, "stopped"));
        }
        let extent = match (from.extent_at(offset), holes) {
            // Where the table of blocks is damaged, a read tells what is lost.
            (Err(e), Some(_)) if e.kind() == ErrorKind::Damaged => {
                Extent { kind: ExtentKind::Data, length_bytes: CHUNK_BYTES.min(from.len() - offset) }
            }
            (extent, _) => extent?,
        };
        if extent.kind == ExtentKind::Zero {
            offset += extent.length_bytes;
            progress.advance(extent.length_bytes);
            continue;
        }
        let end = (offset - offset % CHUNK_BYTES + CHUNK_BYTES).min(offset + extent.length_bytes);
        let mut buffer = buffers.try_recv().unwrap_or_default();
        buffer.resize((end - offset) as usize, 0);
        match (from.read_at(offset, &mut buffer), holes) {
            (Err(e), Some(holes)) if e.kind() == ErrorKind::Damaged => {
                read_around(from, offset, &mut buffer, holes)?;
            }
            (read, _) => read?,
        }
        if filled.send((offset, buffer)).is_err() {
            return Ok(());
        }
        progress.advance(end - offset);
        offset = end;
    }
    Ok(())
}

/// Reads a chunk piece by piece; pieces that are lost are zeros and noted.
fn read_around(from: &Disk, offset: u64, buffer: &mut [u8], holes: &Mutex<Vec<Range<u64>>>) -> Result<()> {
    let mut at = offset;
    for piece in buffer.chunks_mut(PIECE_BYTES) {
        match from.read_at(at, piece) {
            Err(e) if e.kind() == ErrorKind::Damaged => {
                piece.fill(0);
                let mut holes = holes.lock().unwrap_or_else(PoisonError::into_inner);
                let end = at + piece.len() as u64;
                match holes.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => holes.push(at..end),
                }
            }
            read => read?,
        }
        at += piece.len() as u64;
    }
    Ok(())
}

fn write_chunks(to: &DiskMut, chunks: &Receiver<Chunk>, emptied: &SyncSender<Vec<u8>>) -> Result<()> {
    while let Ok((offset, buffer)) = chunks.recv() {
        write_pieces(to, offset, &buffer)?;
        let _full = emptied.try_send(buffer);
    }
    Ok(())
}

/// Writes the runs of pieces that are not all zero.
fn write_pieces(to: &DiskMut, offset: u64, data: &[u8]) -> Result<()> {
    let mut start = None;
    for at in (0..data.len()).step_by(PIECE_BYTES) {
        let piece = &data[at..(at + PIECE_BYTES).min(data.len())];
        match (is_zero(piece), start) {
            (true, Some(from)) => {
                to.write_at(offset + from as u64, &data[from..at])?;
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    start.map_or(Ok(()), |from| to.write_at(offset + from as u64, &data[from..]))
}
