//! LZX as cabinets use it ([MS-PATCH] 2, [MS-CAB]): windows of 32 KiB to 2 MiB, blocks that go on over the frames of 32 KiB, x86 calls
//! translated by the place in the folder.

use super::huffman::Bits;
use super::lzx::{Codes, Lengths, matches, untranslate};
use vmrescue_base::bytes::{array_at, slice_at};

/// A frame of text.
const FRAME_BYTES: usize = 32768;
/// Frames whose calls are translated: the first gigabyte.
const MAX_TRANSLATED_FRAMES: usize = 32768;

/// A block that was begun.
enum Open {
    Packed(Box<Codes>),
    Stored,
}

/// What carries over from frame to frame.
pub(crate) struct Window {
    lengths: Lengths,
    recent: [usize; 3],
    open: Option<(Open, usize)>,
    /// A stored block of an odd length has a byte behind it.
    odd: bool,
    /// File size that calls were translated with; `None` until the first frame, 0 for none.
    translation: Option<i32>,
}

impl Window {
    /// For a window of `2^bits` bytes; `None` for one that there is not.
    pub(crate) fn new(bits: u32) -> Option<Window> {
        let slots = match bits {
            15..=19 => 30 + 2 * (bits as usize - 15),
            20 => 42,
            21 => 50,
            _ => return None,
        };
        Some(Window {
            lengths: Lengths::new(slots),
            recent: [1; 3],
            open: None,
            odd: false,
            translation: None,
        })
    }

    /// Unpacks a frame into `out[from..]`, which may refer to all before; `None` when it does not give exactly that.
    pub(crate) fn block(&mut self, input: &[u8], out: &mut [u8], from: usize) -> Option<()> {
        let mut bits = Bits::new(input, 0);
        if self.translation.is_none() {
            let size = if bits.take(1) == 1 { (bits.take(16) << 16 | bits.take(16)) as u32 } else { 0 };
            self.translation = Some(size as i32);
        }
        // A stored block may go on from the frame before: then the frame begins with its bytes.
        let mut raw = matches!(self.open, Some((Open::Stored, _))).then_some(0);
        let mut done = from;
        // Bounded: a block of no bytes is refused.
        while done < out.len() {
            let (open, left) = match self.open.take() {
                Some(open) => open,
                None => {
                    if let Some(at) = raw.take() {
                        bits = Bits::new(input, at + usize::from(self.odd));
                        self.odd = false;
                    }
                    let kind = bits.take(3);
                    let size = bits.take(16) << 8 | bits.take(8);
                    if size == 0 {
                        return None;
                    }
                    let open = match kind {
                        1 | 2 => Open::Packed(Box::new(self.lengths.read(&mut bits, kind == 2)?)),
                        3 => {
                            let at = bits.next_word();
                            for (index, recent) in self.recent.iter_mut().enumerate() {
                                *recent = u32::from_le_bytes(array_at(input, at + 4 * index)?) as usize;
                            }
                            raw = Some(at + 12);
                            self.odd = size % 2 == 1;
                            Open::Stored
                        }
                        _ => return None,
                    };
                    (open, size)
                }
            };
            let end = out.len().min(done.checked_add(left)?);
            match (&open, &mut raw) {
                (Open::Packed(codes), _) => {
                    matches(&mut bits, codes, &mut self.recent, &mut out[..end], done)?;
                }
                (Open::Stored, Some(at)) => {
                    out[done..end].copy_from_slice(slice_at(input, *at, end - done)?);
                    *at += end - done;
                }
                (Open::Stored, None) => return None,
            }
            let left = left - (end - done);
            if left > 0 {
                self.open = Some((open, left));
            }
            done = end;
        }
        // A stored block that ends with the frame: its odd byte is the frame's last.
        if self.open.is_none() && raw.is_some() {
            self.odd = false;
        }
        (!bits.overrun()).then_some(())
    }

    /// Turns the calls of a whole folder back.
    pub(crate) fn untranslate(&self, out: &mut [u8]) {
        let Some(size) = self.translation.filter(|size| *size != 0) else { return };
        for (index, frame) in out.chunks_mut(FRAME_BYTES).take(MAX_TRANSLATED_FRAMES).enumerate() {
            // At most 2^30.
            untranslate(frame, (index * FRAME_BYTES) as i32, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    /// Bits of a head: no translation, a stored block of this size; padded to a word, then the three distances.
    fn head(size: u32) -> Vec<u8> {
        // 0, 011, 24 bits, 4 bits to the next word.
        let bits = 3u64 << 28 | u64::from(size) << 4;
        let mut out: Vec<u8> =
            [(bits >> 16) as u16, bits as u16].iter().flat_map(|word| word.to_le_bytes()).collect();
        out.extend([1u32, 1, 1].iter().flat_map(|distance| distance.to_le_bytes()));
        out
    }

    #[test]
    fn a_stored_block_goes_on_over_frames_and_another_follows_it() {
        let text: Vec<u8> = (0..70_001u32).map(|i| (i % 251) as u8).collect();
        let mut window = Window::new(21).unwrap();
        let mut out = vec![0; text.len()];
        let frames = [
            [head(70_001), text[..32768].to_vec()].concat(),
            text[32768..65536].to_vec(),
            [&text[65536..], &[0]].concat(),
        ];
        for (index, frame) in frames.iter().enumerate() {
            let (from, end) = (index * 32768, ((index + 1) * 32768).min(text.len()));
            window.block(frame, &mut out[..end], from).unwrap();
        }
        window.untranslate(&mut out);
        assert!(out == text);
        assert!(Window::new(14).is_none() && Window::new(22).is_none());
        let mut window = Window::new(15).unwrap();
        assert!(window.block(&frames[0][..1000], &mut out[..32768], 0).is_none());
    }
}
