//! What NTFS compresses, with data of other makers: XPRESS Huffman and LZNT1 of Windows, and WOF streams out of wimlib, whose WIM
//! resources have the same layout (a table of chunk ends, then the chunks).

#![allow(clippy::unwrap_used, reason = "helpers of a test: they may fail and tell")]

use crate::oracle::{corpus, run, tool};
use proptest::prelude::*;
use std::sync::Arc;
use vmrescue::block::{Disk, DiskMut, MemoryDevice};
use vmrescue::bytes::{u16_at, u32_at, u64_at};
use vmrescue::fs::ntfs::{FormatSpec, Volume, VolumeMut, format, lznt1};
use vmrescue::fs::{FileSystem, FileSystemMut, NodeKind, read_file};
use vmrescue::payload::xpress;

fn unpacked(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut out = vec![0xEE; length];
    xpress::decompress(packed, &mut out).map(|()| out)
}

/// A whole block gives exactly its text; what is cut off gives no success with other bytes.
fn check_xpress(packed: &[u8], plain: &[u8], what: &str) {
    assert!(unpacked(packed, plain.len()).as_deref() == Some(plain), "{what}");
    for cut in [packed.len() / 2, packed.len() * 9 / 10] {
        let found = unpacked(&packed[..cut], plain.len());
        assert!(found.is_none_or(|found| found == plain), "{what}: success from the first {cut} bytes");
    }
}

#[test]
fn what_windows_packed_with_xpress_huffman_is_unpacked() {
    let Some(corpus) = corpus().map(|dir| dir.join("09-compression")) else { return };
    let mut count = 0;
    for level in ["compressed-huffman", "compressed-more-huffman"] {
        for entry in std::fs::read_dir(corpus.join("samba").join(level)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let plain = std::fs::read(corpus.join(format!("samba/decompressed/{name}.decomp"))).unwrap();
            check_xpress(&std::fs::read(&path).unwrap(), &plain, &format!("{level}/{name}"));
            count += 1;
        }
    }
    assert_eq!(count, 78);
    for name in ["am_delta", "audiodg"] {
        let read = |end: &str| std::fs::read(corpus.join(format!("xpress-huffman/{name}.{end}"))).unwrap();
        check_xpress(&read("xhuff"), &read("expected"), name);
    }
    // Prefetch files: "MAM", the format, the length, then the packed bytes of a file that begins with its version and "SCCA".
    for entry in std::fs::read_dir(corpus.join("prefetch")).unwrap() {
        let file = std::fs::read(entry.unwrap().path()).unwrap();
        assert_eq!(&file[..4], b"MAM\x04");
        let plain = unpacked(&file[8..], u32_at(&file, 4).unwrap() as usize).unwrap();
        assert_eq!(&plain[4..8], b"SCCA");
        assert_eq!(u32_at(&plain, 12), Some(plain.len() as u32), "the file says how long it is");
    }
}

/// The bytes of a Go string between quotes, and what follows it.
fn go_string(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let (mut out, mut at) = (Vec::new(), text.iter().position(|byte| *byte == b'"').unwrap() + 1);
    while text[at] != b'"' {
        if text[at] != b'\\' {
            out.push(text[at]);
            at += 1;
            continue;
        }
        at += 2;
        out.push(match text[at - 1] {
            b'x' => {
                at += 2;
                u8::from_str_radix(std::str::from_utf8(&text[at - 2..at]).unwrap(), 16).unwrap()
            }
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            other => other,
        });
    }
    (out, &text[at + 1..])
}

#[test]
fn the_vectors_of_go_ntfs_are_unpacked() {
    let Some(corpus) = corpus().map(|dir| dir.join("09-compression")) else { return };
    let text = std::fs::read(corpus.join("go-ntfs-huffman_vectors.txt")).unwrap();
    let mut count = 0;
    for line in text.split(|byte| *byte == b'\n').filter(|line| line.contains(&b'"')) {
        let (name, rest) = go_string(line);
        // dissect.util does not get the text out of this one either (68 of 360 bytes).
        if name == b"Huff0" {
            continue;
        }
        let (packed, rest) = go_string(rest);
        let (plain, _) = go_string(rest);
        check_xpress(&packed, &plain, &String::from_utf8_lossy(&name));
        count += 1;
    }
    assert_eq!(count, 6);
    let (packed, plain) = ("lznt1_buffer", "lznt1_decoded_buffer");
    let (packed, plain) =
        (std::fs::read(corpus.join(packed)).unwrap(), std::fs::read(corpus.join(plain)).unwrap());
    let mut out = vec![0xEE; plain.len()];
    lznt1::decompress(&packed[8..], &mut out).unwrap();
    assert!(out == plain);
}

