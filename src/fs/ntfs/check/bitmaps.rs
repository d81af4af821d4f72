//! $Bitmap against the runs, and the bitmap of $MFT against the records, both ways.

use super::clusters::{Clusters, differences};
use super::codes::*;
use super::notes::{Notes, Remedy};
use super::record::{Fact, RESERVED};
use crate::ntfs::node::kind;
use crate::ntfs::volume::{Volume, no_stream};
use vmrescue_base::error::Result;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Hands the 64-bit words of a bitmap to `visit`, in pieces with the number of their first word.
fn words(
    volume: &Volume,
    number: u64,
    kind: u32,
    bits: u64,
    visit: &mut dyn FnMut(u64, &[u64]),
) -> Result<u64> {
    let node = volume.node(number)?;
    let attribute = node.attribute(kind, &[]).ok_or_else(|| no_stream(number, ""))?;
    let (mut buf, mut done) = (vec![0; CHUNK], 0u64);
    loop {
        let length = volume.read_attribute(number, attribute, done, &mut buf)?;
        // A size that is a lie must not keep us here: nothing behind the last bit is of interest.
        if length == 0 || done >= bits.div_ceil(8) {
            return Ok(done);
        }
        buf[length..].fill(0);
        let part: Vec<u64> = buf[..length.next_multiple_of(8)]
            .as_chunks::<8>()
            .0
            .iter()
            .map(|w| u64::from_le_bytes(*w))
            .collect();
        visit(done / 8, &part);
        done += length as u64;
    }
}

/// $Bitmap.
pub(super) fn clusters(volume: &Volume, taken: &Clusters, notes: &mut Notes) {
    let cluster_bytes = u64::from(volume.boot().cluster_bytes);
    let end = taken.count();
    let mut found = Vec::new();
    let read = words(volume, 6, kind::DATA, end, &mut |first, part| {
        let pairs = part.iter().enumerate().map(|(i, word)| (taken.word(first + i as u64), *word));
        differences(first, pairs, end, &mut |range, used| found.push((range, used)));
    });
    match read {
        Ok(bytes) if bytes >= end.div_ceil(8) => {}
        Ok(bytes) => notes.note(
            BITMAP,
            None,
            format!("$Bitmap has {bytes:#x} bytes, {:#x} are needed", end.div_ceil(8)),
        ),
        Err(error) => notes.note(BITMAP, error.offset(), format!("$Bitmap cannot be read: {error}")),
    }
    for (range, used) in found {
        let (code, what) = match used {
            true => (BITMAP_MARKED_FREE, "in use but marked free"),
            false => (BITMAP_MARKED_USED, "marked in use but nothing holds them"),
        };
        let detail = format!("clusters {:#x}..{:#x} are {what}", range.start, range.end);
        notes.mend(code, range.start * cluster_bytes, detail, Remedy::ClusterBitmap);
    }
}

/// The bitmap of $MFT.
pub(super) fn records(volume: &Volume, facts: &[Fact], notes: &mut Notes) {
    let end = facts.len() as u64;
    let ours = |word: u64| {
        let first = (word * 64) as usize;
        let part = facts.get(first..facts.len().min(first + 64)).unwrap_or_default();
        part.iter().enumerate().fold(0, |bits, (i, fact)| bits | u64::from(fact.is(Fact::USED)) << i)
    };
    let mut found = Vec::new();
    let read = words(volume, 0, kind::BITMAP, end, &mut |first, part| {
        let pairs = part.iter().enumerate().map(|(i, word)| (ours(first + i as u64), *word));
        differences(first, pairs, end, &mut |range, used| found.push((range, used)));
    });
    match read {
        Ok(bytes) if bytes >= end.div_ceil(8) => {}
        Ok(bytes) => {
            notes.note(
                MFT_BITMAP,
                None,
                format!("the bitmap of $MFT has {bytes:#x} bytes, {:#x} are needed", end.div_ceil(8)),
            );
        }
        Err(error) => {
            notes.note(MFT_BITMAP, error.offset(), format!("the bitmap of $MFT cannot be read: {error}"));
        }
    }
    for (range, used) in found {
        for number in range.filter(|number| *number >= RESERVED) {
            let damaged = facts.get(number as usize).is_some_and(|fact| fact.is(Fact::DAMAGED));
            if damaged && !used {
                continue; // said as a record that cannot be read
            }
            let (code, what) = match used {
                true => (RECORD_MARKED_FREE, "in use but marked free"),
                false => (RECORD_MARKED_USED, "free but marked in use"),
            };
            let detail = format!("record {number:#x} is {what}");
            notes.mend(code, volume.record_offset(number), detail, Remedy::RecordBitmap);
        }
    }
}
