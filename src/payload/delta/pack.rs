//! The simplest packer of deltas, for tests and made-up disks: what stands in the source at the same place is copied, all else is literal,
//! with the codes that need no table.

use super::codes::{Code, Codes, MAIN};
use sha2::{Digest, Sha256};

/// The slot "the same place in the source", and the length symbol that says "a long one".
const SAME_PLACE: usize = 256 + (3 << 3);
const SHORTEST: usize = 16;

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    bits: u32,
}

impl Writer {
    /// A stream, whose padding is filled in at the end.
    fn stream() -> Writer {
        let mut writer = Writer::default();
        writer.put(0, 3);
        writer
    }

    fn put(&mut self, value: u64, count: u32) {
        for index in 0..count {
            if self.bits == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> index & 1) as u8) << self.bits;
            }
            self.bits = (self.bits + 1) % 8;
        }
    }

    fn number(&mut self, value: u64) {
        let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
        self.put(1 << (digits - 1), digits);
        self.put(value, 4 * digits);
    }

    fn buffer(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bits = 0;
        self.bytes.extend(bytes);
    }

    fn finish(mut self) -> Vec<u8> {
        if self.bits > 0
            && let Some(first) = self.bytes.first_mut()
        {
            *first |= 8 - self.bits as u8; // fewer than 8
        }
        self.bytes
    }
}

fn body(source: &[u8], target: &[u8]) -> Vec<u8> {
    let lengths = Codes::flat_lengths();
    let main = Code::new(&lengths[..MAIN]);
    let long = Code::new(&lengths[MAIN..MAIN + 256]);
    let mut writer = Writer::stream();
    writer.put(0, 1); // no rift table
    writer.put(1, 1); // the codes that need no table
    let (Some(main), Some(long)) = (main, long) else { return writer.finish() };
    let mut at = 0;
    while at < target.len() {
        let same = source.iter().skip(at).zip(&target[at..]).take_while(|(a, b)| a == b).count();
        if same > SHORTEST + 256 {
            let (code, bits) = main.code_of(SAME_PLACE, &lengths);
            writer.put(code, bits);
            let (code, bits) = long.code_of(0, &lengths[MAIN..]);
            writer.put(code, bits);
            let value = same as u64 - 8;
            let width = 63 - value.leading_zeros();
            writer.put(1 << (width - 8), width - 7);
            writer.put(value, width);
            at += same;
        } else {
            let (code, bits) = main.code_of(usize::from(target[at]), &lengths);
            writer.put(code, bits);
            at += 1;
        }
    }
    writer.finish()
}

fn packed(source: &[u8], target: &[u8], algorithm: u64, hash: &[u8]) -> Vec<u8> {
    let mut writer = Writer::stream();
    // File types that the packer was allowed, raw, no flags, size, algorithm.
    for number in [0xf, 1, 0, target.len() as u64, algorithm] {
        writer.number(number);
    }
    writer.buffer(hash);
    writer.buffer(&[]);
    writer.buffer(&body(source, target));
    [&b"PA30"[..], &[0; 8], &writer.finish()].concat()
}

/// A delta with the SHA-256 of the target.
pub(crate) fn pa30(source: &[u8], target: &[u8]) -> Vec<u8> {
    packed(source, target, 0x800c, &Sha256::digest(target))
}

/// A delta that does not say what must come out, as those of manifests are.
pub(crate) fn without_hash(source: &[u8], target: &[u8]) -> Vec<u8> {
    packed(source, target, 0, &[])
}
