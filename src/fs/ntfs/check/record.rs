//! One file record: header, attributes, runs, names. What it says of itself goes into [`Part`], for comparing with the rest.

use super::Part;
use super::clusters::Clusters;
use super::codes::*;
use super::notes::{Notes, Remedy};
use crate::ntfs::index::{DOS, FileName};
use crate::ntfs::node::kind;
use crate::ntfs::record::{Attribute, Body, DIRECTORY as DIRECTORY_FLAG, Mapped, Record, number_of};
use crate::ntfs::volume::Volume;
use crate::ntfs::write::runs;
use vmrescue_base::bytes::{u16_at, u32_at, u64_at};
use vmrescue_base::text::utf16le_lossy;

/// Namespace of long names that have a DOS name beside them.
const WIN32: u8 = 1;
/// $OBJECT_ID.
const OBJECT_ID: u32 = 0x40;
/// $BadClus, whose stream $Bad is one hole.
const BAD_CLUSTERS_FILE: u64 = 8;
/// Records below this are reserved for the file system; some are in use without a name.
pub(super) const RESERVED: u64 = 24;
/// Most bytes of the unused end of a record's own fields.
const HEADER_BYTES: usize = 0x2A;

/// What is known of a record.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fact {
    pub(super) sequence: u16,
    /// Count of names in the header.
    pub(super) links: u16,
    /// Names that there are.
    pub(super) names: u16,
    pub(super) flags: u8,
    /// Id in $Secure, 0 for none.
    pub(super) security: u32,
}

impl Fact {
    /// In use.
    pub(super) const USED: u8 = 1;
    /// A directory.
    pub(super) const DIRECTORY: u8 = 2;
    /// An extension of another record.
    pub(super) const EXTENSION: u8 = 4;
    /// Cannot be read.
    pub(super) const DAMAGED: u8 = 8;
    /// Has an attribute list.
    pub(super) const LISTED: u8 = 16;

    pub(super) fn is(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A number for a name of a file in a directory, the same for both sides: the record and the index.
pub(super) fn name_hash(reference: u64, parent: u64, namespace: u8, name: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
    let mut hash = mix(mix(mix(0x9E37_79B9_7F4A_7C15, reference), parent), u64::from(namespace));
    for chunk in name.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash, u64::from_le_bytes(word));
    }
    hash ^ hash >> 29
}

/// Looks at record `number`, whose fixups are out.
pub(super) fn look(volume: &Volume, clusters: &Clusters, number: u64, bytes: &[u8], part: &mut Part) -> Fact {
    let record = Record::of_fixed(bytes);
    let mut fact = Fact { sequence: record.sequence(), links: record.links(), ..Fact::default() };
    if !record.in_use() {
        return fact;
    }
    fact.flags = Fact::USED | if record.flags() & DIRECTORY_FLAG != 0 { Fact::DIRECTORY } else { 0 };
    let mut one = One { volume, clusters, number, at: volume.record_offset(number), part, record };
    one.header(bytes);
    one.attributes(&mut fact);
    fact
}

struct One<'a> {
    volume: &'a Volume,
    clusters: &'a Clusters,
    number: u64,
    at: Option<u64>,
    part: &'a mut Part,
    record: Record<'a>,
}

