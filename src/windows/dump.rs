//! Crash dumps: the header of a kernel dump (`PAGEDU64` for 64-bit machines, `PAGEDUMP` for 32-bit ones; DUMP_HEADER64 and DUMP_HEADER
//! of the debugger's `wdm.h`) and of a dump of a program (`MDMP`, MINIDUMP_HEADER of `minidumpapiset.h`). Only headers are read.
//!
//! Missing: which driver crashed (that wants symbols), streams of program dumps.

use super::bugcheck::bugcheck_name;
use serde::Serialize;
use vmrescue_base::bytes::{u16_at, u32_at, u64_at};
use vmrescue_base::time::FileTime;

/// Bytes that [`Dump::parse`] wants to see.
pub const DUMP_HEADER_BYTES: usize = 0x2000;
/// What Windows fills unused header fields with: `PAGE`.
const UNUSED: u64 = 0x4547_4150_4547_4150;

/// What a dump file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Dump {
    /// The kernel stopped.
    Kernel(KernelDump),
    /// A program crashed; Windows went on.
    Program {
        /// When, as the dump says; seconds.
        #[serde(serialize_with = "super::facts::time_text")]
        time: Option<FileTime>,
    },
}

/// The header of a kernel dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelDump {
    /// 32 or 64.
    pub bits: u8,
    /// The stop code.
    pub code: u32,
    /// Its name, when it is known.
    pub name: Option<&'static str>,
    /// The four parameters of the stop code.
    pub parameters: [u64; 4],
    /// Build of the kernel that crashed.
    pub build: u32,
    /// Number of processors.
    pub processors: u32,
    /// What the dump holds, in words.
    pub content: &'static str,
    /// When it happened.
    #[serde(serialize_with = "super::facts::time_text")]
    pub time: Option<FileTime>,
    /// How long the machine had been up, in seconds.
    pub uptime_seconds: Option<u64>,
}

fn content(kind: u32) -> &'static str {
    match kind {
        1 => "all memory",
        2 => "kernel memory",
        3 => "header only",
        4 => "small dump",
        5 => "all memory (sparse)",
        6 => "kernel memory (sparse)",
        7 => "automatic",
        _ => "unknown",
    }
}

fn known(number: Option<u64>) -> Option<u64> {
    number.filter(|number| *number != 0 && *number != UNUSED)
}

impl Dump {
    /// What the start of a file says; `None` when it is no dump that is known.
    pub fn parse(bytes: &[u8]) -> Option<Dump> {
        match bytes.get(..8)? {
            b"PAGEDU64" => Dump::kernel64(bytes),
            b"PAGEDUMP" => Dump::kernel32(bytes),
            start if start.starts_with(b"MDMP") && u16_at(bytes, 4)? == 0xa793 => {
                let seconds = u32_at(bytes, 20).filter(|seconds| *seconds != 0);
                let time = seconds.map(|seconds| FileTime::from_unix_seconds(i64::from(seconds)));
                Some(Dump::Program { time })
            }
            _ => None,
        }
    }

    fn kernel64(bytes: &[u8]) -> Option<Dump> {
        let parameter = |i: usize| u64_at(bytes, 0x40 + i * 8);
        let code = u32_at(bytes, 0x38)?;
        Some(Dump::Kernel(KernelDump {
            bits: 64,
            code,
            name: bugcheck_name(code),
            parameters: [parameter(0)?, parameter(1)?, parameter(2)?, parameter(3)?],
            build: u32_at(bytes, 0x0c)?,
            processors: u32_at(bytes, 0x34)?,
            content: content(u32_at(bytes, 0xf98).unwrap_or(0)),
            time: known(u64_at(bytes, 0xfa8)).map(FileTime),
            uptime_seconds: known(u64_at(bytes, 0x1030)).map(|intervals| intervals / 10_000_000),
        }))
    }

