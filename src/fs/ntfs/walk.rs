//! The walk over a whole volume: one linear pass over $MFT in large reads, the tree built in memory, then every name
//! with its path, in the order of $MFT or as a tree.
//!
//! Names, times and sizes are those of the records; the indexes of the directories are not read (the checker holds one
//! against the other). A file whose attributes are spread over several records is taken together by its attribute list.
//! In the order of $MFT a file is shown as soon as the way to its directory is known, which is at once for most: memory is needed for
//! directories only. A tree takes about 180 bytes a file. Below a directory with few directories under it the records are read singly.

use super::index::{self, DOS, FileName};
use super::node::{Attr, Value, kind};
use super::record::{Body, DIRECTORY, Record, number_of, sequence_of};
use super::volume::Volume;
use super::wof;
use crate::tag::kind_of;
use crate::walk::{Order, Visit, Walked};
use crate::{Attributes, FileSystem, NodeId, NodeKind, StreamInfo, Times};
use std::collections::HashSet;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Defect, Layer, Result, Severity};
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;
use vmrescue_base::text::{utf16le_bytes, utf16le_lossy};

/// Below a directory with at most this many directories under it, the records are read singly.
const FEW_DIRECTORIES: usize = 64;
/// And with at most this many names.
const FEW_NAMES: usize = 4096;
/// Most defects that are returned.
const MAX_DEFECTS: usize = 1000;
/// Largest reparse point ([MS-FSCC]: 16 KiB).
const MAX_REPARSE_BYTES: u64 = 16 << 10;
/// No place in a list.
const NONE: u32 = u32::MAX;

impl Volume {
    /// [`FileSystem::walk`] for NTFS.
    pub(super) fn walk_records(
        &self,
        from: NodeId,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<Vec<Defect>> {
        let start = number_of(from.0);
        self.node_of(from)?;
        let whole = start == number_of(self.root().0);
        let mut tree = Tree::new(start, whole);
        let few = !whole && tree.add_few(self, from)?;
        if !few {
            tree = Tree::new(start, whole);
            let at_once = if order == Order::Any { Some(&mut *visit) } else { None };
            tree.add_all(self, at_once)?;
        }
        match order {
            Order::Any => tree.show_rest(visit)?,
            Order::Tree => tree.show_tree(visit)?,
        }
        Ok(tree.defects)
    }
}

/// What is known of a file.
struct Facts {
    reference: u64,
    size_bytes: u64,
    allocated_bytes: u64,
    times: Times,
    attributes: u32,
    security: Option<u32>,
    reparse: Option<u32>,
    links: u16,
    directory: bool,
    /// A tree has entered it.
    seen: bool,
    /// Place of its named streams.
    streams: (u32, u32),
    /// Its first name: the one that leads to a directory.
    name: u32,
    way: Way,
}

/// A name of a file.
struct Name {
    file: u32,
    /// Place of the name in the text, and its length.
    at: u32,
    length: u16,
    /// The same for the short name; length 0 without one.
    short_length: u16,
    short_at: u32,
    parent: u64,
    times: Times,
    shown: bool,
}

/// How to get to a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Unknown,
    /// On the way that is being looked for.
    Open,
    /// Not below the start.
    Outside,
    /// Its path in the text of paths.
    Path {
        at: usize,
        length: usize,
        orphan: bool,
    },
}

/// The path that is being shown.
#[derive(Default)]
struct Shown {
    path: String,
    /// The directory whose path stands in front.
    home: Option<usize>,
    /// How names say that they are in it.
    parent: u64,
    /// Its length, with the backslash.
    prefix: usize,
    orphan: bool,
}

/// A value as both sources give it: records in place, and files with several records.
#[derive(Clone, Copy)]
enum Content<'a> {
    Resident(&'a [u8]),
    Clustered { size: u64, taken: u64 },
}

struct Tree {
    /// Record where the walk begins.
    start: u64,
    /// It is the root: names that nothing leads to are shown too.
    whole: bool,
    files: Vec<Facts>,
    /// Place in `files` of directories, by record number.
    places: Vec<u32>,
    names: Vec<Name>,
    text: String,
    streams: Vec<StreamInfo>,
    /// Paths of directories, see [`Way`].
    paths: String,
    shown: Shown,
    defects: Vec<Defect>,
    wof_stream: Vec<u8>,
}

