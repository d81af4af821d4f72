//! A file with all its attributes, over however many records, in memory.
//!
//! `store` lays the attributes out anew: in the base record when they fit, or over extension records with an
//! $ATTRIBUTE_LIST. Instance numbers of attributes that stay in their record stay the same.

use super::alloc::stream_of;
use super::attribute::{Attribute, Body, Stream, kind};
use super::core::{Core, damaged};
use super::record::{self, Header, IN_USE};
use super::runs::{self, Run};
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_ATTRIBUTE_LIST_BYTES;
use vmrescue_base::text::utf16le_units;

/// The number in a file reference.
pub(crate) const RECORD_MASK: u64 = 0xFFFF_FFFF_FFFF;
/// Room that a base record keeps for its attribute list.
const LIST_ROOM: usize = 0x118;
/// Most bytes of an attribute list inside the record.
const LIST_RESIDENT: usize = LIST_ROOM - 0x18;
/// Least room for a segment that is worth to begin: header, name and some pairs.
const SEGMENT_ROOM: usize = 0x80;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) header: Header,
    /// All attributes but the list, in the order of a record.
    pub(crate) attributes: Vec<Attribute>,
    /// Extension records in use.
    extensions: Vec<u64>,
    /// Clusters of the attribute list.
    list: Vec<Run>,
    /// The tag of a reparse point that lies in clusters.
    pub(crate) outer_tag: Option<u32>,
}

/// A piece of an attribute that goes into one record.
struct Piece {
    attribute: usize,
    lowest: u64,
    part: Vec<Run>,
    pairs: Vec<u8>,
    length: usize,
}

struct ListEntry {
    kind: u32,
    lowest: u64,
    reference: u64,
    id: u16,
}

impl File {
    /// A new file in a record that was just taken.
    pub(crate) fn new(number: u64, sequence: u16, flags: u16, attributes: Vec<Attribute>) -> File {
        File {
            header: Header::new(number, sequence, IN_USE | flags),
            attributes,
            extensions: Vec::new(),
            list: Vec::new(),
            outer_tag: None,
        }
    }

    /// Reads the file behind a reference and compares the sequence number.
    pub(crate) fn open(core: &mut Core, reference: u64) -> Result<File> {
        let file = File::load(core, reference & RECORD_MASK)?;
        if u64::from(file.header.sequence) != reference >> 48 {
            return Err(Error::not_found(Layer::Ntfs, "the file reference is stale")
                .expected(format!("sequence {}", file.header.sequence))
                .found(reference >> 48));
        }
        Ok(file)
    }

    /// Reads a file by its record number.
    ///
    /// # Errors
    /// `NotFound` when the record is free; damage.
    pub(crate) fn load(core: &mut Core, number: u64) -> Result<File> {
        let bytes = core.record(number)?;
        let (header, raw) = record::decode(&bytes, number)?;
        if header.flags & IN_USE == 0 || header.base != 0 {
            return Err(Error::not_found(Layer::Ntfs, format!("file record {number:#x} holds no file")));
        }
        let mut file = File {
            header,
            attributes: Vec::new(),
            extensions: Vec::new(),
            list: Vec::new(),
            outer_tag: None,
        };
        let mut parts = Vec::new();
        let clusters = core.geometry.clusters;
        for attribute in raw {
            parts.push(Attribute::decode(attribute, number, clusters)?);
        }
        if let Some(place) = parts.iter().position(|(a, _)| a.kind == kind::ATTRIBUTE_LIST) {
            let (list, _) = parts.remove(place);
            let value = match list.body {
                Body::Resident(value) => value,
                Body::Runs(stream) => {
                    file.list.clone_from(&stream.runs);
                    core.read_stream(&stream, MAX_ATTRIBUTE_LIST_BYTES)?
                }
            };
            file.load_extensions(core, &value, &mut parts)?;
        }
        file.join(parts)?;
        if let Some(place) = file.find(kind::REPARSE_POINT, "")
            && let Body::Runs(stream) = &file.attributes[place].body
        {
            file.outer_tag = u32_at(&core.read_at_stream(stream, 0, 4)?, 0);
        }
        Ok(file)
    }