impl One<'_> {
    fn notes(&mut self) -> &mut Notes {
        &mut self.part.notes
    }

    fn say(&mut self, code: Code, what: &str) {
        let (at, detail) = (self.at, format!("record {:#x}: {what}", self.number));
        self.notes().note(code, at, detail);
    }

    fn header(&mut self, bytes: &[u8]) {
        let (first, used) =
            (usize::from(u16_at(bytes, 0x14).unwrap_or(0)), u32_at(bytes, 0x18).unwrap_or(0) as usize);
        let allocated = u32_at(bytes, 0x1C).unwrap_or(0) as usize;
        let fields = first >= HEADER_BYTES
            && first.is_multiple_of(8)
            && first + 8 <= used
            && used <= allocated
            && used.is_multiple_of(8)
            && allocated == bytes.len();
        if !fields {
            let what = format!(
                "attributes from {first:#x}, {used:#x} of {allocated:#x} bytes in use, of {:#x}",
                bytes.len()
            );
            self.say(RECORD_HEADER, &what);
        }
        if self.record.sequence() == 0 {
            self.say(RECORD_SEQUENCE, "in use with sequence number 0");
        }
        // Before NTFS 3.1 the update sequence stood where the number is now.
        let own = u32_at(bytes, 0x2C).unwrap_or(0);
        if u16_at(bytes, 4).unwrap_or(0) >= 0x30 && u64::from(own) != self.number & 0xFFFF_FFFF {
            let (at, detail) = (self.at, format!("record {:#x} says that it is {own:#x}", self.number));
            let number = self.number;
            self.notes().mend(RECORD_NUMBER, at, detail, Remedy::Header(number));
        }
    }

    fn attributes(&mut self, fact: &mut Fact) {
        let base = self.record.base();
        let own = self.number | u64::from(self.record.sequence()) << 48;
        let reference = if base == 0 { own } else { base };
        let mut ids: Vec<u16> = Vec::new();
        let (mut before, mut has): (Option<(u32, &[u8])>, Has) = (None, Has::default());
        let mut pairs: Vec<(u64, i32)> = Vec::new();
        let mut all: Vec<Attribute<'_>> = Vec::new();
        for attribute in self.record.attributes() {
            match attribute {
                Ok(attribute) => all.push(attribute),
                Err(error) => {
                    fact.flags |= Fact::DAMAGED;
                    self.say(ATTRIBUTE, &error.to_string());
                    break;
                }
            }
        }
        has.list = all.iter().any(|a| a.kind == kind::ATTRIBUTE_LIST);
        for attribute in &all {
            if ids.contains(&attribute.id) {
                self.say(
                    ATTRIBUTE_INSTANCE,
                    &format!("two attributes with instance number {}", attribute.id),
                );
            }
            ids.push(attribute.id);
            if let Some((kind, name)) = before {
                let upper = |n: &[u8]| self.upper(n);
                if (kind, upper(name)) > (attribute.kind, upper(attribute.name)) {
                    self.say(ATTRIBUTE_ORDER, &format!("attribute {:#x} behind {kind:#x}", attribute.kind));
                }
                let single = attribute.kind != kind::FILE_NAME && base == 0 && !has.list;
                if single && (kind, name) == (attribute.kind, attribute.name) {
                    self.say(ATTRIBUTE_TWICE, &format!("attribute {kind:#x} twice"));
                }
            }
            before = Some((attribute.kind, attribute.name));
            self.attribute(attribute, reference, base == 0 && !has.list, fact, &mut has, &mut pairs);
        }
        let next = u16_at(self.record.bytes(), 0x28).unwrap_or(0);
        // The number wraps on records that were changed very often.
        if ids.iter().any(|id| *id >= next) && next != 0 {
            self.say(ATTRIBUTE_INSTANCE, &format!("an instance number not below the next one, {next}"));
        }
        if base != 0 {
            fact.flags |= Fact::EXTENSION;
            self.part.extensions.push((self.number, base));
            if fact.names > 0 {
                self.part.more_names.push((base, fact.names));
            }
            return;
        }
        self.whole(&has, fact, &pairs);
    }

    /// What a file must have as a whole; files with an attribute list are looked at in `list`.
    fn whole(&mut self, has: &Has, fact: &mut Fact, pairs: &[(u64, i32)]) {
        if has.list {
            fact.flags |= Fact::LISTED;
            self.part.listed.push(self.number);
            if fact.is(Fact::DIRECTORY) {
                self.part.trees.push(self.number);
            }
            return;
        }
        if fact.is(Fact::DAMAGED) {
            return;
        }
        let unused = self.number < RESERVED && self.number > 11;
        if !has.information && !unused {
            self.say(STANDARD_INFORMATION, "no $STANDARD_INFORMATION");
        }
        if fact.names == 0 && self.number >= RESERVED {
            self.say(WITHOUT_NAME, "no name");
        }
        if fact.is(Fact::DIRECTORY) != has.index {
            let what =
                if has.index { "not marked as a directory and has $I30" } else { "a directory without $I30" };
            self.say(DIRECTORY, what);
        }
        if has.index {
            self.part.trees.push(self.number);
        }
        name_pairs(pairs, self.number, self.at, self.notes());
    }

    fn upper(&self, name: &[u8]) -> Vec<u16> {
        if name.is_empty() {
            return Vec::new();
        }
        vmrescue_base::text::utf16le_units(name)
            .into_iter()
            .map(|unit| self.volume.upcase().unit(unit))
            .collect()
    }

    fn attribute(
        &mut self,
        attribute: &Attribute<'_>,
        reference: u64,
        alone: bool,
        fact: &mut Fact,
        has: &mut Has,
        pairs: &mut Vec<(u64, i32)>,
    ) {
        let value = match attribute.body {
            Body::Resident(value) => {
                if attribute.kind == kind::INDEX_ALLOCATION {
                    self.say(ATTRIBUTE_FORM, "$INDEX_ALLOCATION in the record");
                }
                value
            }
            Body::NonResident(mapped) => {
                let resident = matches!(
                    attribute.kind,
                    kind::STANDARD_INFORMATION
                        | kind::FILE_NAME
                        | OBJECT_ID
                        | kind::VOLUME_NAME
                        | kind::VOLUME_INFORMATION
                        | kind::INDEX_ROOT
                );
                if resident {
                    self.say(ATTRIBUTE_FORM, &format!("attribute {:#x} in clusters", attribute.kind));
                }
                if attribute.kind == kind::REPARSE_POINT {
                    self.part.far_reparse.push(number_of(reference));
                }
                return self.runs(attribute, &mapped, alone);
            }
        };
        match attribute.kind {
            kind::STANDARD_INFORMATION => {
                has.information = true;
                if !matches!(value.len(), 0x30 | 0x48) {
                    self.say(
                        STANDARD_INFORMATION,
                        &format!("$STANDARD_INFORMATION of {:#x} bytes", value.len()),
                    );
                }
                fact.security = u32_at(value, 0x34).unwrap_or(0);
            }
            kind::FILE_NAME => self.name(value, reference, fact, pairs),
            kind::INDEX_ROOT if attribute.name == crate::ntfs::directory::I30 => has.index = true,
            kind::REPARSE_POINT => {
                if let Some(tag) = u32_at(value, 0) {
                    self.part.reparse.push((tag, reference));
                }
            }
            OBJECT_ID => match value.get(..16).and_then(|id| <[u8; 16]>::try_from(id).ok()) {
                Some(id) => {
                    let mut data = value.get(16..).unwrap_or_default().to_vec();
                    data.resize(48, 0);
                    self.part.object_ids.push((id, reference, data));
                }
                None => self.say(ATTRIBUTE, "$OBJECT_ID of less than 16 bytes"),
            },
            _ => {}
        }
    }

    fn name(&mut self, value: &[u8], reference: u64, fact: &mut Fact, pairs: &mut Vec<(u64, i32)>) {
        let Some(name) = name_of(value) else {
            return self.say(FILE_NAME, "a $FILE_NAME that does not hold its own fields");
        };
        fact.names = fact.names.saturating_add(1);
        let (parent, namespace) = (name.parent(), name.namespace());
        self.part
            .names
            .push((name_hash(reference, parent, namespace, name.name_bytes()), number_of(reference)));
        pair(pairs, parent, namespace);
        if fact.is(Fact::DIRECTORY) {
            self.part.parents.push((self.number, number_of(parent)));
        }
        if name.is_directory() != fact.is(Fact::DIRECTORY)
            && self.record.base() == 0
            && u64_at(value, 0x28).is_some()
        {
            let text = utf16le_lossy(name.name_bytes());
            // The copy of the attributes in a name is only refreshed now and then, but a directory never becomes a file.
            if self.number >= RESERVED {
                self.say(FILE_NAME, &format!("the name {text:?} says otherwise whether it is a directory"));
            }
        }
    }

    fn runs(&mut self, attribute: &Attribute<'_>, mapped: &Mapped<'_>, alone: bool) {
        let what = |text: &str| {
            format!("attribute {:#x} {:?}: {text}", attribute.kind, utf16le_lossy(attribute.name))
        };
        let list = match runs::decode(mapped.pairs, self.volume.boot().clusters()) {
            Ok(list) => list,
            Err(error) => return self.say(RUN_LIST, &what(&error.to_string())),
        };
        let count = runs::clusters(&list);
        if mapped.highest_vcn.wrapping_add(1) != mapped.lowest_vcn.wrapping_add(count) {
            let text = format!("last VCN {:#x} is not the end of the runs", mapped.highest_vcn);
            self.say(RUN_LIST, &what(&text));
        }
        let mut real = 0;
        for run in &list {
            let Some(lcn) = run.lcn else { continue };
            real += run.count;
            if let Some(shared) = self.clusters.take(lcn, run.count) {
                self.part.shared.push((shared, self.number));
            }
        }
        let bad = self.number == BAD_CLUSTERS_FILE;
        if bad && real > 0 && !attribute.name.is_empty() {
            self.say(BAD_CLUSTERS, &format!("{real} bad clusters"));
        }
        if real != count && attribute.flags & 0x80FF == 0 && !bad {
            self.say(HOLE, &what("a hole, and neither sparse nor compressed"));
        }
        if alone
            && let Some(text) =
                sizes(mapped, attribute.flags, count, real, u64::from(self.volume.boot().cluster_bytes), bad)
        {
            self.say(RUN_SIZES, &what(&text));
        }
        if alone && mapped.lowest_vcn != 0 {
            self.say(LIST_SEGMENTS, &what("a later segment in a file without attribute list"));
        }
    }
}

