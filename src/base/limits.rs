//! Every bound that the library puts on data from a disk, in one place, each with its reason.
//!
//! Reaching one is an error of kind `Limit`, never a panic and never a silent cut.

/// Most bytes that one read of a whole file into memory may ask for (hives, stores, drivers, logs).
pub const MAX_FILE_IN_MEMORY_BYTES: u64 = 2 << 30;
/// Largest file that is unpacked from a payload or a delta: more than any file of Windows has.
pub const MAX_PAYLOAD_BYTES: u64 = 512 << 20;
/// Longest text of a component manifest: twenty times the largest that was seen.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// Most levels of a directory tree that a walk follows; Windows itself stops far earlier (32,767 characters of path).
pub const MAX_DIRECTORY_DEPTH: usize = 1024;
/// Most partitions of one disk: GPT tables have 128 by default, some tools make larger ones.
pub const MAX_PARTITIONS: usize = 1024;
/// Most links in the chain of logical partitions.
pub const MAX_LOGICAL_PARTITIONS: usize = 128;
/// Most parents of a differencing disk.
pub const MAX_CHAIN_DEPTH: usize = 256;
/// Largest virtual disk: the limit of VHDX, 64 TiB.
pub const MAX_DISK_BYTES: u64 = 64 << 40;
/// Most levels of an NTFS index B+ tree; a tree of 2^32 files needs six.
pub const MAX_INDEX_DEPTH: usize = 16;
/// Most runs of one NTFS attribute, over all of its extents.
pub const MAX_RUNS: usize = 1 << 22;
/// Most entries of one NTFS attribute list (the list itself may not exceed 256 KiB on Windows).
pub const MAX_ATTRIBUTE_LIST_BYTES: u64 = 1 << 20;
/// Most levels of registry keys: Windows allows 512.
pub const MAX_KEY_DEPTH: usize = 1024;
/// Largest hive: offsets are 32 bits, the highest bit marks volatile cells.
pub const MAX_HIVE_BYTES: u64 = 1 << 31;
/// Most data that one registry value may have in memory.
pub const MAX_VALUE_BYTES: usize = 64 << 20;
/// Largest repair script.
pub const MAX_SCRIPT_BYTES: u64 = 1 << 20;
/// Memory that an overlay keeps before it spills to a file.
pub const OVERLAY_MEMORY_BYTES: usize = 128 << 20;
/// Memory of one read cache.
pub const CACHE_BYTES: usize = 32 << 20;
/// Most devices inside devices in a boot configuration store: Windows makes three (a virtual disk in a file on a partition).
pub const MAX_BCD_DEVICE_DEPTH: usize = 8;
/// Most objects of a boot configuration store; a machine with many entries has about fifty.
pub const MAX_BCD_OBJECTS: usize = 4096;
/// Most chunks of an event log: 16 GiB, more than Windows lets a log grow to (4 GiB).
pub const MAX_EVENT_CHUNKS: u64 = 1 << 18;
/// Most files that are collected from one disk.
pub const MAX_COLLECTED_FILES: usize = 1 << 17;
/// Longest record of an NTFS log: tables of a checkpoint are the largest, 64 KiB and more.
pub const MAX_LOG_RECORD_BYTES: usize = 4 << 20;
/// Most clusters that the tables of an NTFS log may call dirty: 4 GiB of the usual size.
pub const MAX_REPLAY_CLUSTERS: usize = 1 << 20;
/// Most bytes that the replay of an NTFS log may change: four times the largest log that Windows makes by itself.
pub const MAX_REPLAY_BYTES: u64 = 256 << 20;