    fn load_extensions(
        &mut self,
        core: &mut Core,
        list: &[u8],
        parts: &mut Vec<(Attribute, u64)>,
    ) -> Result<()> {
        let entries =
            parse_list(list).ok_or_else(|| damaged("an attribute list that does not hold its entries"))?;
        for entry in &entries {
            let number = entry.reference & RECORD_MASK;
            if number == self.header.number || self.extensions.contains(&number) {
                continue;
            }
            let bytes = core.record(number)?;
            let (header, raw) = record::decode(&bytes, number)?;
            if header.base != self.header.reference() || header.flags & IN_USE == 0 {
                return Err(damaged(format!("record {number:#x} is not an extension of its base record")));
            }
            for attribute in raw {
                parts.push(Attribute::decode(attribute, number, core.geometry.clusters)?);
            }
            self.extensions.push(number);
        }
        let listed = |(a, lowest): &(Attribute, u64)| {
            entries.iter().any(|e| {
                e.kind == a.kind && e.lowest == *lowest && e.id == a.id && e.reference & RECORD_MASK == a.home
            })
        };
        if entries.len() != parts.len() || !parts.iter().all(listed) {
            return Err(damaged(format!(
                "the attribute list of record {:#x} is not its attributes",
                self.header.number
            )));
        }
        Ok(())
    }

    /// Joins the segments of each attribute.
    fn join(&mut self, mut parts: Vec<(Attribute, u64)>) -> Result<()> {
        parts.sort_by(|(a, x), (b, y)| (a.kind, &a.name, x).cmp(&(b.kind, &b.name, y)));
        for (attribute, lowest) in parts {
            if lowest == 0 {
                self.attributes.push(attribute);
                continue;
            }
            let (Some(Attribute { kind, name, body: Body::Runs(whole), .. }), Body::Runs(more)) =
                (self.attributes.last_mut(), attribute.body)
            else {
                return Err(damaged("a segment without its beginning"));
            };
            if *kind != attribute.kind || *name != attribute.name || runs::clusters(&whole.runs) != lowest {
                return Err(damaged("segments of an attribute do not follow each other"));
            }
            more.runs.into_iter().for_each(|run| runs::push(&mut whole.runs, run));
        }
        Ok(())
    }

    /// The first attribute of this kind and name.
    pub(crate) fn find(&self, kind: u32, name: &str) -> Option<usize> {
        self.attributes.iter().position(|a| a.kind == kind && a.name.iter().copied().eq(name.encode_utf16()))
    }

    /// The value of a resident attribute.
    pub(crate) fn value(&self, kind: u32, name: &str) -> Option<&[u8]> {
        self.find(kind, name).and_then(|i| self.attributes[i].value())
    }

    /// The runs of a non-resident attribute that must be there.
    pub(crate) fn stream_mut(&mut self, kind: u32, name: &str) -> Result<&mut Stream> {
        match self.find(kind, name).map(|i| &mut self.attributes[i].body) {
            Some(Body::Runs(stream)) => Ok(stream),
            _ => Err(damaged(format!(
                "attribute {kind:#x} of record {:#x} is not what it must be",
                self.header.number
            ))),
        }
    }

    /// Replaces an attribute's body, or adds the attribute.
    pub(crate) fn put(&mut self, attribute: Attribute) {
        let same = |a: &&mut Attribute| a.kind == attribute.kind && a.name == attribute.name;
        match self.attributes.iter_mut().find(same) {
            Some(old) => old.body = attribute.body,
            None => self.attributes.push(attribute),
        }
    }

