//! Cabinets ([MS-CAB]): the files of one, out of MSZIP, LZX or stored folders. Updates are cabinets, of the old form as a whole.
//!
//! Bounded: a folder is unpacked as a whole into memory, at most as much as the caller allows. Checksums are compared where there are any.
//! Missing: Quantum, cabinets that go on in another file.

use crate::lzx_cabinet::Window;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use vmrescue_base::bytes::{slice_at, u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};

const MAGIC: &[u8] = b"MSCF";
const HEADER_BYTES: usize = 36;
const FLAG_PREVIOUS: u16 = 1;
const FLAG_NEXT: u16 = 2;
const FLAG_RESERVE: u16 = 4;
/// The name of a file is UTF-8.
const NAME_IS_UTF8: u16 = 0x80;
/// Text of one block.
const BLOCK_BYTES: usize = 32768;
const MAX_NAME_BYTES: usize = 1024;

fn damaged(what: &str, at: usize) -> Error {
    Error::damaged(Layer::Payload, format!("cabinet: {what}")).at(at as u64)
}

/// True for the head of a cabinet.
pub fn is_cabinet(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// A file of a cabinet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CabinetFile {
    /// Its name as the cabinet has it, with `\` between folders. Nothing is written under it here.
    pub name: String,
    /// Bytes.
    pub size: u64,
    folder: usize,
    offset: u64,
}

#[derive(Debug, Clone, Copy)]
struct Folder {
    start: usize,
    blocks: usize,
    compression: u16,
}

/// A cabinet in memory.
#[derive(Debug, Clone)]
pub struct Cabinet<'a> {
    bytes: &'a [u8],
    folders: Vec<Folder>,
    files: Vec<CabinetFile>,
    /// Bytes that each block has ahead of its data.
    block_reserve: usize,
}