impl Tree {
    fn new(start: u64, whole: bool) -> Tree {
        Tree {
            start,
            whole,
            files: Vec::new(),
            places: Vec::new(),
            names: Vec::new(),
            text: String::new(),
            streams: Vec::new(),
            paths: String::new(),
            shown: Shown::default(),
            defects: Vec::new(),
            wof_stream: utf16le_bytes(wof::STREAM),
        }
    }

    fn note(&mut self, at: Option<u64>, detail: String) {
        if self.defects.len() < MAX_DEFECTS {
            self.defects.push(Defect::new("walk-unread", Severity::Error, Layer::Ntfs, at, detail));
        }
    }

    /// All files of the volume; those that can be shown at once are shown and not kept.
    fn add_all(&mut self, volume: &Volume, mut visit: Option<&mut Visit<'_>>) -> Result<()> {
        let errors = volume.scan_raw(|number, bytes| {
            if bytes.get(..4) == Some(&[0; 4]) {
                return Ok(()); // never used
            }
            let record = match Record::parse(bytes) {
                Ok(record) => record,
                Err(e) => {
                    self.note(volume.record_offset(number), format!("file record {number:#x}: {e}"));
                    return Ok(());
                }
            };
            if !record.in_use() || record.base() != 0 {
                return Ok(());
            }
            let marks = self.marks();
            if !self.add_record(number, &record) {
                self.add_node(volume, number);
            }
            match &mut visit {
                Some(visit) => self.show_at_once(marks, *visit),
                None => Ok(()),
            }
        })?;
        for error in errors {
            self.note(error.offset(), error.to_string());
        }
        Ok(())
    }

