//! Names of stop codes, as Microsoft's "Bug Check Code Reference" lists them: those that are seen when Windows starts or crashes.

/// Code and name, by code.
const NAMES: [(u32, &str); 104] = [
    (0x01, "APC_INDEX_MISMATCH"),
    (0x09, "IRQL_NOT_GREATER_OR_EQUAL"),
    (0x0a, "IRQL_NOT_LESS_OR_EQUAL"),
    (0x0d, "MUTEX_LEVEL_NUMBER_VIOLATION"),
    (0x12, "TRAP_CAUSE_UNKNOWN"),
    (0x18, "REFERENCE_BY_POINTER"),
    (0x19, "BAD_POOL_HEADER"),
    (0x1a, "MEMORY_MANAGEMENT"),
    (0x1c, "PFN_REFERENCE_COUNT"),
    (0x1e, "KMODE_EXCEPTION_NOT_HANDLED"),
    (0x20, "KERNEL_APC_PENDING_DURING_EXIT"),
    (0x22, "FILE_SYSTEM"),
    (0x23, "FAT_FILE_SYSTEM"),
    (0x24, "NTFS_FILE_SYSTEM"),
    (0x27, "RDR_FILE_SYSTEM"),
    (0x2e, "DATA_BUS_ERROR"),
    (0x31, "PHASE0_INITIALIZATION_FAILED"),
    (0x32, "PHASE1_INITIALIZATION_FAILED"),
    (0x34, "CACHE_MANAGER"),
    (0x3a, "SYSTEM_UNWIND_PREVIOUS_USER"),
    (0x3b, "SYSTEM_SERVICE_EXCEPTION"),
    (0x3d, "INTERRUPT_EXCEPTION_NOT_HANDLED"),
    (0x3f, "NO_MORE_SYSTEM_PTES"),
    (0x44, "MULTIPLE_IRP_COMPLETE_REQUESTS"),
    (0x48, "CANCEL_STATE_IN_COMPLETED_IRP"),
    (0x4a, "IRQL_GT_ZERO_AT_SYSTEM_SERVICE"),
    (0x4c, "FATAL_UNHANDLED_HARD_ERROR"),
    (0x4d, "NO_PAGES_AVAILABLE"),
    (0x4e, "PFN_LIST_CORRUPT"),
    (0x50, "PAGE_FAULT_IN_NONPAGED_AREA"),
    (0x51, "REGISTRY_ERROR"),
    (0x58, "FTDISK_INTERNAL_ERROR"),
    (0x5c, "HAL_INITIALIZATION_FAILED"),
    (0x67, "CONFIG_INITIALIZATION_FAILED"),
    (0x69, "IO1_INITIALIZATION_FAILED"),
    (0x6b, "PROCESS1_INITIALIZATION_FAILED"),
    (0x6f, "SESSION3_INITIALIZATION_FAILED"),
    (0x73, "CONFIG_LIST_FAILED"),
    (0x74, "BAD_SYSTEM_CONFIG_INFO"),
    (0x76, "PROCESS_HAS_LOCKED_PAGES"),
    (0x77, "KERNEL_STACK_INPAGE_ERROR"),
    (0x79, "MISMATCHED_HAL"),
    (0x7a, "KERNEL_DATA_INPAGE_ERROR"),
    (0x7b, "INACCESSIBLE_BOOT_DEVICE"),
    (0x7c, "BUGCODE_NDIS_DRIVER"),
    (0x7e, "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED"),
    (0x7f, "UNEXPECTED_KERNEL_MODE_TRAP"),
    (0x80, "NMI_HARDWARE_FAILURE"),
    (0x8e, "KERNEL_MODE_EXCEPTION_NOT_HANDLED"),
    (0x92, "UP_DRIVER_ON_MP_SYSTEM"),
    (0x93, "INVALID_KERNEL_HANDLE"),
    (0x9c, "MACHINE_CHECK_EXCEPTION"),
    (0x9e, "USER_MODE_HEALTH_MONITOR"),
    (0x9f, "DRIVER_POWER_STATE_FAILURE"),
    (0xa0, "INTERNAL_POWER_ERROR"),
    (0xa5, "ACPI_BIOS_ERROR"),
    (0xab, "SESSION_HAS_VALID_POOL_ON_EXIT"),
    (0xac, "HAL_MEMORY_ALLOCATION"),
    (0xbe, "ATTEMPTED_WRITE_TO_READONLY_MEMORY"),
    (0xc1, "SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION"),
    (0xc2, "BAD_POOL_CALLER"),
    (0xc4, "DRIVER_VERIFIER_DETECTED_VIOLATION"),
    (0xc5, "DRIVER_CORRUPTED_EXPOOL"),
    (0xc9, "DRIVER_VERIFIER_IOMANAGER_VIOLATION"),
    (0xce, "DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS"),
    (0xd1, "DRIVER_IRQL_NOT_LESS_OR_EQUAL"),
    (0xd8, "DRIVER_USED_EXCESSIVE_PTES"),
    (0xda, "SYSTEM_PTE_MISUSE"),
    (0xde, "POOL_CORRUPTION_IN_FILE_AREA"),
    (0xe2, "MANUALLY_INITIATED_CRASH"),
    (0xe3, "RESOURCE_NOT_OWNED"),
    (0xed, "UNMOUNTABLE_BOOT_VOLUME"),
    (0xef, "CRITICAL_PROCESS_DIED"),
    (0xf4, "CRITICAL_OBJECT_TERMINATION"),
    (0xf7, "DRIVER_OVERRAN_STACK_BUFFER"),
    (0xfc, "ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY"),
    (0xfe, "BUGCODE_USB_DRIVER"),
    (0x101, "CLOCK_WATCHDOG_TIMEOUT"),
    (0x109, "CRITICAL_STRUCTURE_CORRUPTION"),
    (0x10d, "WDF_VIOLATION"),
    (0x10e, "VIDEO_MEMORY_MANAGEMENT_INTERNAL"),
    (0x113, "VIDEO_DXGKRNL_FATAL_ERROR"),
    (0x116, "VIDEO_TDR_FAILURE"),
    (0x119, "VIDEO_SCHEDULER_INTERNAL_ERROR"),
    (0x11b, "DRIVER_RETURNED_HOLDING_CANCEL_LOCK"),
    (0x122, "WHEA_INTERNAL_ERROR"),
    (0x124, "WHEA_UNCORRECTABLE_ERROR"),
    (0x127, "PAGE_NOT_ZERO"),
    (0x133, "DPC_WATCHDOG_VIOLATION"),
    (0x139, "KERNEL_SECURITY_CHECK_FAILURE"),
    (0x13a, "KERNEL_MODE_HEAP_CORRUPTION"),
    (0x144, "BUGCODE_USB3_DRIVER"),
    (0x154, "UNEXPECTED_STORE_EXCEPTION"),
    (0x157, "KERNEL_THREAD_PRIORITY_FLOOR_VIOLATION"),
    (0x15f, "CONNECTED_STANDBY_WATCHDOG_TIMEOUT_LIVEDUMP"),
    (0x161, "LIVE_SYSTEM_DUMP"),
    (0x17e, "MICROCODE_REVISION_MISMATCH"),
    (0x18b, "SECURE_KERNEL_ERROR"),
    (0x1ca, "SYNTHETIC_WATCHDOG_TIMEOUT"),
    (0x1d5, "DRIVER_PNP_WATCHDOG"),
    (0xc000_0218, "STATUS_CANNOT_LOAD_REGISTRY_FILE"),
    (0xc000_021a, "STATUS_SYSTEM_PROCESS_TERMINATED"),
    (0xc000_0221, "STATUS_IMAGE_CHECKSUM_MISMATCH"),
    (0xdead_dead, "MANUALLY_INITIATED_CRASH1"),
];

/// The name of a stop code; `None` for those that are not in the list. The bit 0x1000_0000 that dumps set on some codes
/// (a variant with more parameters) does not matter.
pub fn bugcheck_name(code: u32) -> Option<&'static str> {
    let find = |code| NAMES.iter().find(|(known, _)| *known == code).map(|(_, name)| *name);
    find(code).or_else(|| find(code & !0x1000_0000))
}

/// The stop code of that name.
pub(super) fn bugcheck_code(name: &str) -> Option<u32> {
    NAMES.iter().find(|(_, known)| *known == name).map(|(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names() {
        assert_eq!(bugcheck_name(0x7b), Some("INACCESSIBLE_BOOT_DEVICE"));
        assert_eq!(bugcheck_name(0x1000_007e), Some("SYSTEM_THREAD_EXCEPTION_NOT_HANDLED"));
        assert_eq!(bugcheck_name(0xc000_021a), Some("STATUS_SYSTEM_PROCESS_TERMINATED"));
        assert_eq!(bugcheck_name(0x7_7777), None);
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, none twice");
    }
}
