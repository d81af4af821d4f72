//! The Elephant diffuser of Windows Vista and 7, between the sector key and AES-CBC.
//!
//! Source: Niels Ferguson, "AES-CBC + Elephant diffuser, a disk encryption algorithm for Windows Vista" (2006). Words are
//! little-endian, their number is a power of two, indices wrap.

const A_ROUNDS: usize = 5;
const A_SHIFTS: [u32; 4] = [9, 0, 13, 0];
const B_ROUNDS: usize = 3;
const B_SHIFTS: [u32; 4] = [0, 10, 0, 25];

/// Largest sector, in words.
pub(super) const MAX_WORDS: usize = 1024;

/// One step: what is added to word `i` when deciphering, and taken away when enciphering.
fn step_a(words: &[u32], i: usize, mask: usize) -> u32 {
    let back = |by: usize| words[(i + words.len() - by) & mask];
    back(2) ^ back(5).rotate_left(A_SHIFTS[i % 4])
}

fn step_b(words: &[u32], i: usize, mask: usize) -> u32 {
    words[(i + 2) & mask] ^ words[(i + 5) & mask].rotate_left(B_SHIFTS[i % 4])
}

/// Both diffusers backwards: B, then A.
pub(super) fn undo(words: &mut [u32]) {
    let mask = words.len() - 1;
    for _ in 0..B_ROUNDS {
        for i in 0..words.len() {
            words[i] = words[i].wrapping_add(step_b(words, i, mask));
        }
    }
    for _ in 0..A_ROUNDS {
        for i in 0..words.len() {
            words[i] = words[i].wrapping_add(step_a(words, i, mask));
        }
    }
}

/// Both diffusers: A, then B.
pub(super) fn apply(words: &mut [u32]) {
    let mask = words.len() - 1;
    for _ in 0..A_ROUNDS {
        for i in (0..words.len()).rev() {
            words[i] = words[i].wrapping_sub(step_a(words, i, mask));
        }
    }
    for _ in 0..B_ROUNDS {
        for i in (0..words.len()).rev() {
            words[i] = words[i].wrapping_sub(step_b(words, i, mask));
        }
    }
}
