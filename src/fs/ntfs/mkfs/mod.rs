//! Makes an empty NTFS 3.1 volume, for demo and test disks and for new images.
//!
//! $LogFile is filled with 0xFF, which Windows and ntfs-3g take as an empty log. There is no boot code: the boot
//! sector stops the processor. $UsnJrnl is left out: Windows makes it when the change journal is turned on.
//!
//! Only what is not zero is written: a volume of 64 TiB on a sparse device takes the room of its own files.

pub(crate) mod security;
pub(crate) mod tables;

use crate::Times;
use crate::ntfs::write::attribute::{Attribute, SPARSE, Stream, kind, put_all};
use crate::ntfs::write::entry::{
    self, Entry, FileName, INDEX_BLOCK_BYTES, IndexKind, NAME_DIRECTORY, NAME_VIEW_INDEX, Node, namespace,
};
use crate::ntfs::write::record::{self, DIRECTORY, EXTEND, Header, IN_USE, VIEW_INDEX, apply_fixups};
use crate::ntfs::write::runs::{self, Run};
use std::ops::Range;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::utf16le_bytes;
use vmrescue_base::time::FileTime;
use vmrescue_block::{DiskMut, ExtentKind};

/// Records that a new $MFT has room for.
const RECORDS: u64 = 64;
/// Most clusters of a volume (Windows' own limit).
const MAX_CLUSTERS: u64 = u32::MAX as u64;
/// Largest cluster that Windows makes.
const MAX_CLUSTER_BYTES: u32 = 2 << 20;
/// Bytes that are looked at at once before they are cleared.
const CLEAR_BYTES: u64 = 1 << 20;
/// Bytes of $Boot.
const BOOT_BYTES: u64 = 8192;
/// System files are hidden and system.
const HIDDEN_SYSTEM: u32 = 0x06;
const ROOT: u64 = 5;

/// What a new volume shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatSpec {
    /// Label; at most 32 UTF-16 units.
    pub label: String,
    /// Bytes of a cluster, a power of two from the sector to 2 MiB; `None` for 4 KiB (more on very large volumes).
    pub cluster_bytes: Option<u32>,
    /// Bytes of a file record, 1024 or 4096; `None` for what fits the sector.
    pub record_bytes: Option<u32>,
    /// Serial number.
    pub serial: u64,
    /// Time that all files of the volume carry.
    pub created: FileTime,
    /// Sectors in front of the volume, for the boot sector.
    pub hidden_sectors: u32,
}

impl Default for FormatSpec {
    fn default() -> FormatSpec {
        let created = FileTime(133_000_000_000_000_000);
        FormatSpec {
            label: String::new(),
            cluster_bytes: None,
            record_bytes: None,
            serial: 0x1234_5678_9ABC_DEF0,
            created,
            hidden_sectors: 0,
        }
    }
}

/// Makes an NTFS volume over all of `disk`; what was there is lost. Free space is not touched.
///
/// # Errors
/// `Invalid` for sizes that cannot be, `NoSpace` when the volume is too small (about 4 MiB are needed).
pub fn format(disk: &DiskMut, spec: &FormatSpec) -> Result<()> {
    let layout = Layout::new(disk, spec)?;
    Maker { disk, spec, layout, next: 0, used: Vec::new(), records: Vec::new() }.make()
}

/// Sizes of the volume.
#[derive(Debug, Clone, Copy)]
struct Layout {
    sector_bytes: u32,
    cluster_bytes: u32,
    record_bytes: u32,
    sectors: u64,
    clusters: u64,
}