impl<'a> Cabinet<'a> {
    /// Reads the lists of a cabinet. A signature behind its end does not matter.
    ///
    /// # Errors
    /// `Damaged`; `Unsupported` for one part of a set.
    pub fn open(bytes: &'a [u8]) -> Result<Cabinet<'a>> {
        let cut = || damaged("its head is cut off", bytes.len());
        if !is_cabinet(bytes) {
            return Err(damaged("another head", 0));
        }
        let half = |at: usize| u16_at(bytes, at).ok_or_else(cut);
        let word = |at: usize| u32_at(bytes, at).map(|word| word as usize).ok_or_else(cut);
        let (folder_count, file_count, flags) = (half(26)?, half(28)?, half(30)?);
        if flags & (FLAG_PREVIOUS | FLAG_NEXT) != 0 {
            return Err(Error::unsupported(Layer::Payload, "a cabinet that is one part of a set").at(30));
        }
        let (mut at, mut folder_reserve, mut block_reserve) = (HEADER_BYTES, 0, 0);
        if flags & FLAG_RESERVE != 0 {
            let sizes = slice_at(bytes, HEADER_BYTES + 2, 2).ok_or_else(cut)?;
            (folder_reserve, block_reserve) = (usize::from(sizes[0]), usize::from(sizes[1]));
            at = HEADER_BYTES + 4 + usize::from(half(HEADER_BYTES)?);
        }
        let mut folders = Vec::new();
        for _ in 0..folder_count {
            folders.push(Folder {
                start: word(at)?,
                blocks: usize::from(half(at + 4)?),
                compression: half(at + 6)?,
            });
            at += 8 + folder_reserve;
        }
        let mut at = word(16)?;
        let mut files = Vec::new();
        for _ in 0..file_count {
            let (size, offset, folder) = (word(at)?, word(at + 4)?, usize::from(half(at + 8)?));
            if folder >= folders.len() {
                return Err(damaged("a file is in a folder that is not there", at + 8).found(folder));
            }
            let attributes = half(at + 14)?;
            let rest = bytes.get(at + 16..).unwrap_or_default();
            let length = rest.iter().take(MAX_NAME_BYTES).position(|byte| *byte == 0);
            let length = length.ok_or_else(|| damaged("a name does not end", at + 16))?;
            let name = if attributes & NAME_IS_UTF8 != 0 {
                String::from_utf8_lossy(&rest[..length]).into_owned()
            } else {
                // Names of Windows' own files are ASCII; others are shown as Latin-1.
                rest[..length].iter().map(|byte| char::from(*byte)).collect()
            };
            files.push(CabinetFile { name, size: size as u64, folder, offset: offset as u64 });
            at += 17 + length;
        }
        Ok(Cabinet { bytes, folders, files, block_reserve })
    }

    /// Its files, in its order.
    pub fn files(&self) -> &[CabinetFile] {
        &self.files
    }

    /// The bytes of files, all of one folder unpacked once: `wanted` says which. Calls `each` in the order of the list.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`; `Limit` when a folder has more than `limit` bytes; of `each`.
    pub fn extract(
        &self,
        limit: u64,
        wanted: &dyn Fn(&CabinetFile) -> bool,
        each: &mut dyn FnMut(&CabinetFile, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for (index, folder) in self.folders.iter().enumerate() {
            let here: Vec<&CabinetFile> =
                self.files.iter().filter(|file| file.folder == index && wanted(file)).collect();
            // Nothing behind the last file that is wanted needs to be unpacked.
            let Some(end) = here.iter().map(|file| file.offset + file.size).max() else { continue };
            if end > limit {
                return Err(Error::limit(Layer::Payload, "cabinet: a folder is too large")
                    .expected(format!("at most {limit:#x} bytes"))
                    .found(format!("{end:#x}")));
            }
            let text = self.folder(*folder, end as usize)?;
            for file in here {
                let bytes = slice_at(&text, file.offset as usize, file.size as usize).ok_or_else(|| {
                    damaged("a file ends behind its folder", folder.start).found(&file.name)
                })?;
                each(file, bytes)?;
            }
        }
        Ok(())
    }

    /// The text of a folder up to `end`.
    fn folder(&self, folder: Folder, end: usize) -> Result<Vec<u8>> {
        let mut out: Vec<u8> = Vec::new();
        let mut window = match folder.compression & 0xf {
            3 => Some(Window::new(u32::from(folder.compression >> 8 & 0x1f)).ok_or_else(|| {
                damaged("the window of LZX cannot be", folder.start).found(folder.compression >> 8)
            })?),
            _ => None,
        };
        let mut at = folder.start;
        for _ in 0..folder.blocks {
            if out.len() >= end {
                break;
            }
            let cut = || damaged("a block is cut off", at);
            let sum = u32_at(self.bytes, at).ok_or_else(cut)?;
            let packed = usize::from(u16_at(self.bytes, at + 4).ok_or_else(cut)?);
            let plain = usize::from(u16_at(self.bytes, at + 6).ok_or_else(cut)?);
            let place = at + 8 + self.block_reserve;
            let data = slice_at(self.bytes, place, packed).ok_or_else(cut)?;
            if sum != 0 {
                let head = slice_at(self.bytes, at + 4, 4 + self.block_reserve).ok_or_else(cut)?;
                let is = checksum(head, checksum(data, 0));
                if is != sum {
                    return Err(damaged("the checksum of a block does not fit", at)
                        .expected(format!("{sum:#010x}"))
                        .found(format!("{is:#010x}")));
                }
            }
            if plain > BLOCK_BYTES || plain == 0 {
                return Err(damaged("the text of a block cannot be so long", at + 6).found(plain));
            }
            let from = out.len();
            out.resize(from + plain, 0);
            let done = match (folder.compression & 0xf, &mut window) {
                (0, _) => (packed == plain).then(|| out[from..].copy_from_slice(data)),
                (1, _) => mszip(data, &mut out, from),
                (3, Some(window)) => window.block(data, &mut out, from),
                (kind, _) => {
                    return Err(Error::unsupported(Layer::Payload, "how a cabinet is compressed")
                        .at(folder.start as u64)
                        .expected("none, MSZIP or LZX")
                        .found(kind));
                }
            };
            done.ok_or_else(|| damaged("a block cannot be unpacked", at))?;
            at = place + packed;
        }
        if let Some(window) = window {
            window.untranslate(&mut out);
        }
        Ok(out)
    }
}

/// `CK`, then a deflate stream of its own that may refer to the blocks before.
fn mszip(data: &[u8], out: &mut [u8], from: usize) -> Option<()> {
    let packed = data.strip_prefix(b"CK")?;
    let mut inflater = DecompressorOxide::new();
    let (status, _, written) =
        decompress(&mut inflater, packed, out, from, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
    (status == TINFLStatus::Done && from + written == out.len()).then_some(())
}

/// The sum of [MS-CAB] 3.1: 32-bit words folded, what is left over from the highest byte down.
fn checksum(bytes: &[u8], seed: u32) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum = words.iter().fold(seed, |sum, word| sum ^ u32::from_le_bytes(*word));
    sum ^ rest.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// A cabinet of one folder that is stored as it is: for [`crate::testing`].
pub(crate) fn stored(files: &[(&str, &[u8])]) -> Vec<u8> {
    let names: usize = files.iter().map(|(name, _)| 17 + name.len()).sum();
    let text: Vec<u8> = files.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let blocks = text.chunks(BLOCK_BYTES);
    let mut out = MAGIC.to_vec();
    out.resize(HEADER_BYTES, 0);
    let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
    put(16, &(HEADER_BYTES as u32 + 8).to_le_bytes());
    put(24, &[3, 1]);
    put(26, &1u16.to_le_bytes());
    put(28, &(files.len() as u16).to_le_bytes());
    out.extend(((HEADER_BYTES + 8 + names) as u32).to_le_bytes());
    out.extend((blocks.len() as u16).to_le_bytes());
    out.extend(0u16.to_le_bytes());
    let mut offset = 0u32;
    for (name, bytes) in files {
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(offset.to_le_bytes());
        out.extend([0; 8]);
        out.extend(name.as_bytes());
        out.push(0);
        offset += bytes.len() as u32;
    }
    for block in blocks {
        let sizes = [(block.len() as u16).to_le_bytes(), (block.len() as u16).to_le_bytes()].concat();
        out.extend(checksum(&sizes, checksum(block, 0)).to_le_bytes());
        out.extend(sizes);
        out.extend(block);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cabinet as stored;
    use proptest::prelude::*;

    fn all(bytes: &[u8], limit: u64) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        Cabinet::open(bytes)?.extract(limit, &|_| true, &mut |file, bytes| {
            found.push((file.name.clone(), bytes.to_vec()));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn files_come_out_and_damage_is_told() {
        let bytes = stored(&[("a.txt", b"first"), (r"d\b.txt", b"second file")]);
        let found = all(&bytes, 100).unwrap();
        assert_eq!(
            found,
            [("a.txt".into(), b"first".to_vec()), (r"d\b.txt".into(), b"second file".to_vec())]
        );
        assert_eq!(all(&bytes, 10).unwrap_err().kind(), vmrescue_base::ErrorKind::Limit);
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(all(&flipped, 100).unwrap_err().to_string().contains("checksum"));
        assert!(all(&bytes[..bytes.len() - 1], 100).is_err());
    }

    proptest! {
        #[test]
        fn damage_never_causes_a_panic(hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
            let mut bytes = stored(&[("a.txt", b"first"), ("b.txt", b"second file")]);
            for (at, value) in hits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            drop(all(&bytes, 1 << 20));
            bytes.truncate(cut.index(bytes.len()));
            drop(all(&bytes, 1 << 20));
        }
    }
}