    fn kernel32(bytes: &[u8]) -> Option<Dump> {
        let parameter = |i: usize| u32_at(bytes, 0x2c + i * 4).map(u64::from);
        let code = u32_at(bytes, 0x28)?;
        Some(Dump::Kernel(KernelDump {
            bits: 32,
            code,
            name: bugcheck_name(code),
            parameters: [parameter(0)?, parameter(1)?, parameter(2)?, parameter(3)?],
            build: u32_at(bytes, 0x0c)?,
            processors: u32_at(bytes, 0x24)?,
            content: content(u32_at(bytes, 0xf88).unwrap_or(0)),
            time: known(u64_at(bytes, 0xfc0)).map(FileTime),
            uptime_seconds: known(u64_at(bytes, 0xfb8)).map(|intervals| intervals / 10_000_000),
        }))
    }

    /// When it happened.
    pub fn time(&self) -> Option<FileTime> {
        match self {
            Dump::Kernel(kernel) => kernel.time,
            Dump::Program { time } => *time,
        }
    }

    /// One line for people.
    pub fn text(&self) -> String {
        match self {
            Dump::Kernel(kernel) => {
                let name = kernel.name.map(|name| format!(" {name}")).unwrap_or_default();
                let [a, b, c, d] = kernel.parameters;
                format!(
                    "{:#x}{name} ({a:#x}, {b:#x}, {c:#x}, {d:#x}), build {}, {}",
                    kernel.code, kernel.build, kernel.content
                )
            }
            Dump::Program { .. } => "a program crashed, not Windows".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_kernel_dump_tells_its_stop_code() {
        let mut bytes = vec![0u8; DUMP_HEADER_BYTES];
        for at in (0..DUMP_HEADER_BYTES).step_by(4) {
            bytes[at..at + 4].copy_from_slice(b"PAGE");
        }
        bytes[4..8].copy_from_slice(b"DU64");
        let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
        put(0x0c, &17763u32.to_le_bytes());
        put(0x38, &0x7bu32.to_le_bytes());
        put(0x40, &0xffff_8a00_1234_5678u64.to_le_bytes());
        put(0xf98, &4u32.to_le_bytes());
        put(0xfa8, &132_223_104_000_000_000u64.to_le_bytes());
        let Some(Dump::Kernel(dump)) = Dump::parse(&bytes) else { panic!("no kernel dump") };
        assert_eq!((dump.code, dump.name, dump.build), (0x7b, Some("INACCESSIBLE_BOOT_DEVICE"), 17763));
        assert_eq!(dump.parameters[0], 0xffff_8a00_1234_5678);
        assert_eq!(dump.time.unwrap().to_string(), "2020-01-01T00:00:00.0000000Z");
        assert_eq!((dump.content, dump.uptime_seconds), ("small dump", None), "filler is not a time");
    }

    #[test]
    fn a_dump_of_a_program_is_not_taken_for_one_of_windows() {
        let mut bytes = vec![0u8; 64];
        bytes[..4].copy_from_slice(b"MDMP");
        bytes[4..6].copy_from_slice(&0xa793u16.to_le_bytes());
        bytes[20..24].copy_from_slice(&1_709_208_000u32.to_le_bytes());
        let dump = Dump::parse(&bytes).unwrap();
        assert!(matches!(dump, Dump::Program { .. }));
        assert_eq!(dump.time().unwrap().to_string(), "2024-02-29T12:00:00.0000000Z");
        assert_eq!(Dump::parse(b"PAGEFILE"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(kind in 0usize..3, bytes in prop::collection::vec(any::<u8>(), 0..0x1100)) {
            let mut all = [&b"PAGEDU64"[..], b"PAGEDUMP", b"MDMP\x93\xa7"][kind].to_vec();
            all.extend(bytes);
            if let Some(dump) = Dump::parse(&all) {
                prop_assert!(!dump.text().is_empty());
            }
        }
    }
}