/// The resource of the only file in a WIM, as it is stored: [MS-WIM] header, then the table of resources.
fn resource(wim: &[u8], length: usize) -> Vec<u8> {
    let size = |at| (u64_at(wim, at).unwrap() & 0x00FF_FFFF_FFFF_FFFF) as usize;
    let table = u64_at(wim, 56).unwrap() as usize;
    let entry = (table..table + size(48)).step_by(50).find(|at| {
        let (flags, original) = (wim[at + 7], u64_at(wim, at + 16).unwrap());
        flags & 2 == 0 && flags & 4 != 0 && original == length as u64
    });
    let entry = entry.expect("the resource is compressed");
    let place = u64_at(wim, entry + 8).unwrap() as usize;
    wim[place..place + size(entry)].to_vec()
}

/// Puts a reparse point behind the attributes of a record, as the Windows Overlay Filter does.
fn add_reparse_point(bytes: &mut [u8], record: usize, value: &[u8]) {
    let record = &mut bytes[record..record + 1024];
    let (at, count) = (usize::from(u16_at(record, 4).unwrap()), usize::from(u16_at(record, 6).unwrap()));
    for sector in 1..count {
        let end = sector * 512 - 2;
        record.copy_within(at + 2 * sector..at + 2 * sector + 2, end);
    }
    let used = u32_at(record, 0x18).unwrap() as usize;
    let length = 24 + value.len().next_multiple_of(8);
    let mut attribute = vec![0; length + 8];
    attribute[..4].copy_from_slice(&0xC0u32.to_le_bytes());
    attribute[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    attribute[14..16].copy_from_slice(&u16_at(record, 0x28).unwrap().to_le_bytes());
    attribute[16..20].copy_from_slice(&(value.len() as u32).to_le_bytes());
    attribute[20] = 24;
    attribute[24..24 + value.len()].copy_from_slice(value);
    attribute[length..length + 4].copy_from_slice(&[0xFF; 4]);
    record[used - 8..used - 8 + attribute.len()].copy_from_slice(&attribute);
    record[0x18..0x1C].copy_from_slice(&((used + length) as u32).to_le_bytes());
    for sector in 1..count {
        let end = sector * 512 - 2;
        record.copy_within(end..end + 2, at + 2 * sector);
        record.copy_within(at..at + 2, end);
    }
}

/// A volume with one file that WOF compressed.
fn wof_volume(size: usize, packed: &[u8], algorithm: u32) -> Vec<u8> {
    let device = Arc::new(MemoryDevice::zeroed(8 << 20));
    let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
    format(&disk, &FormatSpec::default()).unwrap();
    let mut volume = VolumeMut::open(disk).unwrap();
    let file = volume.create(volume.root(), "packed.exe", NodeKind::File).unwrap();
    volume.write(file, "WofCompressedData", 0, packed).unwrap();
    volume.set_len(file, "", size as u64).unwrap();
    volume.sync().unwrap();
    let mut bytes = device.to_vec();
    let boot = *Volume::open(Disk::new(Arc::<MemoryDevice>::clone(&device))).unwrap().boot();
    let record = boot.mft_lcn * u64::from(boot.cluster_bytes) + (file.0 & 0xFFFF_FFFF) * 1024;
    let mut value = Vec::new();
    // Tag, length, then version 1, provider 2 (file), version 1, algorithm.
    for word in [0x8000_0017, 16, 1, 2, 1, algorithm] {
        value.extend_from_slice(&u32::to_le_bytes(word));
    }
    add_reparse_point(&mut bytes, record as usize, &value);
    bytes
}

/// Text, machine code, zeros and noise: chunks of all kinds, the last one partly filled.
fn contents() -> Vec<u8> {
    let program = std::fs::read("/proc/self/exe").unwrap();
    let code = &program[program.len() / 3..][..400_000];
    let noise: Vec<u8> = (0..70_000u64)
        .map(|n| {
            (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (n << 7))
                .wrapping_mul(0xD134_2543_DE82_EF95)
                .to_be_bytes()[0]
        })
        .collect();
    let text = "A line of text that repeats, but with a number: ".repeat(900);
    [code, text.as_bytes(), &noise, &[0; 100_000], &code[..1234]].concat()
}

#[test]
fn what_wimlib_packed_is_read_as_a_wof_file() {
    let plain = contents();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file.bin"), &plain).unwrap();
    for (compress, chunk, algorithm) in
        [("XPRESS", 4096, 0), ("XPRESS", 8192, 2), ("XPRESS", 16384, 3), ("LZX", 32768, 1)]
    {
        let Some(mut wimlib) = tool("wimlib-imagex") else { return };
        let wim = dir.path().join(format!("{compress}{chunk}.wim"));
        let options = [format!("--compress={compress}"), format!("--chunk-size={chunk}")];
        run(wimlib.arg("capture").arg(&source).arg(&wim).args(options).arg("--no-acls"));
        let packed = resource(&std::fs::read(&wim).unwrap(), plain.len());
        assert!(packed.len() < plain.len());
        let volume =
            Volume::open(Disk::new(Arc::new(MemoryDevice::new(wof_volume(plain.len(), &packed, algorithm)))));
        let volume = volume.unwrap();
        let node = volume.lookup(volume.root(), "packed.exe").unwrap().unwrap();
        let known = volume.metadata(node).unwrap();
        assert_eq!((known.kind, known.size_bytes), (NodeKind::File, plain.len() as u64));
        assert_eq!(known.reparse.map(|reparse| reparse.tag), Some(0x8000_0017));
        let found = read_file(&volume, node, "").unwrap();
        let place = found.iter().zip(&plain).position(|(a, b)| a != b);
        assert!(found == plain, "{compress} {chunk}: first difference at {place:?}");
        assert!(read_file(&volume, node, "WofCompressedData").unwrap() == packed);
        for (offset, length) in [(0, 1), (chunk - 1, 3), (399_999, 50_001), (plain.len() - 7, 100)] {
            let mut buf = vec![0; length];
            let count = volume.read(node, "", offset as u64, &mut buf).unwrap();
            assert_eq!(count, length.min(plain.len() - offset));
            assert!(buf[..count] == plain[offset..offset + count], "{compress} {chunk} at {offset}");
        }
        // What is cut off is an error and no success.
        let short = wof_volume(plain.len(), &packed[..packed.len() - 200], algorithm);
        let volume = Volume::open(Disk::new(Arc::new(MemoryDevice::new(short)))).unwrap();
        let node = volume.lookup(volume.root(), "packed.exe").unwrap().unwrap();
        assert!(read_file(&volume, node, "").is_err(), "{compress} {chunk}");
    }
}

#[test]
fn an_unknown_way_of_wof_is_named_and_not_guessed() {
    let volume = Volume::open(Disk::new(Arc::new(MemoryDevice::new(wof_volume(100, &[1; 50], 9))))).unwrap();
    let node = volume.lookup(volume.root(), "packed.exe").unwrap().unwrap();
    let error = volume.read(node, "", 0, &mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), vmrescue::error::ErrorKind::Unsupported, "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Streams that are no streams, of files that say to be long: an error or bytes, soon, and memory for a chunk only.
    #[test]
    fn damaged_wof_streams_end(
        // Long enough to lie in clusters: the record has room for the reparse point then.
        packed in proptest::collection::vec(any::<u8>(), 1000..3000),
        algorithm in 0u32..4,
        size in 1usize..40_000,
        offset in 0u64..40_000,
    ) {
        let volume = Volume::open(Disk::new(Arc::new(MemoryDevice::new(wof_volume(size, &packed, algorithm))))).unwrap();
        let node = volume.lookup(volume.root(), "packed.exe").unwrap().unwrap();
        let mut buf = vec![0; 9000];
        if let Ok(count) = volume.read(node, "", offset, &mut buf) {
            prop_assert_eq!(count as u64, (size as u64).saturating_sub(offset).min(9000));
        }
    }

    #[test]
    fn damaged_xpress_ends(packed in proptest::collection::vec(any::<u8>(), 0..2000), length in 0usize..200_000) {
        let mut out = vec![0; length];
        let _done: Option<()> = xpress::decompress(&packed, &mut out);
    }
}