    /// Bytes that the attributes take when all stand in one record.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.attributes.iter().map(|a| a.encode(0).len()).sum()
    }

    /// Gives back all clusters and records of the file. It is gone then.
    pub(crate) fn destroy(self, core: &mut Core) -> Result<()> {
        for stream in self.attributes.iter().filter_map(stream_of) {
            core.release(&stream.runs);
        }
        core.release(&self.list);
        for number in &self.extensions {
            core.free_record(*number)?;
        }
        core.free_record(self.header.number)
    }

    /// Writes the file to its records.
    ///
    /// # Errors
    /// `NoSpace` when an extension record or a cluster for the list is needed and there is none.
    pub(crate) fn store(&mut self, core: &mut Core) -> Result<()> {
        // Names collate as in directories; readers stop at the first name behind the one that they look for.
        self.attributes.sort_by_cached_key(|a| (a.kind, core.upper(&a.name)));
        self.header.links = self.attributes.iter().filter(|a| a.kind == kind::FILE_NAME).count() as u16;
        let record_bytes = core.geometry.record_bytes;
        let whole = self.encoded_bytes();
        let old_list = std::mem::take(&mut self.list);
        if whole <= record::room(record_bytes) {
            for number in std::mem::take(&mut self.extensions) {
                core.free_record(number)?;
            }
            core.release(&old_list);
            let pieces: Vec<Piece> = (0..self.attributes.len()).map(|i| self.whole_piece(i)).collect();
            let mut header = self.header.clone();
            let encoded = self.encode_pieces(&pieces, &mut header, &mut Vec::new())?;
            self.header = header;
            return self.write_base(core, &encoded);
        }
        self.store_over_records(core, &old_list)
    }

    fn write_base(&self, core: &mut Core, encoded: &[Vec<u8>]) -> Result<()> {
        let bytes = record::encode(&self.header, encoded, core.geometry.record_bytes)
            .ok_or_else(|| damaged("attributes that do not fit their record"))?;
        core.put_record(self.header.number, bytes)
    }

    fn whole_piece(&self, index: usize) -> Piece {
        let attribute = &self.attributes[index];
        let (part, pairs) = match &attribute.body {
            Body::Runs(stream) => (stream.runs.clone(), runs::encode(&stream.runs)),
            Body::Resident(_) => (Vec::new(), Vec::new()),
        };
        Piece { attribute: index, lowest: 0, part, pairs, length: attribute.encode(0).len() }
    }

    /// Encodes the pieces of one record, gives instance numbers and notes the list entries.
    fn encode_pieces(
        &mut self,
        pieces: &[Piece],
        header: &mut Header,
        list: &mut Vec<u8>,
    ) -> Result<Vec<Vec<u8>>> {
        let mut used: Vec<u16> = Vec::new();
        let stays = |a: &Attribute, p: &Piece| p.lowest == 0 && a.home == header.number;
        for piece in pieces {
            let attribute = &self.attributes[piece.attribute];
            if stays(attribute, piece) {
                used.push(attribute.id);
            }
        }
        let distinct = {
            let mut ids = used.clone();
            ids.sort_unstable();
            ids.dedup();
            ids.len() == used.len()
        };
        let renumber = !distinct || header.next_id > u16::MAX - 64;
        header.next_id = if renumber { 0 } else { used.iter().fold(header.next_id, |n, id| n.max(id + 1)) };
        let mut out = Vec::new();
        for piece in pieces {
            let attribute = &mut self.attributes[piece.attribute];
            let keep = !renumber && piece.lowest == 0 && attribute.home == header.number;
            let id = if keep { attribute.id } else { header.next_id };
            if !keep {
                header.next_id += 1;
            }
            if piece.lowest == 0 {
                attribute.home = header.number;
                attribute.id = id;
            }
            let bytes = match &attribute.body {
                Body::Resident(_) => attribute.encode(id),
                Body::Runs(_) => attribute.encode_segment(id, piece.lowest, &piece.part, &piece.pairs),
            };
            push_list_entry(list, attribute, piece.lowest, header.reference(), id);
            out.push(bytes);
        }
        Ok(out)
    }

    fn store_over_records(&mut self, core: &mut Core, old_list: &[Run]) -> Result<()> {
        let mut groups = self.divide(core.geometry.record_bytes)?;
        let for_mft = self.header.number == 0;
        while self.extensions.len() > groups.len() - 1 {
            let number = self.extensions.pop().unwrap_or(0);
            core.free_record(number)?;
        }
        let mut headers = vec![self.header.clone()];
        for index in 0..groups.len() - 1 {
            let header = if let Some(number) = self.extensions.get(index) {
                let bytes = core.record(*number)?;
                record::decode(&bytes, *number)?.0
            } else {
                let (number, sequence) = core.allocate_record(for_mft)?;
                self.extensions.push(number);
                let mut header = Header::new(number, sequence, IN_USE);
                header.base = self.header.reference();
                header
            };
            headers.push(header);
        }
        let mut lists = Vec::new();
        let mut base = Vec::new();
        for (index, (pieces, header)) in groups.iter_mut().zip(&mut headers).enumerate() {
            pieces.sort_by_key(|p| (p.attribute, p.lowest));
            let mut list = Vec::new();
            let encoded = self.encode_pieces(pieces, header, &mut list)?;
            lists.extend(split_list(&list));
            if index == 0 {
                base = encoded;
                continue;
            }
            let bytes = record::encode(header, &encoded, core.geometry.record_bytes)
                .ok_or_else(|| damaged("attributes that do not fit their extension record"))?;
            core.put_record(header.number, bytes)?;
        }
        self.header = headers.swap_remove(0);
        lists.sort_by_cached_key(|entry| list_order(core, entry));
        let list = self.list_attribute(core, &lists.concat(), old_list)?;
        base.push(list.encode(self.header.next_id));
        self.header.next_id += 1;
        base.sort_by_key(|a| u32_at(a, 0));
        self.write_base(core, &base)
    }

    /// The $ATTRIBUTE_LIST, outside the record when it is long. It stays in the clusters that it has: a full volume can
    /// still be changed where nothing grows.
    fn list_attribute(&mut self, core: &mut Core, value: &[u8], old: &[Run]) -> Result<Attribute> {
        if value.len() <= LIST_RESIDENT {
            core.release(old);
            return Ok(Attribute::resident(kind::ATTRIBUTE_LIST, "", value.to_vec()));
        }
        let cluster = core.geometry.cluster_bytes;
        let (need, have) = ((value.len() as u64).div_ceil(cluster), runs::clusters(old));
        core.release(&runs::slice(old, need.min(have), have.saturating_sub(need)));
        let kept = runs::slice(old, 0, need.min(have));
        let bytes = need.min(have) * cluster;
        let mut stream =
            Stream { runs: kept, allocated_bytes: bytes, total_allocated_bytes: bytes, ..Stream::default() };
        core.extend(&mut stream, value.len() as u64)?;
        stream.size_bytes = value.len() as u64;
        stream.initialized_bytes = stream.size_bytes;
        core.overwrite(&stream, value)?;
        self.list.clone_from(&stream.runs);
        Ok(Attribute::stream(kind::ATTRIBUTE_LIST, "", stream))
    }

    /// Which pieces go into which record; the base record comes first.
    fn divide(&self, record_bytes: usize) -> Result<Vec<Vec<Piece>>> {
        let room = record::room(record_bytes);
        let mut groups = vec![Vec::new()];
        let mut left = room - LIST_ROOM;
        // $STANDARD_INFORMATION stands in the base record; so do the beginnings of $MFT's own data and the root of a
        // directory, without which nothing can be read.
        let first = |a: &Attribute| match a.kind {
            kind::STANDARD_INFORMATION => true,
            kind::DATA => self.header.number == 0,
            kind::INDEX_ROOT => a.encode(0).len() < room / 2,
            _ => false,
        };
        let mut order: Vec<usize> = (0..self.attributes.len()).collect();
        order.sort_by_key(|i| (!first(&self.attributes[*i]), *i));
        for index in order {
            let attribute = &self.attributes[index];
            let whole = self.whole_piece(index);
            if whole.length <= left {
                left -= whole.length;
                push_piece(&mut groups, whole);
                continue;
            }
            let runs = match &attribute.body {
                Body::Runs(stream) => &stream.runs[..],
                Body::Resident(_) => &[],
            };
            if runs.is_empty() {
                if whole.length > room {
                    return Err(Error::no_space(
                        Layer::Ntfs,
                        "an attribute that is larger than a file record",
                    ));
                }
                groups.push(vec![]);
                left = room - whole.length;
                push_piece(&mut groups, whole);
                continue;
            }
            let (mut rest, mut lowest) = (runs, 0);
            while !rest.is_empty() {
                if left < SEGMENT_ROOM + 2 * attribute.name.len() {
                    groups.push(vec![]);
                    left = room;
                }
                let header = attribute.header_bytes(lowest == 0);
                let (pairs, held) = runs::encode_some(rest, (left & !7) - header);
                let (part, more) = rest.split_at(held);
                let length = attribute.encode_segment(0, lowest, part, &pairs).len();
                push_piece(
                    &mut groups,
                    Piece { attribute: index, lowest, part: part.to_vec(), pairs, length },
                );
                left = left.saturating_sub(length);
                lowest += runs::clusters(part);
                rest = more;
            }
        }
        Ok(groups)
    }
}