impl Layout {
    fn new(disk: &DiskMut, spec: &FormatSpec) -> Result<Layout> {
        let geometry = disk.geometry();
        let sector_bytes = geometry.logical_sector_bytes;
        // The last sector holds the copy of the boot sector and does not count.
        let sectors = (geometry.length_bytes / u64::from(sector_bytes)).saturating_sub(1);
        let mut cluster_bytes = spec.cluster_bytes.unwrap_or(4096.max(sector_bytes));
        if spec.cluster_bytes.is_none() {
            while sectors * u64::from(sector_bytes) / u64::from(cluster_bytes) > MAX_CLUSTERS
                && cluster_bytes < MAX_CLUSTER_BYTES
            {
                cluster_bytes *= 2;
            }
        }
        if !cluster_bytes.is_power_of_two()
            || cluster_bytes < sector_bytes
            || cluster_bytes > MAX_CLUSTER_BYTES
        {
            return Err(Error::invalid(Layer::Ntfs, "a cluster size that NTFS does not have")
                .expected("a power of two from one sector to 2 MiB")
                .found(cluster_bytes));
        }
        if spec.label.encode_utf16().count() > 32 {
            return Err(Error::invalid(Layer::Ntfs, "a volume label of more than 32 characters"));
        }
        let clusters = sectors / u64::from(cluster_bytes / sector_bytes);
        if clusters > MAX_CLUSTERS {
            return Err(Error::invalid(Layer::Ntfs, "too many clusters; choose larger ones"));
        }
        if sectors * u64::from(sector_bytes) < 3 << 20 {
            return Err(Error::no_space(Layer::Ntfs, "a volume of less than 3 MiB"));
        }
        let record_bytes = spec.record_bytes.unwrap_or(1024.max(sector_bytes));
        if !matches!(record_bytes, 1024 | 4096) || record_bytes < sector_bytes {
            return Err(Error::invalid(Layer::Ntfs, "a file record size that NTFS does not have")
                .expected("1024 or 4096, and not less than a sector")
                .found(record_bytes));
        }
        Ok(Layout { sector_bytes, cluster_bytes, record_bytes, sectors, clusters })
    }

    fn log_bytes(&self) -> u64 {
        let bytes = self.clusters * u64::from(self.cluster_bytes);
        (bytes / 100).clamp(1 << 20, 64 << 20).next_multiple_of(u64::from(self.cluster_bytes))
    }
}

struct Maker<'a> {
    disk: &'a DiskMut,
    spec: &'a FormatSpec,
    layout: Layout,
    /// Next free cluster.
    next: u64,
    /// What was taken.
    used: Vec<Run>,
    /// Records, in order of their number.
    records: Vec<Vec<u8>>,
}

