//! Places and identifiers of [MS-VHDX] section 2.

use vmrescue_base::guid::Guid;

/// Everything but the headers lies on multiples of 1 MiB.
pub(crate) const ALIGN: u64 = 1 << 20;
/// Block size of new dynamic disks, as Hyper-V makes them.
pub(crate) const DEFAULT_BLOCK_BYTES: u64 = 32 << 20;
pub(super) const HEADER_PLACES: [u64; 2] = [64 << 10, 128 << 10];
pub(super) const HEADER_BYTES: usize = 4096;
pub(super) const REGION_PLACES: [u64; 2] = [192 << 10, 256 << 10];
pub(super) const REGION_BYTES: usize = 64 << 10;

pub(super) const BAT_REGION: Guid =
    Guid::from_fields(0x2dc2_7766, 0xf623, 0x4200, [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08]);
pub(super) const METADATA_REGION: Guid =
    Guid::from_fields(0x8b7c_a206, 0x4790, 0x4b9a, [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e]);

pub(super) const FILE_PARAMETERS: Guid =
    Guid::from_fields(0xcaa1_6737, 0xfa36, 0x4d43, [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b]);
pub(super) const VIRTUAL_DISK_SIZE: Guid =
    Guid::from_fields(0x2fa5_4224, 0xcd1b, 0x4876, [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8]);
pub(super) const VIRTUAL_DISK_ID: Guid =
    Guid::from_fields(0xbeca_12ab, 0xb2e6, 0x4523, [0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46]);
pub(super) const LOGICAL_SECTOR_SIZE: Guid =
    Guid::from_fields(0x8141_bf1d, 0xa96f, 0x4709, [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f]);
pub(super) const PHYSICAL_SECTOR_SIZE: Guid =
    Guid::from_fields(0xcda3_48c7, 0x445d, 0x4471, [0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56]);
pub(super) const PARENT_LOCATOR: Guid =
    Guid::from_fields(0xa8d3_5f2d, 0xb30b, 0x454d, [0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c]);
pub(super) const LOCATOR_TYPE: Guid =
    Guid::from_fields(0xb04a_efb7, 0xd19e, 0x4a81, [0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13]);

/// The bytes with a CRC-32C of themselves at `at`, computed while that field is zero.
pub(super) fn sealed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at..at + 4].fill(0);
    let sum = crc32c::crc32c(&bytes);
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// True when the CRC-32C at `at` is right.
pub(super) fn is_sealed(bytes: &[u8], at: usize) -> bool {
    let Some((before, rest)) = bytes.split_at_checked(at) else { return false };
    let Some((stored, after)) = rest.split_at_checked(4) else { return false };
    let sum = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), after);
    stored == sum.to_le_bytes()
}
