//! Repairs what the check finds and what has one right answer, on a staged disk, and checks again until nothing changes.
//!
//! Order: the boot sector, then which copy of the table counts, then the rest; FSInfo and the mark `dirty` go last.

use super::Kind;
use super::boot::{Boot, boot_copy, is_fat};
use super::check::{CODES, Examined, Remedy, copy_of, copy_place, examine, refused};
use super::core::{Core, end_value, entry_at};
use super::entry::{DELETED, DIRECTORY, Raw, SLOT};
use super::mkfs::info_sector;
use super::volume::second_entry;
use super::write::FatVolumeMut;
use crate::ntfs::{Mend, Mended};
use crate::{FileSystem, Times};
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result, Severity};
use vmrescue_base::progress::Progress;
use vmrescue_block::DiskMut;

/// Most rounds: what is done in one is counted in the next.
const ROUNDS: usize = 8;
/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;
/// The directory for what nobody owns.
const FOUND: &str = "FOUND.000";

/// Repairs the volume that fills `disk`, which is staged: the caller publishes it, or drops it on errors.
///
/// # Errors
/// `Refused` when something is damaged that has no one right answer, with a list; of the disk.
pub fn mend(disk: &DiskMut, progress: &dyn Progress) -> Result<Mended> {
    let mut mended = Mended::default();
    let view = disk.as_disk();
    for _ in 0..ROUNDS {
        let first = view.read_vec(0, 512)?;
        if !is_fat(&first) {
            let copy =
                boot_copy(&view)?.ok_or_else(|| Error::damaged(Layer::Fat, "no boot sector of FAT").at(0))?;
            disk.write_at(0, &copy)?;
            mended.done.push("boot sector written from its copy".into());
            continue;
        }
        let boot = Boot::parse(&first)?;
        let found = examine(&view, &boot, false, progress)?;
        if (found.refuses || has_errors(&found))
            && better_table(disk, &boot, &found, &mut mended.done, progress)?
        {
            continue;
        }
        if found.refuses {
            return Err(refused(&found.defects));
        }
        let before = mended.done.len();
        round(disk, &boot, &found, &mut mended.done)?;
        if mended.done.len() == before {
            mended.left = found.defects;
            return Ok(mended);
        }
    }
    let boot = Boot::parse(&view.read_vec(0, 512)?)?;
    mended.left = examine(&view, &boot, false, progress)?.defects;
    Ok(mended)
}

fn errors(found: &Examined) -> usize {
    found.defects.iter().filter(|defect| defect.severity == Severity::Error).count()
}

fn has_errors(found: &Examined) -> bool {
    errors(found) > 0
}

/// Where the first table has damage and another one has none, that one is copied over it.
fn better_table(
    disk: &DiskMut,
    boot: &Boot,
    found: &Examined,
    done: &mut Vec<String>,
    progress: &dyn Progress,
) -> Result<bool> {
    if boot.only_table.is_some() || !found.defects.iter().any(|defect| defect.code == "fat-copies-differ") {
        return Ok(false);
    }
    for table in 1..boot.tables {
        let by_it = Boot { only_table: Some(table), ..boot.clone() };
        let other = examine(&disk.as_disk(), &by_it, false, progress)?;
        if !has_errors(&other) && !other.refuses {
            copy_table(disk, boot, table, 0)?;
            done.push(format!("allocation table written from copy {}, which has no damage", table + 1));
            return Ok(true);
        }
    }
    Ok(false)
}

fn copy_table(disk: &DiskMut, boot: &Boot, from: u32, to: u32) -> Result<()> {
    let mut at = 0;
    while at < boot.table_bytes() {
        let length = PIECE.min(boot.table_bytes() - at);
        let bytes = disk.as_disk().read_vec(boot.table_at(from) + at, length as usize)?;
        let there = disk.as_disk().read_vec(boot.table_at(to) + at, length as usize)?;
        if bytes != there {
            disk.write_at(boot.table_at(to) + at, &bytes)?;
        }
        at += length;
    }
    Ok(())
}

fn round(disk: &DiskMut, boot: &Boot, found: &Examined, done: &mut Vec<String>) -> Result<()> {
    let structural = |remedy: &&Remedy| !matches!(remedy, Remedy::Info | Remedy::Dirty);
    if found.remedies.iter().any(|remedy| structural(&remedy)) {
        for remedy in found.remedies.iter().filter(structural) {
            done.push(single(disk, boot, remedy)?);
        }
        return Ok(());
    }
    if found.remedies.contains(&Remedy::Info) {
        done.push(info(disk, boot)?);
        return Ok(());
    }
    if found.remedies.contains(&Remedy::Dirty) && !found.leaves {
        clean(disk, boot)?;
        done.push("the mark of an unclean end removed".into());
    }
    Ok(())
}