    /// The files below a directory, when there are only few; false when there are many.
    fn add_few(&mut self, volume: &Volume, from: NodeId) -> Result<bool> {
        self.add_node(volume, number_of(from.0));
        let mut known = HashSet::from([number_of(from.0)]);
        let (mut pending, mut directories) = (vec![from], 0);
        while let Some(directory) = pending.pop() {
            directories += 1;
            // What cannot be read here is left to the linear pass, which does not need the indexes.
            let Ok(entries) = volume.read_dir(directory) else { return Ok(false) };
            if directories > FEW_DIRECTORIES || known.len() + entries.len() > FEW_NAMES {
                return Ok(false);
            }
            for entry in entries {
                let number = number_of(entry.id.0);
                if known.insert(number) {
                    self.add_node(volume, number);
                    if entry.kind == NodeKind::Directory {
                        pending.push(entry.id);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Where the next file begins in each list.
    fn marks(&self) -> [usize; 4] {
        [self.files.len(), self.names.len(), self.text.len(), self.streams.len()]
    }

    fn back_to(&mut self, marks: [usize; 4]) {
        self.files.truncate(marks[0]);
        self.names.truncate(marks[1]);
        self.text.truncate(marks[2]);
        self.streams.truncate(marks[3]);
    }

    /// Shows the names of the file that was just added, where the way to them is known.
    fn show_at_once(&mut self, marks: [usize; 4], visit: &mut Visit<'_>) -> Result<()> {
        let mut rest = false;
        for index in marks[1]..self.names.len() {
            let done = self.show_name(index, false, visit)?;
            self.names[index].shown = done;
            rest |= !done;
        }
        // Directories are kept: they are the way to others.
        if !rest && self.files.get(marks[0]).is_some_and(|file| !file.directory) {
            self.back_to(marks);
        }
        Ok(())
    }

    fn place(&self, number: u64) -> Option<usize> {
        let place = *self.places.get(usize::try_from(number).ok()?)?;
        (place != NONE).then_some(place as usize)
    }

    fn begin(&mut self, number: u64, sequence: u16, flags: u16) -> Facts {
        let directory = flags & DIRECTORY != 0;
        Facts {
            reference: number | u64::from(sequence) << 48,
            size_bytes: 0,
            allocated_bytes: 0,
            times: Times::default(),
            attributes: if directory { Attributes::DIRECTORY } else { 0 },
            security: None,
            reparse: None,
            links: 0,
            directory,
            seen: false,
            streams: (self.streams.len() as u32, 0), // fewer than 2^32: each takes 24 bytes of a record
            name: NONE,
            way: Way::Unknown,
        }
    }

    /// A file that one record holds; false when it has more than that, and then nothing was added.
    fn add_record(&mut self, number: u64, record: &Record<'_>) -> bool {
        let mut facts = self.begin(number, record.sequence(), record.flags());
        let marks = self.marks();
        for attribute in record.attributes() {
            let whole = match attribute {
                // The rest of a damaged record is not there; the checker says where.
                Err(_) => false,
                Ok(attribute) => match attribute.body {
                    Body::Resident(_) if attribute.kind == kind::ATTRIBUTE_LIST => false,
                    Body::Resident(value) => {
                        let content = Content::Resident(value);
                        self.take(&mut facts, attribute.kind, attribute.name, attribute.flags, content);
                        true
                    }
                    Body::NonResident(_)
                        if matches!(attribute.kind, kind::ATTRIBUTE_LIST | kind::REPARSE_POINT) =>
                    {
                        false
                    }
                    Body::NonResident(mapped) if mapped.lowest_vcn == 0 => {
                        let taken = mapped.total_allocated.unwrap_or(mapped.allocated);
                        let content = Content::Clustered { size: mapped.size, taken };
                        self.take(&mut facts, attribute.kind, attribute.name, attribute.flags, content);
                        true
                    }
                    Body::NonResident(_) => true,
                },
            };
            if !whole {
                self.back_to(marks);
                return false;
            }
        }
        self.end(number, facts, marks[1]);
        true
    }

    /// A file with all of its records; with its base record alone when the others cannot be read.
    fn add_node(&mut self, volume: &Volume, number: u64) {
        let marks = self.names.len();
        let node = match volume.node(number) {
            Ok(node) => node,
            Err(e) => {
                self.note(volume.record_offset(number), format!("file record {number:#x}: {e}"));
                let Ok(bytes) = volume.fixed_record(number) else { return };
                let record = Record::of_fixed(&bytes);
                let mut facts = self.begin(number, record.sequence(), record.flags());
                for attribute in record.attributes().flatten() {
                    if let Body::Resident(value) = attribute.body {
                        let content = Content::Resident(value);
                        self.take(&mut facts, attribute.kind, attribute.name, attribute.flags, content);
                    }
                }
                return self.end(number, facts, marks);
            }
        };
        let mut facts = self.begin(number, node.sequence, node.flags);
        for attribute in &node.attributes {
            let read;
            let content = match &attribute.value {
                Value::Resident(value) => Content::Resident(value),
                Value::Clustered(_) if attribute.kind == kind::REPARSE_POINT => {
                    read = volume.attribute_bytes(attribute, MAX_REPARSE_BYTES).unwrap_or_default();
                    Content::Resident(&read)
                }
                Value::Clustered(clustered) => {
                    Content::Clustered { size: clustered.size, taken: Attr::taken(attribute) }
                }
            };
            self.take(&mut facts, attribute.kind, &attribute.name, attribute.flags, content);
        }
        self.end(number, facts, marks);
    }

    fn take(&mut self, facts: &mut Facts, kind: u32, name: &[u8], flags: u16, content: Content<'_>) {
        match (kind, content) {
            (kind::STANDARD_INFORMATION, Content::Resident(value)) => {
                facts.times = index::times(value, 0);
                facts.attributes |= u32_at(value, 0x20).unwrap_or(0) & 0x0FFF_FFFF;
                facts.security = u32_at(value, 0x34);
            }
            (kind::FILE_NAME, Content::Resident(value)) => {
                let Some(name) = FileName::parse(value) else { return };
                // Names of 4 GiB: more than 2^23 files with the longest names; the rest is left out.
                let Ok(at) = u32::try_from(self.text.len()) else { return };
                push_utf16(&mut self.text, name.name_bytes());
                let length = (self.text.len() - at as usize) as u16; // at most 255 units of three bytes
                let dos = name.namespace() == DOS;
                self.names.push(Name {
                    file: NONE,
                    at,
                    length,
                    short_length: 0,
                    short_at: if dos { NONE } else { 0 },
                    parent: name.parent(),
                    times: name.times(),
                    shown: false,
                });
            }
            (kind::DATA, content) => {
                let (size, taken) = match content {
                    Content::Resident(value) => (value.len() as u64, 0),
                    Content::Clustered { size, taken } => (size, taken),
                };
                if name.is_empty() {
                    facts.size_bytes = if facts.directory { 0 } else { size };
                    facts.allocated_bytes += taken;
                    return;
                }
                if name == self.wof_stream {
                    facts.allocated_bytes += taken;
                }
                facts.streams.1 += 1;
                self.streams.push(StreamInfo {
                    name: utf16le_lossy(name),
                    size_bytes: size,
                    allocated_bytes: taken,
                    resident: matches!(content, Content::Resident(_)),
                    compressed: flags & 0x00FF != 0,
                    sparse: flags & 0x8000 != 0,
                    encrypted: flags & 0x4000 != 0,
                });
            }
            (kind::REPARSE_POINT, Content::Resident(value)) => facts.reparse = u32_at(value, 0),
            _ => {}
        }
    }

    /// Joins short names with the long ones beside them, and adds the file.
    fn end(&mut self, number: u64, mut facts: Facts, first_name: usize) {
        let file = self.files.len() as u32; // at most as many as there are records: below 2^32 in any real $MFT
        if facts.directory {
            // Below the number of records, each of which was read.
            let place = number as usize;
            if place >= self.places.len() {
                self.places.resize(place + 1, NONE);
            }
            self.places[place] = file;
            if number == self.start {
                facts.way = Way::Path { at: 0, length: 0, orphan: false };
            }
        }
        facts.name = first_name as u32; // as many as files, or a few times that
        let mut index = first_name;
        while index < self.names.len() {
            let name = &self.names[index];
            let (dos, parent, short) = (name.short_at == NONE, name.parent, (name.at, name.length));
            let partner = self.names[first_name..].iter_mut().find(|other| {
                dos && other.short_at == 0 && other.short_length == 0 && other.parent == parent
            });
            if let Some(other) = partner {
                (other.short_at, other.short_length) = short;
                self.names.remove(index);
                continue;
            }
            // A short name that stands alone is the name.
            let name = &mut self.names[index];
            name.file = file;
            if dos {
                name.short_at = 1;
            }
            facts.links = facts.links.saturating_add(1);
            index += 1;
        }
        self.files.push(facts);
    }

    /// The directory that holds a name, when it is one and still the one that the name means. The root is not in itself.
    fn home(&self, name: &Name) -> Option<usize> {
        let place = self.place(number_of(name.parent))?;
        let facts = &self.files[place];
        let wanted = sequence_of(name.parent);
        let right = facts.directory && (wanted == 0 || wanted == sequence_of(facts.reference));
        (right && place != name.file as usize).then_some(place)
    }

    /// A name that says that its file lies in itself: the root's.
    fn is_own(&self, name: &Name) -> bool {
        number_of(name.parent) == number_of(self.files[name.file as usize].reference)
    }

    /// Shows a name; false when the way to its directory is not known, which it always is when `all` were seen.
    fn show_name(&mut self, index: usize, all: bool, visit: &mut Visit<'_>) -> Result<bool> {
        let name = &self.names[index];
        if self.is_own(name) {
            return Ok(true);
        }
        let parent = name.parent;
        // Most files have the directory of the file before them.
        if self.shown.home.is_none() || parent != self.shown.parent {
            let home = self.home(name);
            self.shown.home = None;
            self.shown.path.clear();
            match home.map(|home| self.way(home, all)) {
                Some(Way::Path { at, length, orphan }) if self.whole || !orphan => {
                    let path = &mut self.shown.path;
                    path.push_str(self.paths.get(at..at + length).unwrap_or_default());
                    if length > 0 {
                        path.push('\\');
                    }
                    self.shown.orphan = orphan;
                }
                None | Some(Way::Unknown | Way::Open) if !all => return Ok(false),
                None if self.whole => {
                    self.shown.path = orphan_prefix(parent);
                    self.shown.orphan = true;
                }
                _ => return Ok(true),
            }
            self.shown.prefix = self.shown.path.len();
            (self.shown.home, self.shown.parent) = (home, parent);
        }
        // Taken out, because `walked` shows parts of this tree.
        let mut path = std::mem::take(&mut self.shown.path);
        let prefix = self.shown.prefix;
        path.truncate(prefix);
        let name = &self.names[index];
        path.push_str(text_at(&self.text, name.at, name.length));
        let result = visit(&self.walked(index as u32, &path, prefix, self.shown.orphan));
        self.shown.path = path;
        result.map(|()| true)
    }

    /// Shows what was not shown at once.
    fn show_rest(&mut self, visit: &mut Visit<'_>) -> Result<()> {
        for index in 0..self.names.len() {
            if !self.names[index].shown {
                self.show_name(index, true, visit)?;
            }
        }
        Ok(())
    }

    /// How to get to a directory: climbs up to one that is known, and builds the paths on the way back.
    fn way(&mut self, directory: usize, all: bool) -> Way {
        let known = self.files[directory].way;
        if known != Way::Unknown {
            return known;
        }
        let mut climbed = Vec::new();
        let mut at = directory;
        let mut found = loop {
            match self.files[at].way {
                Way::Unknown => {}
                // A circle: what is in it hangs below nothing.
                Way::Open => break Way::Unknown,
                known => break known,
            }
            if climbed.len() >= MAX_DIRECTORY_DEPTH {
                break Way::Outside;
            }
            self.files[at].way = Way::Open;
            climbed.push(at);
            match self.names.get(self.files[at].name as usize).filter(|name| name.file as usize == at) {
                // The root, when the walk does not begin there.
                Some(name) if self.is_own(name) => break Way::Outside,
                Some(name) => match self.home(name) {
                    Some(home) => at = home,
                    None => break Way::Unknown,
                },
                None => break Way::Outside,
            }
        };
        if found == Way::Unknown && !all {
            for place in climbed {
                self.files[place].way = Way::Unknown;
            }
            return Way::Unknown;
        }
        for place in climbed.into_iter().rev() {
            if let Some(name) = self.names.get(self.files[place].name as usize) {
                let begin = self.paths.len();
                let orphan = match found {
                    Way::Outside => None,
                    Way::Path { at, length, orphan } => {
                        self.paths.extend_from_within(at..at + length);
                        if length > 0 {
                            self.paths.push('\\');
                        }
                        Some(orphan)
                    }
                    Way::Unknown | Way::Open => {
                        self.paths.push_str(&orphan_prefix(name.parent));
                        Some(true)
                    }
                };
                if let Some(orphan) = orphan {
                    self.paths.push_str(text_at(&self.text, name.at, name.length));
                    found = Way::Path { at: begin, length: self.paths.len() - begin, orphan };
                }
            }
            self.files[place].way = found;
        }
        found
    }

    /// The names of each directory, and those without one: places in `names`, and per file where its part begins.
    fn children(&self) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
        let mut starts = vec![0u32; self.files.len() + 1];
        let mut homeless = Vec::new();
        let mut homes = Vec::with_capacity(self.names.len());
        for (index, name) in self.names.iter().enumerate() {
            let home = self.home(name);
            if let Some(home) = home {
                starts[home + 1] += 1;
            } else if !self.is_own(name) {
                homeless.push(index as u32);
            }
            homes.push(home.map_or(NONE, |home| home as u32));
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        let mut next = starts.clone();
        let mut order = vec![0u32; starts.last().copied().unwrap_or(0) as usize];
        for (index, home) in homes.iter().enumerate().filter(|(_, home)| **home != NONE) {
            let slot = &mut next[*home as usize];
            order[*slot as usize] = index as u32;
            *slot += 1;
        }
        for bounds in starts.windows(2) {
            let part = &mut order[bounds[0] as usize..bounds[1] as usize];
            part.sort_unstable_by(|a, b| {
                let text = |index: &u32| {
                    let name = &self.names[*index as usize];
                    text_at(&self.text, name.at, name.length)
                };
                text(a).cmp(text(b))
            });
        }
        (order, starts, homeless)
    }

    /// Shows everything as a tree, and then what nothing leads to.
    fn show_tree(&mut self, visit: &mut Visit<'_>) -> Result<()> {
        let (order, starts, homeless) = self.children();
        let mut path = String::new();
        if let Some(place) = self.place(self.start) {
            self.files[place].seen = true;
            self.descend(place, &order, &starts, &mut path, false, visit)?;
        }
        if !self.whole {
            return Ok(());
        }
        for index in homeless {
            self.orphan(index, &order, &starts, visit)?;
        }
        // What is left hangs together in circles.
        for index in 0..self.names.len() {
            let file = self.files[self.names[index].file as usize].seen;
            let parent = self.place(number_of(self.names[index].parent));
            let own = parent.is_some_and(|parent| self.files[parent].seen);
            if !file && !own && self.files[self.names[index].file as usize].directory {
                self.orphan(index as u32, &order, &starts, visit)?;
            }
        }
        Ok(())
    }

    /// A name that no directory leads to, and what is below it.
    fn orphan(&mut self, index: u32, order: &[u32], starts: &[u32], visit: &mut Visit<'_>) -> Result<()> {
        let name = &self.names[index as usize];
        let file = name.file as usize;
        let mut path = orphan_prefix(name.parent);
        let name_at = path.len();
        path.push_str(text_at(&self.text, name.at, name.length));
        visit(&self.walked(index, &path, name_at, true))?;
        if self.files[file].directory && !std::mem::replace(&mut self.files[file].seen, true) {
            self.descend(file, order, starts, &mut path, true, visit)?;
        }
        Ok(())
    }

    /// Shows the names below a directory. Each directory is entered once.
    fn descend(
        &mut self,
        directory: usize,
        order: &[u32],
        starts: &[u32],
        path: &mut String,
        orphan: bool,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        // Next name, end of the names, length of the directory's own path.
        let mut stack = vec![(starts[directory], starts[directory + 1], path.len())];
        while let Some((next, end, length)) = stack.last_mut() {
            path.truncate(*length);
            if next == end {
                stack.pop();
                continue;
            }
            let index = order[*next as usize];
            *next += 1;
            if !path.is_empty() {
                path.push('\\');
            }
            let name = &self.names[index as usize];
            let (name_at, file) = (path.len(), name.file as usize);
            path.push_str(text_at(&self.text, name.at, name.length));
            visit(&self.walked(index, path, name_at, orphan))?;
            if self.files[file].directory && !self.files[file].seen {
                if stack.len() >= MAX_DIRECTORY_DEPTH {
                    self.note(None, "directories are nested too deeply".to_string());
                    continue;
                }
                self.files[file].seen = true;
                stack.push((starts[file], starts[file + 1], path.len()));
            }
        }
        Ok(())
    }

    fn walked<'a>(&'a self, index: u32, path: &'a str, name_at: usize, orphan: bool) -> Walked<'a> {
        let name = &self.names[index as usize];
        let facts = &self.files[name.file as usize];
        let parent = self.place(number_of(name.parent)).map(|place| self.files[place].reference);
        let (from, count) = (facts.streams.0 as usize, facts.streams.1 as usize);
        Walked {
            path,
            name_at,
            short_name: (name.short_length > 0)
                .then(|| text_at(&self.text, name.short_at, name.short_length)),
            id: NodeId(facts.reference),
            parent: NodeId(parent.filter(|_| !orphan).unwrap_or(name.parent)),
            kind: kind_of(facts.reparse, facts.directory),
            size_bytes: facts.size_bytes,
            allocated_bytes: facts.allocated_bytes,
            attributes: Attributes(facts.attributes),
            times: facts.times,
            name_times: Some(name.times),
            links: u32::from(facts.links),
            reparse_tag: facts.reparse,
            security_id: facts.security,
            streams: self.streams.get(from..from + count).unwrap_or_default(),
            orphan,
        }
    }
}

fn text_at(text: &str, at: u32, length: u16) -> &str {
    text.get(at as usize..at as usize + usize::from(length)).unwrap_or_default()
}

/// What stands in front of names that no directory leads to. No name has a question mark.
fn orphan_prefix(parent: u64) -> String {
    format!("?\\{:x}\\", number_of(parent))
}

/// Appends UTF-16LE as text; most names are ASCII.
fn push_utf16(text: &mut String, bytes: &[u8]) {
    let (mut narrow, mut bits) = ([0u8; 255], 0u16);
    let units = bytes.as_chunks::<2>().0;
    for (pair, narrow) in units.iter().zip(&mut narrow) {
        bits |= u16::from_le_bytes(*pair);
        *narrow = pair[0];
    }
    match narrow.get(..units.len()).map(std::str::from_utf8) {
        Some(Ok(ascii)) if bits < 0x80 => text.push_str(ascii),
        _ => text.push_str(&utf16le_lossy(bytes)),
    }
}
