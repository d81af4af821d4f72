//! Files of other kinds that would pass for a raw disk: containers that are not read here, archives, and images inside of archives.
//!
//! A raw disk has no signature of its own, so whatever is not known would be taken for one: repairs would write into the
//! header of a foreign container. Only the first bytes of each kind are known. A file with the mark of a boot sector is a disk,
//! whatever else it looks like (installation media carry both).

use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::Disk;

/// A kind of file: where its signature lies, the signature, what it is, what to do.
struct Kind(u64, &'static [u8], &'static str, &'static str);

const CONVERT: &str = "convert it first: qemu-img convert -O vhdx FILE disk.vhdx";
const UNPACK: &str = "unpack it first, then open the disk that is in it";
const EWF: &str = "export it as raw first: ewfexport -f raw -t disk FILE (libewf)";

const KINDS: [Kind; 28] = [
    Kind(0x40, &[0x7F, 0x10, 0xDA, 0xBE], "a VirtualBox disk (VDI)", CONVERT),
    Kind(0, b"WithoutFreeSpace", "a Parallels disk", CONVERT),
    Kind(0, b"WithouFreSpacExt", "a Parallels disk", CONVERT),
    Kind(0, b"QED\0", "a QEMU disk (QED)", CONVERT),
    Kind(0, b"QFI\xFB\0\0\0\x01", "a QEMU disk (qcow, version 1)", CONVERT),
    Kind(
        0,
        &[0xBE, 0xBA, 0xFE, 0xCA, 0, 0, 0, 0],
        "a VMware disk (seSparse)",
        "export it with VMware's tools as a monolithic sparse VMDK",
    ),
    Kind(
        0,
        b"COWD",
        "a VMware disk (vmfsSparse)",
        "export it with VMware's tools as a monolithic sparse VMDK",
    ),
    Kind(0, b"EVF\x09\x0D\x0A\xFF\0", "an EnCase image (E01)", EWF),
    Kind(0, b"EVF2\x0D\x0A\x81\0", "an EnCase image (Ex01)", EWF),
    Kind(0, b"LVF\x09\x0D\x0A\xFF\0", "an EnCase logical image (L01), which has no disk", EWF),
    Kind(
        0,
        b"AFF10\x0D\x0A\0",
        "an image of the Advanced Forensic Format",
        "export it as raw first: affconvert -r FILE",
    ),
    Kind(
        0,
        &[0x14, 0x20, 0x28, 0x01],
        "a Hyper-V machine file (VMCX, VMRS), which has no disk",
        "name the VHDX of the machine",
    ),
    Kind(0, b"LUKS\xBA\xBE", "a volume that Linux encrypted (LUKS)", "open it with cryptsetup first"),
    Kind(0, b"MSWIM\0\0\0", "a Windows installation image (WIM or ESD)", "use it as a source: --source FILE"),
    Kind(0, b"MSCF", "a cabinet", UNPACK),
    Kind(0, &[0x1F, 0x8B, 0x08], "compressed with gzip", "unpack it first: gzip -dk FILE"),
    Kind(0, &[0xFD, b'7', b'z', b'X', b'Z', 0], "compressed with xz", "unpack it first: xz -dk FILE"),
    Kind(0, &[0x28, 0xB5, 0x2F, 0xFD], "compressed with Zstandard", "unpack it first: zstd -dk FILE"),
    Kind(0, &[0x04, 0x22, 0x4D, 0x18], "compressed with LZ4", "unpack it first: lz4 -dk FILE"),
    Kind(0, b"BZh91AY&SY", "compressed with bzip2", "unpack it first: bzip2 -dk FILE"),
    Kind(0, b"PK\x03\x04", "a zip archive", UNPACK),
    Kind(0, b"7z\xBC\xAF\x27\x1C", "a 7-Zip archive", UNPACK),
    Kind(0, b"Rar!\x1A\x07", "a RAR archive", UNPACK),
    Kind(0x101, b"ustar", "a tar archive (such as OVA)", UNPACK),
    Kind(
        0x8001,
        b"CD001",
        "a CD or DVD image (ISO)",
        "use the WIM in it as a source: --source sources/install.wim",
    ),
    Kind(0, b"\x7FELF", "a program of Linux", "name a disk image"),
    Kind(0, b"%PDF-", "a PDF document", "name a disk image"),
    Kind(0, b"\x89PNG\x0D\x0A\x1A\x0A", "a picture", "name a disk image"),
];

/// What the file is, when it is a kind that is known and not read here.
fn find(file: &Disk) -> Result<Option<&'static Kind>> {
    let first = file.read_vec(0, file.len().min(512) as usize)?;
    if first.get(510..512) == Some(&[0x55, 0xAA]) {
        return Ok(None);
    }
    for kind in &KINDS {
        let (start, end) = (kind.0, kind.0 + kind.1.len() as u64);
        let is_it = if end <= first.len() as u64 {
            first[start as usize..end as usize] == *kind.1
        } else {
            end <= file.len() && file.read_vec(start, kind.1.len())? == kind.1
        };
        if is_it {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// True for a file that is no disk image at all, or one of a kind that is not read.
///
/// # Errors
/// Of reading the file.
pub(super) fn is_foreign(file: &Disk) -> Result<bool> {
    Ok(find(file)?.is_some())
}

/// Refuses a file that would pass for a raw disk.
///
/// # Errors
/// `Unsupported` with what it is and what to do; of reading the file.
pub(super) fn refuse(file: &Disk) -> Result<()> {
    match find(file)? {
        None => Ok(()),
        Some(Kind(offset, _, what, advice)) => Err(Error::unsupported(
            Layer::Image,
            format!("this is no disk image that can be opened: it is {what}"),
        )
        .at(*offset)
        .expected("a raw disk, VHD, VHDX; qcow2 and VMDK for reading")
        .advice(*advice)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vmrescue_block::MemoryDevice;

    fn disk(bytes: Vec<u8>) -> Disk {
        Disk::new(Arc::new(MemoryDevice::new(bytes)))
    }

    #[test]
    fn every_kind_is_refused_and_a_boot_sector_is_not() {
        for Kind(offset, signature, what, _) in &KINDS {
            let mut bytes = vec![0; 64 << 10];
            let at = *offset as usize;
            bytes[at..at + signature.len()].copy_from_slice(signature);
            let why = refuse(&disk(bytes.clone())).unwrap_err();
            assert!(why.to_string().contains(what) && why.advice_text().is_some(), "{why}");
            assert!(
                super::super::open(&disk(bytes.clone())).is_err()
                    && super::super::info(&disk(bytes.clone())).is_err()
            );
            bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
            assert!(refuse(&disk(bytes)).is_ok(), "{what}");
        }
        for bytes in [vec![], vec![0; 100], vec![0; 4096]] {
            assert!(refuse(&disk(bytes)).is_ok());
        }
    }
}
