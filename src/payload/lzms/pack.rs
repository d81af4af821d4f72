//! The simplest LZMS packer, for tests and made-up disks: every byte is a literal.

use super::codes::Adaptive;
use super::range::{Context, Range};
use super::{LITERALS, REBUILD_SELDOM, x86};

/// Packs a block.
pub(crate) fn literals(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    x86::translate(&mut text, x86::Turn::ToAbsolute);
    // From the front: "this is a literal" again and again, which is zero whatever the probabilities are; only as many units as a reader takes.
    let mut range = Range::new(&[]);
    let mut is_match = Context::<16>::new();
    for _ in &text {
        range.bit(&mut is_match);
    }
    let mut out = vec![0; range.taken()];
    // From the back: the codes, highest bit first.
    let mut code = Adaptive::new(LITERALS, REBUILD_SELDOM);
    let (mut units, mut held, mut count) = (Vec::new(), 0u32, 0u32);
    for byte in text {
        let (bits, length) = code.code_of(usize::from(byte));
        held = held << length | bits as u32;
        count += length;
        if count >= 16 {
            count -= 16;
            units.push((held >> count) as u16);
        }
        code.learn(usize::from(byte));
    }
    if count > 0 {
        units.push((held << (16 - count)) as u16);
    }
    out.extend(units.iter().rev().flat_map(|unit| unit.to_le_bytes()));
    out
}
