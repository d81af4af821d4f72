//! Names of the codes that servicing writes into its logs: HRESULTs of CBS (winerror.h, CbsMsg), of Windows Update (wuerror.h), of Win32, and
//! NTSTATUS values (ntstatus.h). Only codes whose name is published are here.

/// Code and name.
const NAMES: [(u32, &str); 66] = [
    (0x0000_0000, "S_OK"),
    (0x800f_0805, "CBS_E_INVALID_PACKAGE"),
    (0x800f_0806, "CBS_E_PENDING"),
    (0x800f_080c, "CBS_E_UNKNOWN_UPDATE"),
    (0x800f_081e, "CBS_E_NOT_APPLICABLE"),
    (0x800f_081f, "CBS_E_SOURCE_MISSING"),
    (0x800f_0820, "CBS_E_CANCEL"),
    (0x800f_0821, "CBS_E_ABORT"),
    (0x800f_0823, "CBS_E_NEW_SERVICING_STACK_REQUIRED"),
    (0x800f_0825, "CBS_E_CANNOT_UNINSTALL"),
    (0x800f_0830, "CBS_E_IMAGE_UNSERVICEABLE"),
    (0x800f_0831, "CBS_E_STORE_CORRUPTION"),
    (0x800f_0906, "CBS_E_DOWNLOAD_FAILURE"),
    (0x800f_0907, "CBS_E_GROUPPOLICY_DISALLOWED"),
    (0x800f_0922, "CBS_E_INSTALLERS_FAILED"),
    (0x800f_0982, "PSFX_E_MATCHING_COMPONENT_NOT_FOUND"),
    (0x800f_0986, "PSFX_E_APPLY_FORWARD_DELTA_FAILED"),
    (0x800f_0988, "PSFX_E_INVALID_DELTA_COMBINATION"),
    (0x800f_0991, "PSFX_E_MISSING_PAYLOAD_FILE"),
    (0x8000_4004, "E_ABORT"),
    (0x8000_4005, "E_FAIL"),
    (0x8000_ffff, "E_UNEXPECTED"),
    (0x8007_0002, "ERROR_FILE_NOT_FOUND"),
    (0x8007_0003, "ERROR_PATH_NOT_FOUND"),
    (0x8007_0005, "E_ACCESSDENIED"),
    (0x8007_000d, "ERROR_INVALID_DATA"),
    (0x8007_000e, "E_OUTOFMEMORY"),
    (0x8007_001f, "ERROR_GEN_FAILURE"),
    (0x8007_0020, "ERROR_SHARING_VIOLATION"),
    (0x8007_0057, "E_INVALIDARG"),
    (0x8007_0070, "ERROR_DISK_FULL"),
    (0x8007_03f1, "ERROR_BADDB"),
    (0x8007_0422, "ERROR_SERVICE_DISABLED"),
    (0x8007_0490, "ERROR_NOT_FOUND"),
    (0x8007_0570, "ERROR_FILE_CORRUPT"),
    (0x8007_05aa, "ERROR_NO_SYSTEM_RESOURCES"),
    (0x8007_0643, "ERROR_INSTALL_FAILURE"),
    (0x8007_06be, "RPC_S_CALL_FAILED"),
    (0x8007_0bc2, "ERROR_SUCCESS_REBOOT_REQUIRED"),
    (0x8007_0bc9, "ERROR_FAIL_REBOOT_REQUIRED"),
    (0x8007_3701, "ERROR_SXS_ASSEMBLY_MISSING"),
    (0x8007_3712, "ERROR_SXS_COMPONENT_STORE_CORRUPT"),
    (0x8007_3713, "ERROR_ADVANCED_INSTALLER_FAILED"),
    (0x8007_371b, "ERROR_SXS_TRANSACTION_CLOSURE_INCOMPLETE"),
    (0x800b_0100, "TRUST_E_NOSIGNATURE"),
    (0x800b_0101, "CERT_E_EXPIRED"),
    (0x800b_0109, "CERT_E_UNTRUSTEDROOT"),
    (0x8024_0016, "WU_E_INSTALL_NOT_ALLOWED"),
    (0x8024_0022, "WU_E_ALL_UPDATES_FAILED"),
    (0x8024_2016, "WU_E_UH_POSTREBOOTUNEXPECTEDSTATE"),
    (0xc000_000d, "STATUS_INVALID_PARAMETER"),
    (0xc000_0017, "STATUS_NO_MEMORY"),
    (0xc000_0022, "STATUS_ACCESS_DENIED"),
    (0xc000_0034, "STATUS_OBJECT_NAME_NOT_FOUND"),
    (0xc000_0035, "STATUS_OBJECT_NAME_COLLISION"),
    (0xc000_003a, "STATUS_OBJECT_PATH_NOT_FOUND"),
    (0xc000_0043, "STATUS_SHARING_VIOLATION"),
    (0xc000_007b, "STATUS_INVALID_IMAGE_FORMAT"),
    (0xc000_007f, "STATUS_DISK_FULL"),
    (0xc000_009a, "STATUS_INSUFFICIENT_RESOURCES"),
    (0xc000_0102, "STATUS_FILE_CORRUPT_ERROR"),
    (0xc000_014c, "STATUS_REGISTRY_CORRUPT"),
    (0xc000_0185, "STATUS_IO_DEVICE_ERROR"),
    (0xc000_0221, "STATUS_IMAGE_CHECKSUM_MISMATCH"),
    (0xc000_0225, "STATUS_NOT_FOUND"),
    (0xc01a_001d, "STATUS_LOG_FULL"),
];

/// The name of a code, where it has one.
pub fn code_name(code: u32) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == code).map(|(_, name)| *name)
}

/// Eight hexadecimal digits after `0x` in a text.
fn codes(text: &str) -> impl Iterator<Item = u32> + '_ {
    text.match_indices("0x").filter_map(|(at, _)| {
        let digits = text.get(at + 2..at + 10)?;
        let ends = text[at + 10..].chars().next().is_none_or(|c| !c.is_ascii_hexdigit());
        digits.chars().all(|c| c.is_ascii_hexdigit()).then_some(())?;
        u32::from_str_radix(digits, 16).ok().filter(|_| ends)
    })
}

/// The HRESULT that a line ends with (`[HRESULT = 0x...]`), else the first code of a failure in it.
pub(super) fn code_in(text: &str) -> Option<u32> {
    match text.find("HRESULT = ") {
        Some(at) => codes(&text[at..]).next(),
        None => codes(text).find(|code| code >> 28 == 0x8 || code >> 28 == 0xc),
    }
}

/// A code with its name.
pub(super) fn code_text(code: u32) -> String {
    match code_name(code) {
        Some(name) => format!("{code:#010x} {name}"),
        None => format!("{code:#010x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_and_named() {
        assert_eq!(code_in("Failed [HRESULT = 0x800f0922 - CBS_E_INSTALLERS_FAILED]"), Some(0x800f_0922));
        assert_eq!(code_in("flags 0x00000040, status 0xc000009a."), Some(0xc000_009a));
        assert_eq!(code_in("@0x1d39b1bd1f8f6c8"), None);
        assert_eq!(code_text(0xc000_009a), "0xc000009a STATUS_INSUFFICIENT_RESOURCES");
        assert_eq!(code_text(0x800f_0fff), "0x800f0fff");
        assert!(NAMES.windows(2).all(|pair| pair[0].0 != pair[1].0));
    }
}