fn push_piece(groups: &mut [Vec<Piece>], piece: Piece) {
    if let Some(last) = groups.last_mut() {
        last.push(piece);
    }
}

fn push_list_entry(list: &mut Vec<u8>, attribute: &Attribute, lowest: u64, reference: u64, id: u16) {
    let start = list.len();
    let length = super::attribute::align8(0x1A + 2 * attribute.name.len());
    list.extend_from_slice(&attribute.kind.to_le_bytes());
    list.extend_from_slice(&(length as u16).to_le_bytes());
    list.extend_from_slice(&[attribute.name.len() as u8, 0x1A]);
    list.extend_from_slice(&lowest.to_le_bytes());
    list.extend_from_slice(&reference.to_le_bytes());
    list.extend_from_slice(&id.to_le_bytes());
    attribute.name.iter().for_each(|u| list.extend_from_slice(&u.to_le_bytes()));
    list.resize(start + length, 0);
}

fn split_list(list: &[u8]) -> Vec<Vec<u8>> {
    let (mut at, mut out) = (0, Vec::new());
    while let Some(entry) = u16_at(list, at + 4).and_then(|length| slice_at(list, at, usize::from(length))) {
        at += entry.len();
        out.push(entry.to_vec());
    }
    out
}

fn list_order(core: &Core, entry: &[u8]) -> (u32, Vec<u16>, u64) {
    let name = entry.get(0x1A..0x1A + 2 * usize::from(entry[6])).unwrap_or(&[]);
    (u32_at(entry, 0).unwrap_or(0), core.upper(&utf16le_units(name)), u64_at(entry, 8).unwrap_or(0))
}

fn parse_list(list: &[u8]) -> Option<Vec<ListEntry>> {
    let (mut at, mut out) = (0, Vec::new());
    while at < list.len() {
        let length = usize::from(u16_at(list, at + 4)?);
        let entry = slice_at(list, at, length).filter(|e| e.len() >= 0x1A)?;
        out.push(ListEntry {
            kind: u32_at(entry, 0)?,
            lowest: u64_at(entry, 8)?,
            reference: u64_at(entry, 0x10)?,
            id: u16_at(entry, 0x18)?,
        });
        at += length;
    }
    Some(out)
}