impl Maker<'_> {
    /// Takes clusters for `bytes`.
    fn take(&mut self, bytes: u64) -> Result<Stream> {
        let cluster_bytes = u64::from(self.layout.cluster_bytes);
        let count = bytes.div_ceil(cluster_bytes).max(1);
        if self.next + count > self.layout.clusters {
            return Err(Error::no_space(Layer::Ntfs, "the volume is too small for its own files"));
        }
        let run = Run { lcn: Some(self.next), count };
        self.next += count;
        runs::push(&mut self.used, run);
        Ok(stream_of(run, bytes, cluster_bytes))
    }

    fn offset(&self, stream: &Stream) -> u64 {
        stream.runs.first().and_then(|r| r.lcn).unwrap_or(0) * u64::from(self.layout.cluster_bytes)
    }

    /// Takes clusters for `data` and writes it, with zeros behind it.
    fn store(&mut self, data: &[u8]) -> Result<Stream> {
        let stream = self.take(data.len() as u64)?;
        self.fill(&stream, data)?;
        Ok(stream)
    }

    fn fill(&self, stream: &Stream, data: &[u8]) -> Result<()> {
        let start = self.offset(stream);
        self.disk.write_at(start, data)?;
        self.clear(start + data.len() as u64..start + stream.allocated_bytes)
    }

    /// Makes a range read as zero, without writing where it does already.
    fn clear(&self, range: Range<u64>) -> Result<()> {
        let view = self.disk.as_disk();
        let mut at = range.start;
        while at < range.end {
            let extent = view.extent_at(at)?;
            let mut length = extent.length_bytes.min(range.end - at);
            if extent.kind != ExtentKind::Zero {
                length = length.min(CLEAR_BYTES);
                if !vmrescue_base::bytes::is_zero(&view.read_vec(at, length as usize)?) {
                    self.disk.zero_at(at..at + length)?;
                }
            }
            at += length.max(1);
        }
        Ok(())
    }

    fn times(&self) -> Times {
        let at = self.spec.created;
        Times { created: at, modified: at, changed: at, accessed: at }
    }

    fn make(mut self) -> Result<()> {
        let record_bytes = u64::from(self.layout.record_bytes);
        let boot = self.take(BOOT_BYTES)?;
        let mut mft = self.take(RECORDS * record_bytes)?;
        let mft_bitmap = self.take(RECORDS / 8)?;
        let root_index = self.take(INDEX_BLOCK_BYTES as u64)?;
        let attrdef = self.store(&tables::attribute_definitions())?;
        let upcase: Vec<u8> = tables::upcase().iter().flat_map(|u| u.to_le_bytes()).collect();
        let upcase = self.store(&upcase)?;
        let secure = security::secure();
        let sds = self.store(&secure.sds)?;
        let bitmap = self.take(self.layout.clusters.div_ceil(64) * 8)?;
        let log = self.take(self.layout.log_bytes())?;
        // The copy of the first records lies in the middle, far from what it copies.
        self.next = self.next.max(self.layout.clusters / 2);
        // Where a cluster has room for more than four records, all of it is a copy.
        let mirrored = (4 * record_bytes).max(u64::from(self.layout.cluster_bytes));
        let mirror = self.take(mirrored)?;
        mft.size_bytes = RECORDS * record_bytes;
        mft.initialized_bytes = mft.size_bytes;

        self.fill_log(&log)?;
        self.write_bitmap(&bitmap)?;
        let (mft_at, mirror_at) = (self.offset(&mft), self.offset(&mirror));
        let files = self.system_files(
            Places {
                boot,
                mft: mft.clone(),
                mft_bitmap: mft_bitmap.clone(),
                attrdef,
                upcase,
                sds,
                bitmap,
                log,
                mirror,
            },
            &secure,
        )?;
        self.write_records(files, &root_index)?;
        let mut all = Vec::new();
        for (number, record) in self.records.iter().enumerate() {
            let mut record = record.clone();
            if !apply_fixups(&mut record) {
                return Err(Error::invalid(Layer::Ntfs, "a record without a place for its fixups"));
            }
            if (number as u64) < mirrored / record_bytes {
                self.disk.write_at(mirror_at + number as u64 * record_bytes, &record)?;
            }
            all.append(&mut record);
        }
        self.disk.write_at(mft_at, &all)?;
        let mut map = vec![0u8; (RECORDS / 8) as usize];
        for number in (0..16).chain(24..27) {
            map[number / 8] |= 1 << (number % 8);
        }
        self.fill(&mft_bitmap, &map)?;
        self.write_boot(mft_at, mirror_at)
    }

    fn fill_log(&self, log: &Stream) -> Result<()> {
        let (start, chunk) = (self.offset(log), vec![0xFF; 1 << 16]);
        let mut done = 0;
        while done < log.allocated_bytes {
            let length = (log.allocated_bytes - done).min(chunk.len() as u64);
            self.disk.write_at(start + done, &chunk[..length as usize])?;
            done += length;
        }
        Ok(())
    }

    /// The clusters that were taken, and the bits behind the last cluster, which stand for none.
    fn write_bitmap(&self, stream: &Stream) -> Result<()> {
        let start = self.offset(stream);
        self.clear(start..start + stream.allocated_bytes)?;
        let tail =
            Run { lcn: Some(self.layout.clusters), count: stream.size_bytes * 8 - self.layout.clusters };
        for run in self.used.iter().chain(Some(&tail).filter(|tail| tail.count > 0)) {
            let (first, end) = (run.lcn.unwrap_or(0), run.lcn.unwrap_or(0) + run.count);
            let (from, to) = (first / 8, end.div_ceil(8));
            let mut map = vec![0u8; (to - from) as usize];
            // Two runs may share a byte.
            self.disk.read_at(start + from, &mut map)?;
            for bit in first..end {
                map[(bit / 8 - from) as usize] |= 1 << (bit % 8);
            }
            self.disk.write_at(start + from, &map)?;
        }
        Ok(())
    }

    fn write_boot(&self, mft_at: u64, mirror_at: u64) -> Result<()> {
        let Layout { sector_bytes, cluster_bytes, record_bytes, sectors, .. } = self.layout;
        let per = |bytes: u32| -> u8 {
            if bytes >= cluster_bytes {
                (bytes / cluster_bytes) as u8
            } else {
                (bytes.ilog2() as u8).wrapping_neg()
            }
        };
        let cluster = u64::from(cluster_bytes);
        let mut boot = vec![0; sector_bytes as usize];
        put_all(
            &mut boot,
            &[
                (0x00, &[0xEB, 0x52, 0x90]),
                (0x03, b"NTFS    "),
                (0x0B, &(sector_bytes as u16).to_le_bytes()),
                (0x0D, &[per_cluster(cluster_bytes / sector_bytes)]),
                (0x15, &[0xF8]),
                (0x18, &63u16.to_le_bytes()),
                (0x1A, &255u16.to_le_bytes()),
                (0x1C, &self.spec.hidden_sectors.to_le_bytes()),
                (0x24, &[0x80, 0, 0x80, 0]),
                (0x28, &sectors.to_le_bytes()),
                (0x30, &(mft_at / cluster).to_le_bytes()),
                (0x38, &(mirror_at / cluster).to_le_bytes()),
                (0x40, &[per(record_bytes)]),
                (0x44, &[per(INDEX_BLOCK_BYTES as u32)]),
                (0x48, &self.spec.serial.to_le_bytes()),
                (0x54, &[0xF4, 0xEB, 0xFD]), // hlt; jmp to it
                (0x1FE, &[0x55, 0xAA]),
            ],
        );
        self.clear(0..BOOT_BYTES.max(cluster))?;
        self.disk.write_at(0, &boot)?;
        self.disk.write_at(sectors * u64::from(sector_bytes), &boot)
    }
}

