//! Event logs of the demo disk: `.evtx`, each event a template of its own without substitutions ([MS-EVEN6] 2.2.12; libevtx, "Windows XML Event Log
//! format"). For tests of whole machines, and for damaging.

use vmrescue_base::bytes::put_at;
use vmrescue_base::text::utf16le_bytes;
use vmrescue_base::time::FileTime;

/// Bytes of the header of a log, of a chunk, and of the header of a chunk.
const FILE_HEADER: usize = 4096;
const CHUNK: usize = 65536;
const CHUNK_HEADER: usize = 512;

/// An event to write.
#[derive(Debug, Clone)]
pub struct LogEvent<'a> {
    /// When.
    pub time: FileTime,
    /// Who.
    pub provider: &'a str,
    /// Number, and the upper 16 bits of a classic provider.
    pub id: (u32, u16),
    /// 1 critical to 5 verbose.
    pub level: u8,
    /// Parameters; an empty name leaves it out.
    pub data: &'a [(&'a str, &'a str)],
}

/// A log of one channel with these events, in their order, numbered from 1. Each chunk takes as many as fit.
pub fn event_log(channel: &str, computer: &str, events: &[LogEvent<'_>]) -> Vec<u8> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut chunk = Chunk::new(1);
    for (event, number) in events.iter().zip(1u64..) {
        let before = (chunk.bytes.len(), chunk.last);
        chunk.record(number, channel, computer, event);
        if chunk.bytes.len() > CHUNK && before.0 > CHUNK_HEADER {
            chunk.bytes.truncate(before.0);
            chunk.last = before.1;
            chunks.push(chunk.finish(number - 1));
            chunk = Chunk::new(number);
            chunk.record(number, channel, computer, event);
        }
    }
    chunks.push(chunk.finish(events.len() as u64));
    let mut file = vec![0; FILE_HEADER];
    put(&mut file, 0, b"ElfFile\0");
    put(&mut file, 16, &(chunks.len() as u64 - 1).to_le_bytes());
    put(&mut file, 24, &(events.len() as u64 + 1).to_le_bytes());
    put(&mut file, 32, &128u32.to_le_bytes());
    put(&mut file, 36, &[1, 0, 3, 0]);
    put(&mut file, 40, &(FILE_HEADER as u16).to_le_bytes());
    put(&mut file, 42, &(chunks.len() as u16).to_le_bytes());
    let checksum = crc32fast::hash(&file[..120]);
    put(&mut file, 124, &checksum.to_le_bytes());
    file.extend(chunks.concat());
    file
}

/// Writes into a buffer that is large enough by construction.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let fits = put_at(bytes, at, value);
    debug_assert!(fits);
}

struct Chunk {
    bytes: Vec<u8>,
    first: u64,
    /// Place of the last record.
    last: usize,
}

impl Chunk {
    fn new(first: u64) -> Chunk {
        Chunk { bytes: vec![0; CHUNK_HEADER], first, last: CHUNK_HEADER }
    }

