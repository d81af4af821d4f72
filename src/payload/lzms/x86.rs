//! The x86 filter of LZMS. The packer turned relative targets of calls and loads into absolute ones where it believed to see code;
//! this turns them back, by the same belief: two instructions that refer to the same place within 64 KiB are code, and
//! the next 1,023 bytes are, too. It runs on every block, whatever that holds.

use vmrescue_base::bytes::{array_at, u16_at};

/// Two references to one place that are as near as this are code.
const WINDOW: i32 = 65535;
/// So far behind the last code that was seen, instructions are believed.
const REACH: i32 = 1023;
/// At the end so many bytes are left alone.
const TAIL: usize = 16;

/// The opcode at the start of `code`: its length, and how far behind code it is believed. `None` for none that is looked at.
fn opcode(code: &[u8]) -> Option<(usize, i32)> {
    match code {
        // mov rax or rcx from a place relative to here; lea.
        [0x48, 0x8B, 0x05 | 0x0D, ..] => Some((3, REACH)),
        [0x48 | 0x4C, 0x8D, mode, ..] if mode & 7 == 5 => Some((3, REACH)),
        // call: so frequent a byte that more belief is asked for.
        [0xE8, ..] => Some((1, REACH / 2)),
        // lock add; call through a pointer.
        [0xF0, 0x83, 0x05, ..] => Some((3, REACH)),
        [0xFF, 0x15, ..] => Some((2, REACH)),
        _ => None,
    }
}

/// Which way the targets are turned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Back, as a reader does.
    ToRelative,
    /// As a packer does.
    ToAbsolute,
}

/// Turns the targets in a block.
pub(super) fn translate(block: &mut [u8], turn: Turn) {
    let Some(end) = block.len().checked_sub(TAIL).filter(|end| *end > 1) else { return };
    // By the low half of the target: where it was referred to last.
    let mut last_reference = vec![-WINDOW - 1; 1 << 16];
    let mut last_code = -REACH - 1;
    // The first byte is never an instruction.
    let mut at = 1;
    while at < end {
        if !matches!(block[at], 0x48 | 0x4C | 0xE8 | 0xE9 | 0xF0 | 0xFF) {
            at += 1;
            continue;
        }
        if block[at] == 0xE9 {
            // A jump is never turned, and its target is no opcode.
            at += 5;
            continue;
        }
        let Some((length, reach)) = opcode(&block[at..]) else {
            at += 1;
            continue;
        };
        let place = at as i32; // blocks are smaller than 2^28
        let operand = at + length;
        let before = u16_at(block, operand).unwrap_or(0);
        if place - last_code <= reach
            && let Some(target) = array_at(block, operand).map(i32::from_le_bytes)
        {
            let turned = match turn {
                Turn::ToRelative => target.wrapping_sub(place),
                Turn::ToAbsolute => target.wrapping_add(place),
            };
            block[operand..operand + 4].copy_from_slice(&turned.to_le_bytes());
        }
        // Counted from the relative target, which the packer saw ahead of its own work.
        let relative = match turn {
            Turn::ToRelative => u16_at(block, operand).unwrap_or(0),
            Turn::ToAbsolute => before,
        };
        let low = relative.wrapping_add(place as u16);
        at = operand + 3;
        let place = at as i32;
        let last = &mut last_reference[usize::from(low)];
        if place - *last <= WINDOW {
            last_code = place;
        }
        *last = place;
        at += 1;
    }
}