/// Sectors of a cluster as the boot sector has them: above 128 as the negative power of two.
fn per_cluster(sectors: u32) -> u8 {
    if sectors <= 128 { sectors as u8 } else { (sectors.ilog2() as u8).wrapping_neg() }
}

fn stream_of(run: Run, bytes: u64, cluster_bytes: u64) -> Stream {
    Stream {
        runs: vec![run],
        allocated_bytes: run.count * cluster_bytes,
        size_bytes: bytes,
        initialized_bytes: bytes,
        ..Stream::default()
    }
}

/// Where the system files' data lies.
struct Places {
    boot: Stream,
    mft: Stream,
    mft_bitmap: Stream,
    attrdef: Stream,
    upcase: Stream,
    sds: Stream,
    bitmap: Stream,
    log: Stream,
    mirror: Stream,
}

/// A system file to be written.
struct File {
    number: u64,
    name: &'static str,
    parent: u64,
    flags: u16,
    name_flags: u32,
    security_id: u32,
    attributes: Vec<Attribute>,
}

fn view(name: &str, collation: u32, cluster_bytes: u32, mut entries: Vec<Entry>) -> Attribute {
    entries.push(Entry::last(None));
    let root = entry::encode_root(IndexKind::new(0, collation, cluster_bytes), &Node { entries });
    Attribute::resident(kind::INDEX_ROOT, name, root)
}