fn single(disk: &DiskMut, boot: &Boot, remedy: &Remedy) -> Result<String> {
    let sector = boot.sector_bytes as usize;
    Ok(match remedy {
        Remedy::BootSector => {
            let copy = disk.as_disk().read_vec(copy_place(boot), sector)?;
            disk.write_at(0, &copy)?;
            "boot sector written from its copy".into()
        }
        Remedy::BootCopy => {
            let first = disk.as_disk().read_vec(0, sector)?;
            disk.write_at(copy_place(boot), &copy_of(boot, &first))?;
            "copy of the boot sector written".into()
        }
        Remedy::FirstEntry => {
            disk.write_at(boot.table_at(boot.only_table.unwrap_or(0)), &[boot.media])?;
            "first entry of the allocation table written".into()
        }
        Remedy::Copies => {
            for table in 1..boot.tables {
                copy_table(disk, boot, 0, table)?;
            }
            "copies of the allocation table written from the first".into()
        }
        Remedy::Cut { at, first, keep } => change(disk, |core| {
            core.cut(*first, *keep)?;
            if *keep == 0 {
                let mut raw = core.entry(*at)?;
                raw.set_first_cluster(0, core.boot.kind == Kind::Fat32);
                core.put_entry(*at, &raw)?;
            }
            Ok(format!("clusters behind the end of the file at {at:#x} freed"))
        })?,
        Remedy::NoSize { at } => change(disk, |core| {
            let mut raw = core.entry(*at)?;
            raw.set_size(0);
            core.put_entry(*at, &raw)?;
            Ok(format!("size of the directory at {at:#x} cleared"))
        })?,
        Remedy::Dots { cluster, above } => change(disk, |core| {
            let at = core.boot.cluster_at(*cluster);
            for (place, (name, to)) in
                [(b".          ", *cluster), (b"..         ", *above)].into_iter().enumerate()
            {
                let place = at + (place * SLOT) as u64;
                let old = core.entry(place)?;
                let mut raw = Raw::new(name, 0, DIRECTORY);
                if old.is_dot() {
                    raw.set_times(&old.times());
                }
                raw.set_first_cluster(to, core.boot.kind == Kind::Fat32);
                core.put_entry(place, &raw)?;
            }
            Ok(format!("`.` and `..` of the directory at cluster {cluster} written"))
        })?,
        Remedy::Parts { slots } => change(disk, |core| {
            for at in slots {
                if core.entry(*at)?.is_long() {
                    core.put(*at, &[DELETED])?;
                }
            }
            Ok(format!("{} parts of long names that belong to no file removed", slots.len()))
        })?,
        Remedy::Lost(chains) => lost(disk, boot, chains)?,
        Remedy::Info | Remedy::Dirty => String::new(),
    })
}

/// One change by the writer.
fn change<T>(disk: &DiskMut, work: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
    let mut volume = FatVolumeMut::open(disk.clone())?;
    volume.parts().transact(work)
}

/// Chains that no file has become files, as chkdsk names them.
fn lost(disk: &DiskMut, boot: &Boot, chains: &[(u32, u32)]) -> Result<String> {
    let mut volume = FatVolumeMut::open(disk.clone())?;
    let root = volume.root();
    let there = volume.lookup(root, FOUND)?;
    let core = volume.parts();
    let mut number = 0;
    core.transact(|core| {
        let directory = match there {
            Some(directory) => directory.0,
            None => core.create(root.0, FOUND, true)?,
        };
        for (first, count) in chains {
            // What does not end well is made to.
            let chain = Arc::new(follow(core, *first, *count)?);
            if let Some(last) = chain.last() {
                core.link_run(last, 1, end_value(boot.kind))?;
            }
            let name = loop {
                let name = format!("FILE{number:04}.CHK");
                number += 1;
                let taken = core.with_directory(directory, |_, own| Ok(own.find(&name).is_some()))?;
                if !taken {
                    break name;
                }
            };
            let node = core.create(directory, &name, false)?;
            let Some((at, mut raw)) = core.entry_of(node)? else { continue };
            raw.set_first_cluster(*first, boot.kind == Kind::Fat32);
            let size = u64::from(*count) * u64::from(boot.cluster_bytes);
            raw.set_size(u32::try_from(size).unwrap_or(u32::MAX));
            raw.set_times(&Times { modified: core.now(), created: core.now(), ..Times::default() });
            core.put_entry(at, &raw)?;
        }
        Ok(())
    })?;
    crate::FileSystemMut::sync(&mut volume)?;
    Ok(format!("{} chains of lost clusters are files in \\{FOUND}", chains.len()))
}

fn follow(core: &mut Core, first: u32, count: u32) -> Result<super::core::Chain> {
    let mut chain = super::core::Chain::default();
    let mut at = first;
    for place in 0..count {
        chain.push(at);
        if place + 1 == count {
            break;
        }
        match core.link(at)? {
            super::core::Link::Next(next) => at = next,
            _ => break,
        }
    }
    Ok(chain)
}

/// FSInfo from the table.
fn info(disk: &DiskMut, boot: &Boot) -> Result<String> {
    let view = disk.as_disk();
    let map = super::free::FreeMap::read(&view, boot, boot.only_table.unwrap_or(0))?;
    let sector = boot.info_sector.unwrap_or(1);
    disk.write_at(
        u64::from(sector) * u64::from(boot.sector_bytes),
        &info_sector(map.free(), boot.sector_bytes),
    )?;
    Ok(format!("FSInfo written: {} free clusters", map.free()))
}

/// Takes the marks of an unclean end away, in the boot sector and the second entry of all tables.
fn clean(disk: &DiskMut, boot: &Boot) -> Result<()> {
    disk.write_at(boot.flags_at(), &[boot.flags & !1])?;
    let core = Core::new(disk.as_disk(), None, boot.clone());
    let second = second_entry(&core)?;
    let bytes = match boot.kind {
        Kind::Fat12 => return Ok(()),
        Kind::Fat16 => (second | 0x8000).to_le_bytes()[..2].to_vec(),
        Kind::Fat32 => (second | 0x0800_0000).to_le_bytes().to_vec(),
    };
    for table in 0..boot.tables {
        disk.write_at(boot.table_at(table) + entry_at(boot.kind, 1), &bytes)?;
    }
    Ok(())
}

/// True for findings that a repair does something about.
pub fn is_mended(code: &str) -> bool {
    CODES.iter().any(|known| known.name == code && known.mend == Mend::Mends)
}