/// What was seen in a record.
#[derive(Default)]
struct Has {
    information: bool,
    list: bool,
    index: bool,
}

/// A $FILE_NAME with a name that can be.
pub(super) fn name_of(value: &[u8]) -> Option<FileName<'_>> {
    FileName::parse(value).filter(|name| {
        name.namespace() <= 3
            && !name.name_bytes().is_empty()
            && name.units().all(|unit| unit != 0 && unit != u16::from(b'/'))
    })
}

/// Counts a name: Win32 names up, DOS names down.
pub(super) fn pair(pairs: &mut Vec<(u64, i32)>, parent: u64, namespace: u8) {
    let by = match namespace {
        WIN32 => 1,
        DOS => -1,
        _ => return,
    };
    match pairs.iter_mut().find(|(known, _)| *known == parent) {
        Some((_, count)) => *count += by,
        None => pairs.push((parent, by)),
    }
}

/// Says where Win32 and DOS names do not stand in pairs.
pub(super) fn name_pairs(pairs: &[(u64, i32)], number: u64, at: Option<u64>, notes: &mut Notes) {
    for (parent, count) in pairs.iter().filter(|(_, count)| *count != 0) {
        let more = if *count > 0 { "Win32" } else { "DOS" };
        let parent = number_of(*parent);
        notes.note(
            NAME_PAIR,
            at,
            format!("record {number:#x}: a {more} name in directory {parent:#x} without its partner"),
        );
    }
}

/// What contradicts itself in the lengths of an attribute of `count` clusters, `real` of them not holes.
pub(super) fn sizes(
    mapped: &Mapped<'_>,
    flags: u16,
    count: u64,
    real: u64,
    cluster_bytes: u64,
    bad: bool,
) -> Option<String> {
    let allocated = count.saturating_mul(cluster_bytes);
    if mapped.allocated != allocated {
        return Some(format!("{:#x} bytes allocated, the runs have {allocated:#x}", mapped.allocated));
    }
    if mapped.size > mapped.allocated || mapped.valid > mapped.size {
        return Some(format!(
            "{:#x} bytes initialized, {:#x} in size, {:#x} allocated",
            mapped.valid, mapped.size, mapped.allocated
        ));
    }
    let taken = real.saturating_mul(cluster_bytes);
    match mapped.total_allocated {
        Some(total) if total != taken && flags & 0x80FF != 0 && !bad => {
            Some(format!("{total:#x} bytes taken, the runs have {taken:#x}"))
        }
        _ => None,
    }
}