impl Maker<'_> {
    fn system_files(&self, places: Places, secure: &security::Secure) -> Result<Vec<File>> {
        let cluster_bytes = self.layout.cluster_bytes;
        let data = |stream: Stream| Attribute::stream(kind::DATA, "", stream);
        let volume_bytes = self.layout.clusters * u64::from(cluster_bytes);
        let mut bad = Attribute::stream(
            kind::DATA,
            "$Bad",
            Stream {
                runs: vec![Run { lcn: None, count: self.layout.clusters }],
                allocated_bytes: volume_bytes,
                size_bytes: volume_bytes,
                ..Stream::default()
            },
        );
        bad.flags = 0;
        debug_assert_eq!(bad.flags & SPARSE, 0, "$Bad is stored as a plain stream with one hole");
        let mut label = Attribute::resident(kind::VOLUME_NAME, "", utf16le_bytes(&self.spec.label));
        label.indexed = false;
        let mut information = vec![0u8; 12];
        information[8] = 3;
        information[9] = 1;
        let empty = || Attribute::resident(kind::DATA, "", Vec::new());
        let file = |number, name, attributes| File {
            number,
            name,
            parent: ROOT,
            flags: 0,
            name_flags: 0,
            security_id: security::SYSTEM_ID,
            attributes,
        };
        let mut files = vec![
            file(0, "$MFT", vec![data(places.mft), Attribute::stream(kind::BITMAP, "", places.mft_bitmap)]),
            file(1, "$MFTMirr", vec![data(places.mirror)]),
            file(2, "$LogFile", vec![data(places.log)]),
            file(
                3,
                "$Volume",
                vec![label, Attribute::resident(kind::VOLUME_INFORMATION, "", information), empty()],
            ),
            file(4, "$AttrDef", vec![data(places.attrdef)]),
            file(6, "$Bitmap", vec![data(places.bitmap)]),
            file(7, "$Boot", vec![data(places.boot)]),
            file(8, "$BadClus", vec![empty(), bad]),
        ];
        files.push(File {
            flags: VIEW_INDEX,
            name_flags: NAME_VIEW_INDEX,
            ..file(
                9,
                "$Secure",
                vec![
                    Attribute::stream(kind::DATA, "$SDS", places.sds),
                    view("$SDH", 0x12, cluster_bytes, secure.sdh.clone()),
                    view("$SII", 0x10, cluster_bytes, secure.sii.clone()),
                ],
            )
        });
        files.push(file(10, "$UpCase", vec![data(places.upcase)]));
        let extended = |number, name, attributes| File {
            parent: 11,
            flags: EXTEND | VIEW_INDEX,
            name_flags: NAME_VIEW_INDEX,
            ..file(number, name, attributes)
        };
        let quota = security::quota(self.spec.created);
        files.push(extended(
            24,
            "$Quota",
            vec![
                view("$O", 0x11, cluster_bytes, quota.owners),
                view("$Q", 0x10, cluster_bytes, quota.limits),
            ],
        ));
        files.push(extended(25, "$ObjId", vec![view("$O", 0x13, cluster_bytes, Vec::new())]));
        files.push(extended(26, "$Reparse", vec![view("$R", 0x13, cluster_bytes, Vec::new())]));
        Ok(files)
    }

    fn names_of(&self, files: &[File]) -> Vec<(u64, u64, FileName)> {
        let name = |number: u64, parent: u64, text: &str, bits: u32, stream: Option<&Attribute>| {
            let (allocated, size) = match stream.map(|a| &a.body) {
                Some(crate::ntfs::write::attribute::Body::Runs(s)) => (s.allocated_bytes, s.size_bytes),
                _ => (0, 0),
            };
            let parent = parent | parent.max(1) << 48;
            let reference = number | number.clamp(1, 16) << 48;
            let file_name = FileName {
                parent,
                times: self.times(),
                allocated_bytes: allocated,
                size_bytes: size,
                attributes: HIDDEN_SYSTEM | bits,
                reparse: 0,
                namespace: namespace::WIN32_AND_DOS,
                name: text.encode_utf16().collect(),
            };
            (number, if number >= 16 { number | 1 << 48 } else { reference }, file_name)
        };
        let mut names: Vec<_> = files
            .iter()
            .map(|f| {
                let data = f.attributes.iter().find(|a| a.kind == kind::DATA && a.name.is_empty());
                name(f.number, f.parent, f.name, f.name_flags, data)
            })
            .collect();
        names.push(name(ROOT, ROOT, ".", NAME_DIRECTORY, None));
        names.push(name(11, ROOT, "$Extend", NAME_DIRECTORY, None));
        names
    }

    fn write_records(&mut self, files: Vec<File>, root_index: &Stream) -> Result<()> {
        let names = self.names_of(&files);
        let children = |parent: u64| {
            let mut list: Vec<&(u64, u64, FileName)> =
                names.iter().filter(|(_, _, n)| n.parent & 0xFFFF_FFFF_FFFF == parent).collect();
            list.sort_by_key(|(_, _, n)| String::from_utf16_lossy(&n.name).to_ascii_uppercase());
            let mut entries: Vec<Entry> = list.iter().map(|(_, r, n)| Entry::file(*r, n)).collect();
            entries.push(Entry::last(None));
            Node { entries }
        };
        let kind_of = IndexKind::directory(self.layout.cluster_bytes);
        let block = entry::encode_block(&children(ROOT), 0, 1, INDEX_BLOCK_BYTES);
        let mut block = block.ok_or_else(|| Error::invalid(Layer::Ntfs, "the root index does not fit"))?;
        let fixed = apply_fixups(&mut block);
        debug_assert!(fixed, "encode_block makes the array");
        self.fill(root_index, &block)?;
        let mut files = files;
        let directory = |number, name, security_id, attributes| File {
            number,
            name,
            parent: ROOT,
            flags: DIRECTORY,
            name_flags: NAME_DIRECTORY,
            security_id,
            attributes,
        };
        let root = entry::encode_root(kind_of, &Node { entries: vec![Entry::last(Some(0))] });
        files.push(directory(
            ROOT,
            ".",
            security::USER_ID,
            vec![
                Attribute::resident(kind::INDEX_ROOT, "$I30", root),
                Attribute::stream(kind::INDEX_ALLOCATION, "$I30", root_index.clone()),
                Attribute::resident(kind::BITMAP, "$I30", vec![1, 0, 0, 0, 0, 0, 0, 0]),
            ],
        ));
        let extend =
            Attribute::resident(kind::INDEX_ROOT, "$I30", entry::encode_root(kind_of, &children(11)));
        files.push(directory(11, "$Extend", security::SYSTEM_ID, vec![extend]));
        for number in 12..16 {
            let empty = Attribute::resident(kind::DATA, "", Vec::new());
            let file =
                File { flags: 0, name_flags: 0, ..directory(number, "", security::SYSTEM_ID, vec![empty]) };
            files.push(file);
        }
        for number in 0..RECORDS {
            let sequence = if number >= 16 { 1 } else { number.max(1) as u16 };
            let Some(file) = files.iter_mut().find(|f| f.number == number) else {
                self.push_record(Header::new(number, sequence, 0), &[])?;
                continue;
            };
            let mut attributes = vec![self.standard_information(file)];
            if let Some((_, _, name)) = names.iter().find(|(n, _, _)| *n == number) {
                attributes.push(Attribute::resident(kind::FILE_NAME, "", name.encode()));
            }
            attributes.append(&mut file.attributes);
            self.push_record(Header::new(number, sequence, IN_USE | file.flags), &attributes)?;
        }
        Ok(())
    }

    fn push_record(&mut self, header: Header, attributes: &[Attribute]) -> Result<()> {
        let number = header.number;
        let mut attributes = attributes.to_vec();
        attributes.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        let record = record::build(header, &attributes, self.layout.record_bytes as usize)
            .ok_or_else(|| Error::invalid(Layer::Ntfs, format!("system record {number} does not fit")))?;
        self.records.push(record);
        Ok(())
    }

    fn standard_information(&self, file: &File) -> Attribute {
        let mut value = vec![0u8; 0x48];
        let time = self.spec.created.0.to_le_bytes();
        let attributes =
            HIDDEN_SYSTEM | if file.name_flags & NAME_VIEW_INDEX != 0 { NAME_VIEW_INDEX } else { 0 };
        put_all(
            &mut value,
            &[
                (0x00, &time),
                (0x08, &time),
                (0x10, &time),
                (0x18, &time),
                (0x20, &attributes.to_le_bytes()),
                (0x34, &file.security_id.to_le_bytes()),
            ],
        );
        Attribute::resident(kind::STANDARD_INFORMATION, "", value)
    }
}

#[cfg(test)]
mod tests;
