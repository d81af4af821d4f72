//! Conversion of any container into any other: what reads as zero is not written, a reader runs ahead of the writer.

use super::{DiskOptions, NewFile};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, DiskMut, ExtentKind};
use vmrescue_image as image;
use vmrescue_image::{CreateSpec, Kind};

/// Bytes that are read at once.
const CHUNK_BYTES: u64 = 2 << 20;
/// Bytes in which zeros are looked for.
const PIECE_BYTES: usize = 64 << 10;
/// Chunks on their way between the two threads.
const CHUNKS: usize = 4;

/// Copies the virtual disk of `source` into a new container. `target` carries its name only when it is whole.
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
) -> Result<()> {
    let container = image::open_path(source, &options.opening())?;
    let geometry = container.disk.geometry();
    let sector =
        if matches!(kind, Kind::VhdxFixed | Kind::VhdxDynamic) { geometry.logical_sector_bytes } else { 512 };
    let spec = CreateSpec { kind, size: geometry.length_bytes, block_bytes, logical_sector_bytes: sector };
    if geometry.logical_sector_bytes != sector && kind != Kind::Raw {
        return Err(Error::invalid(Layer::Vhd, "a VHD has 512-byte sectors, this disk has 4096")
            .advice("convert into a VHDX or into a raw file"));
    }
    let new = NewFile::create(target)?;
    image::create(new.file(), &spec)?;
    let disk = image::open_mut(new.file(), None)?.disk;
    copy_disk(&container.disk, &disk, "converting", progress)?;
    drop(disk);
    new.finish()
}

type Chunk = (u64, Vec<u8>);

/// Copies everything that does not read as zero into `to`, which is as long and reads as zero.
///
/// # Errors
/// Of both disks; `Interrupted`.
pub fn copy_disk(from: &Disk, to: &DiskMut, what: &str, progress: &dyn Progress) -> Result<()> {
    progress.begin(what, Some(from.len()));
    let (filled, chunks) = sync_channel::<Chunk>(CHUNKS);
    let (emptied, buffers) = sync_channel::<Vec<u8>>(CHUNKS + 2);
    let done = std::thread::scope(|scope| {
        let reader = scope.spawn(move || read_ahead(from, &filled, &buffers, progress));
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
    progress: &dyn Progress,
) -> Result<()> {
    let mut offset = 0;
    while offset < from.len() {
        if progress.cancelled() {
            return Err(Error::new(ErrorKind::Interrupted, Layer::Image, "stopped"));
        }
        let extent = from.extent_at(offset)?;
        if extent.kind == ExtentKind::Zero {
            offset += extent.length_bytes;
            progress.advance(extent.length_bytes);
            continue;
        }
        let end = (offset - offset % CHUNK_BYTES + CHUNK_BYTES).min(offset + extent.length_bytes);
        let mut buffer = buffers.try_recv().unwrap_or_default();
        buffer.resize((end - offset) as usize, 0);
        from.read_at(offset, &mut buffer)?;
        if filled.send((offset, buffer)).is_err() {
            return Ok(());
        }
        progress.advance(end - offset);
        offset = end;
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
