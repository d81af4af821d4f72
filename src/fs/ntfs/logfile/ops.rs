//! The operation codes of NTFS's log records.

pub(crate) const NOOP: u16 = 0x00;
pub(crate) const COMPENSATION: u16 = 0x01;
pub(crate) const INITIALIZE_RECORD: u16 = 0x02;
pub(crate) const DEALLOCATE_RECORD: u16 = 0x03;
pub(crate) const WRITE_END_OF_RECORD: u16 = 0x04;
pub(crate) const CREATE_ATTRIBUTE: u16 = 0x05;
pub(crate) const DELETE_ATTRIBUTE: u16 = 0x06;
pub(crate) const UPDATE_RESIDENT: u16 = 0x07;
pub(crate) const UPDATE_NONRESIDENT: u16 = 0x08;
pub(crate) const UPDATE_MAPPING_PAIRS: u16 = 0x09;
pub(crate) const DELETE_DIRTY_CLUSTERS: u16 = 0x0A;
pub(crate) const SET_SIZES: u16 = 0x0B;
pub(crate) const ADD_ENTRY_ROOT: u16 = 0x0C;
pub(crate) const DELETE_ENTRY_ROOT: u16 = 0x0D;
pub(crate) const ADD_ENTRY_BLOCK: u16 = 0x0E;
pub(crate) const DELETE_ENTRY_BLOCK: u16 = 0x0F;
pub(crate) const WRITE_END_OF_BLOCK: u16 = 0x10;
pub(crate) const SET_VCN_ROOT: u16 = 0x11;
pub(crate) const SET_VCN_BLOCK: u16 = 0x12;
pub(crate) const UPDATE_NAME_ROOT: u16 = 0x13;
pub(crate) const UPDATE_NAME_BLOCK: u16 = 0x14;
pub(crate) const SET_BITS: u16 = 0x15;
pub(crate) const CLEAR_BITS: u16 = 0x16;
pub(crate) const HOT_FIX: u16 = 0x17;
pub(crate) const END_TOP_LEVEL: u16 = 0x18;
pub(crate) const PREPARE: u16 = 0x19;
pub(crate) const COMMIT: u16 = 0x1A;
pub(crate) const FORGET: u16 = 0x1B;
pub(crate) const OPEN_ATTRIBUTE: u16 = 0x1C;
pub(crate) const TRANSACTIONS_DUMP: u16 = 0x20;
pub(crate) const UPDATE_DATA_ROOT: u16 = 0x21;
pub(crate) const UPDATE_DATA_BLOCK: u16 = 0x22;
pub(crate) const UPDATE_RELATIVE_ROOT: u16 = 0x23;
pub(crate) const UPDATE_RELATIVE_BLOCK: u16 = 0x24;
pub(crate) const ZERO_END_OF_RECORD: u16 = 0x25;

const NAMES: [&str; 0x26] = [
    "Noop",
    "CompensationLogRecord",
    "InitializeFileRecordSegment",
    "DeallocateFileRecordSegment",
    "WriteEndOfFileRecordSegment",
    "CreateAttribute",
    "DeleteAttribute",
    "UpdateResidentValue",
    "UpdateNonresidentValue",
    "UpdateMappingPairs",
    "DeleteDirtyClusters",
    "SetNewAttributeSizes",
    "AddIndexEntryRoot",
    "DeleteIndexEntryRoot",
    "AddIndexEntryAllocation",
    "DeleteIndexEntryAllocation",
    "WriteEndOfIndexBuffer",
    "SetIndexEntryVcnRoot",
    "SetIndexEntryVcnAllocation",
    "UpdateFileNameRoot",
    "UpdateFileNameAllocation",
    "SetBitsInNonresidentBitMap",
    "ClearBitsInNonresidentBitMap",
    "HotFix",
    "EndTopLevelAction",
    "PrepareTransaction",
    "CommitTransaction",
    "ForgetTransaction",
    "OpenNonresidentAttribute",
    "OpenAttributeTableDump",
    "AttributeNamesDump",
    "DirtyPageTableDump",
    "TransactionTableDump",
    "UpdateRecordDataRoot",
    "UpdateRecordDataAllocation",
    "UpdateRelativeDataIndex",
    "UpdateRelativeDataAllocation",
    "ZeroEndOfFileRecord",
];

/// What an operation works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nothing on the volume.
    None,
    /// A file record.
    FileRecord,
    /// A block of an index.
    IndexBlock,
    /// Bytes of a value.
    Bytes,
    /// Bits of a bitmap.
    Bits,
    /// Not known what.
    Unknown,
}

/// The name of an operation, as Windows calls it.
pub(crate) fn name(operation: u16) -> String {
    NAMES.get(usize::from(operation)).map_or_else(|| format!("operation {operation:#x}"), ToString::to_string)
}

/// What an operation works on.
pub(crate) fn target(operation: u16) -> Target {
    match operation {
        INITIALIZE_RECORD..=UPDATE_RESIDENT
        | UPDATE_MAPPING_PAIRS
        | SET_SIZES
        | ADD_ENTRY_ROOT
        | DELETE_ENTRY_ROOT
        | SET_VCN_ROOT
        | UPDATE_NAME_ROOT
        | UPDATE_DATA_ROOT
        | UPDATE_RELATIVE_ROOT
        | ZERO_END_OF_RECORD => Target::FileRecord,
        ADD_ENTRY_BLOCK..=WRITE_END_OF_BLOCK
        | SET_VCN_BLOCK
        | UPDATE_NAME_BLOCK
        | UPDATE_DATA_BLOCK
        | UPDATE_RELATIVE_BLOCK => Target::IndexBlock,
        UPDATE_NONRESIDENT => Target::Bytes,
        SET_BITS | CLEAR_BITS => Target::Bits,
        NOOP | COMPENSATION | DELETE_DIRTY_CLUSTERS | HOT_FIX..=TRANSACTIONS_DUMP => Target::None,
        _ => Target::Unknown,
    }
}