    fn record(&mut self, number: u64, channel: &str, computer: &str, event: &LogEvent<'_>) {
        let start = self.bytes.len();
        self.last = start;
        self.bytes.extend([0x2a, 0x2a, 0, 0, 0, 0, 0, 0]);
        self.bytes.extend(number.to_le_bytes());
        self.bytes.extend(event.time.0.to_le_bytes());
        // Version 1.1 of binary XML; an instance of the template that follows right here: no next one, its GUID, its length.
        self.bytes.extend([0x0f, 1, 1, 0, 0x0c, 1]);
        let template = number as u32; // a log of a test does not have 2^32 events
        let definition = self.bytes.len() as u32 + 8;
        for value in [template, definition, 0, template, 0, 0, 0, 0] {
            self.bytes.extend(value.to_le_bytes());
        }
        let body = self.bytes.len();
        self.bytes.extend([0x0f, 1, 1, 0]);
        self.element("Event", &[], |chunk| {
            chunk.element("System", &[], |chunk| {
                chunk.element("Provider", &[("Name", event.provider)], |_| {});
                let qualifiers = event.id.1.to_string();
                chunk.element("EventID", &[("Qualifiers", &qualifiers)], |chunk| {
                    chunk.text(&event.id.0.to_string());
                });
                chunk.element("Level", &[], |chunk| chunk.text(&event.level.to_string()));
                chunk.element("TimeCreated", &[("SystemTime", &event.time.to_string())], |_| {});
                chunk.element("EventRecordID", &[], |chunk| chunk.text(&number.to_string()));
                chunk.element("Channel", &[], |chunk| chunk.text(channel));
                chunk.element("Computer", &[], |chunk| chunk.text(computer));
            });
            chunk.element("EventData", &[], |chunk| {
                for (name, value) in event.data {
                    let named = [("Name", *name)];
                    let attributes = if name.is_empty() { &[][..] } else { &named[..] };
                    chunk.element("Data", attributes, |chunk| chunk.text(value));
                }
            });
        });
        self.bytes.push(0);
        let length = (self.bytes.len() - body) as u32;
        put(&mut self.bytes, body - 4, &length.to_le_bytes());
        // No substitutions, and the end of the fragment.
        self.bytes.extend([0; 5]);
        // The length stands at both ends, and records begin at multiples of eight.
        let length = (self.bytes.len() - start + 4).next_multiple_of(8);
        self.bytes.resize(start + length - 4, 0);
        self.bytes.extend((length as u32).to_le_bytes());
        put(&mut self.bytes, start + 4, &(length as u32).to_le_bytes());
    }

    /// A name: its place in the chunk, then the name itself right there.
    fn name(&mut self, name: &str) {
        let here = self.bytes.len() as u32 + 4;
        self.bytes.extend(here.to_le_bytes());
        self.bytes.extend(0u32.to_le_bytes());
        let hash = name
            .encode_utf16()
            .fold(0u32, |hash, unit| hash.wrapping_mul(65599).wrapping_add(u32::from(unit)));
        self.bytes.extend((hash as u16).to_le_bytes());
        self.bytes.extend((name.encode_utf16().count() as u16).to_le_bytes());
        self.bytes.extend(utf16le_bytes(name));
        self.bytes.extend([0, 0]);
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend([0x05, 0x01]);
        self.bytes.extend((text.encode_utf16().count() as u16).to_le_bytes());
        self.bytes.extend(utf16le_bytes(text));
    }

    fn element(&mut self, name: &str, attributes: &[(&str, &str)], inside: impl FnOnce(&mut Chunk)) {
        self.bytes.push(if attributes.is_empty() { 0x01 } else { 0x41 });
        self.bytes.extend([0xff, 0xff]);
        let length_at = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.name(name);
        if !attributes.is_empty() {
            let list_at = self.bytes.len();
            self.bytes.extend([0; 4]);
            for (place, (name, value)) in attributes.iter().enumerate() {
                self.bytes.push(if place + 1 < attributes.len() { 0x46 } else { 0x06 });
                self.name(name);
                self.text(value);
            }
            let length = (self.bytes.len() - list_at - 4) as u32;
            put(&mut self.bytes, list_at, &length.to_le_bytes());
        }
        self.bytes.push(0x02);
        inside(self);
        self.bytes.push(0x04);
        let length = (self.bytes.len() - length_at - 4) as u32;
        put(&mut self.bytes, length_at, &length.to_le_bytes());
    }

    fn finish(mut self, last: u64) -> Vec<u8> {
        let end = self.bytes.len() as u32;
        let records = crc32fast::hash(&self.bytes[CHUNK_HEADER..]);
        let bytes = &mut self.bytes;
        bytes.resize(CHUNK.max(bytes.len()), 0);
        put(bytes, 0, b"ElfChnk\0");
        for (at, number) in [(8, self.first), (16, last), (24, self.first), (32, last)] {
            put(bytes, at, &number.to_le_bytes());
        }
        for (at, number) in [(40, 128), (44, self.last as u32), (48, end), (52, records)] {
            put(bytes, at, &number.to_le_bytes());
        }
        let mut header = crc32fast::Hasher::new();
        header.update(&bytes[..120]);
        header.update(&bytes[128..CHUNK_HEADER]);
        put(bytes, 124, &header.finalize().to_le_bytes());
        self.bytes
    }
}
