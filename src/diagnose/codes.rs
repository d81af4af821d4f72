//! Codes that screens, logs and Windows Update show: their names, what they mean for a disk, and what to do next. What a rule looks for is told by
//! the rule; here is what a question about the code itself is answered with.
//!
//! Names are those of winerror.h, ntstatus.h, CbsMsg and wuerror.h.

use std::fmt::Write as _;
use vmrescue_windows::{Asked, bugcheck_name, code_name};

/// Code, name, what it means, what to do next, the rules that look for its causes.
type Row = (u32, &'static str, &'static str, &'static str, &'static [&'static str]);

const STORY: &str = "`vmrescue updates IMAGE --story` tells which file or package the update stopped at.";
const EXACT: &str = "`vmrescue updates IMAGE --story` names the file; `vmrescue repair IMAGE restore-file --set path=FILE --source UPDATE` puts the exact one back.";
const PENDING: &str =
    "When the machine does not start, set the update aside: `vmrescue repair IMAGE revert-pending-updates`.";
const NETWORK: &str =
    "Nothing on the disk is to be repaired for it: it is a matter of the network or the server of updates.";

/// In the order of their numbers.
const ROWS: &[Row] = &[
    (
        0x8000_4005,
        "E_FAIL",
        "Something failed, and no more is said. The lines before it in the log say what.",
        STORY,
        &[],
    ),
    (
        0x8007_0002,
        "ERROR_FILE_NOT_FOUND",
        "A file, or a key of the registry, that was asked for is not there. In servicing it is mostly a file of the component store or a driver that a package needs; at the start a program file or a hive.",
        EXACT,
        &["core-file-missing", "update-pending"],
    ),
    (
        0x8007_0003,
        "ERROR_PATH_NOT_FOUND",
        "A folder that was asked for is not there: mostly one of the component store, or a profile or drive letter that has gone.",
        EXACT,
        &["windows-drive-letter"],
    ),
    (
        0x8007_0005,
        "E_ACCESSDENIED",
        "Access was denied: permissions of a file or key were changed, or another program holds it.",
        "`vmrescue put --like` gives a file the security of another one; the step file.grant of a script grants rights.",
        &[],
    ),
    (
        0x8007_000d,
        "ERROR_INVALID_DATA",
        "What was read makes no sense: a manifest, a catalog or a file of the component store is damaged.",
        EXACT,
        &[],
    ),
    (0x8007_000e, "E_OUTOFMEMORY", "Memory ran out while an update was applied.", STORY, &[]),
    (
        0x8007_001f,
        "ERROR_GEN_FAILURE",
        "A device does not work: a driver was not installed, or does not start.",
        "`vmrescue drivers IMAGE` shows the drivers that cannot be loaded.",
        &["boot-driver-broken"],
    ),
    (
        0x8007_0020,
        "ERROR_SHARING_VIOLATION",
        "Another program holds the file, often a virus scanner.",
        STORY,
        &[],
    ),
    (
        0x8007_0057,
        "E_INVALIDARG",
        "A parameter is wrong; in servicing mostly a registry value or a manifest that is damaged.",
        STORY,
        &["hive-damaged"],
    ),
    (
        0x8007_0070,
        "ERROR_DISK_FULL",
        "There is no room on the volume.",
        "`vmrescue repair IMAGE free-space` deletes what Windows makes anew; `vmrescue disk resize` makes the disk longer.",
        &["volume-full"],
    ),
    (
        0x8007_007e,
        "ERROR_MOD_NOT_FOUND",
        "A library that a program imports is not there.",
        "`vmrescue diagnose IMAGE` follows the imports of everything that the start needs.",
        &["core-file-missing"],
    ),
    (
        0x8007_00c1,
        "ERROR_BAD_EXE_FORMAT",
        "A program file is damaged, or was built for another processor.",
        EXACT,
        &["core-file-broken", "boot-driver-broken"],
    ),
    (
        0x8007_03f1,
        "ERROR_BADDB",
        "The registry is damaged.",
        "`vmrescue check IMAGE` names the hive and the place; `check --repair` writes it anew from what can be read.",
        &["hive-damaged", "hive-unreadable"],
    ),
    (
        0x8007_0422,
        "ERROR_SERVICE_DISABLED",
        "A service that is needed is switched off: wuauserv, bits, cryptsvc, trustedinstaller.",
        "`vmrescue drivers IMAGE --all` shows the start of each service; `vmrescue reg set` changes it.",
        &[],
    ),
    (
        0x8007_0490,
        "ERROR_NOT_FOUND",
        "An element is not there: an entry of the boot store, a driver, or a component whose registration is lost.",
        EXACT,
        &["boot-store-incomplete"],
    ),
    (
        0x8007_0570,
        "ERROR_FILE_CORRUPT",
        "A file or folder is damaged and cannot be read.",
        "`vmrescue check IMAGE` checks the file systems; `vmrescue repair IMAGE check-file-system` repairs what has one right answer.",
        &["volume-metadata-damaged", "file-system-damage-reported", "volume-dirty"],
    ),
    (
        0x8007_0643,
        "ERROR_INSTALL_FAILURE",
        "An installer failed. KB5034441 and its like say so when the recovery partition is too small.",
        "`vmrescue partition list IMAGE` shows the size of the recovery partition.",
        &[],
    ),
    (
        0x8007_0bc9,
        "ERROR_FAIL_REBOOT_REQUIRED",
        "A restart is waited for before anything else can be installed.",
        PENDING,
        &["update-pending"],
    ),
    (
        0x8007_19e4,
        "ERROR_LOG_FULL",
        "The log of transactions of the registry or the file system is full.",
        "`vmrescue repair IMAGE clear-txr-logs` removes the logs; Windows makes new ones.",
        &["transaction-log-full", "kb5003638-log-full"],
    ),
    (
        0x8007_1a90,
        "ERROR_TRANSACTIONAL_CONFLICT",
        "A transaction of the registry or the file system stands in the way.",
        "`vmrescue repair IMAGE clear-txr-logs` removes the logs of transactions that were not finished.",
        &[],
    ),
    (
        0x8007_1a91,
        "ERROR_RM_NOT_ACTIVE",
        "The resource manager of transactions is not active: its logs are damaged.",
        "`vmrescue repair IMAGE clear-txr-logs` removes them; Windows makes new ones.",
        &[],
    ),
    (
        0x8007_3701,
        "ERROR_SXS_ASSEMBLY_MISSING",
        "A component that others refer to is not in the component store.",
        EXACT,
        &[],
    ),
    (
        0x8007_3712,
        "ERROR_SXS_COMPONENT_STORE_CORRUPT",
        "The component store is damaged: a manifest or a file is missing or not the right one.",
        EXACT,
        &["hive-damaged"],
    ),
    (
        0x8007_3713,
        "ERROR_ADVANCED_INSTALLER_FAILED",
        "An installer inside of a component failed: often a driver, a boot file or a service.",
        STORY,
        &["servicing-failed"],
    ),
    (
        0x8007_371b,
        "ERROR_SXS_TRANSACTION_CLOSURE_INCOMPLETE",
        "Components that belong together are not all there.",
        EXACT,
        &[],
    ),
    (
        0x800b_0100,
        "TRUST_E_NOSIGNATURE",
        "A file has no signature that Windows trusts: a catalog is missing or damaged.",
        EXACT,
        &[],
    ),
    (
        0x800b_0101,
        "CERT_E_EXPIRED",
        "A certificate has run out, or the clock of the machine is wrong.",
        STORY,
        &[],
    ),
    (0x800b_0109, "CERT_E_UNTRUSTEDROOT", "The root certificate is not trusted.", STORY, &[]),
    (0x800f_0805, "CBS_E_INVALID_PACKAGE", "The package is damaged or not for this Windows.", STORY, &[]),
    (0x800f_080c, "CBS_E_UNKNOWN_UPDATE", "The name of a feature is not known.", STORY, &[]),
    (
        0x800f_081e,
        "CBS_E_NOT_APPLICABLE",
        "The update is not for this build or edition, or its requirements are missing.",
        "`vmrescue info IMAGE` says the build; `vmrescue updates IMAGE` lists the packages.",
        &[],
    ),
    (
        0x800f_081f,
        "CBS_E_SOURCE_MISSING",
        "Files that are to be installed or repaired are not in the component store, and no source was found.",
        EXACT,
        &[],
    ),
    (0x800f_0820, "CBS_E_CANCEL", "The work was cancelled.", STORY, &[]),
    (
        0x800f_0823,
        "CBS_E_NEW_SERVICING_STACK_REQUIRED",
        "The servicing stack is too old for the update.",
        "Install the servicing stack update first.",
        &["servicing-stack-old"],
    ),
    (
        0x800f_0831,
        "CBS_E_STORE_CORRUPTION",
        "The component store lacks a package that others need, often the last cumulative update's manifest.",
        EXACT,
        &[],
    ),
    (
        0x800f_0900,
        "CBS_E_XML_PARSER_FAILURE",
        "A manifest or pending.xml cannot be parsed.",
        PENDING,
        &["update-pending"],
    ),
    (0x800f_0906, "CBS_E_DOWNLOAD_FAILURE", "The files could not be downloaded.", NETWORK, &[]),
    (0x800f_0907, "CBS_E_GROUPPOLICY_DISALLOWED", "A policy forbids to fetch the files.", NETWORK, &[]),
    (
        0x800f_0922,
        "CBS_E_INSTALLERS_FAILED",
        "Installers of the update failed: often there is no room on the system partition, or a boot file cannot be written.",
        "`vmrescue partition list IMAGE` and `vmrescue ls IMAGE esp:\\` show the system partition; `vmrescue updates IMAGE --story` what failed.",
        &["volume-full", "update-pending", "servicing-failed"],
    ),
    (
        0x800f_0982,
        "PSFX_E_MATCHING_COMPONENT_NOT_FOUND",
        "The component that a delta is for is not there, often after a language pack.",
        EXACT,
        &[],
    ),
    (0x800f_0984, "PSFX_E_MATCHING_BINARY_MISSING", "The file that a delta is for is not there.", EXACT, &[]),
    (
        0x800f_0986,
        "PSFX_E_APPLY_FORWARD_DELTA_FAILED",
        "A file is not the one that the delta is for.",
        EXACT,
        &[],
    ),
    (
        0x800f_0988,
        "PSFX_E_INVALID_DELTA_COMBINATION",
        "The deltas in the store do not fit together.",
        EXACT,
        &[],
    ),
    (0x800f_0991, "PSFX_E_MISSING_PAYLOAD_FILE", "A file of the package is missing.", EXACT, &[]),
    (0x8024_0034, "WU_E_DOWNLOAD_FAILED", "The update could not be downloaded.", NETWORK, &[]),
    (
        0x8024_2016,
        "WU_E_UH_POSTREBOOTUNEXPECTEDSTATE",
        "After the restart the update was in a state that nobody expected: it was undone, or stopped half-way.",
        STORY,
        &["update-pending", "servicing-failed"],
    ),
    (0x8024_200d, "WU_E_UH_NEEDANOTHERDOWNLOAD", "The download has to be made again.", NETWORK, &[]),
    (
        0x8024_402c,
        "WU_E_PT_WINHTTP_NAME_NOT_RESOLVED",
        "The name of the server of updates could not be resolved.",
        NETWORK,
        &[],
    ),
    (
        0x8024_4022,
        "WU_E_PT_HTTP_STATUS_SERVICE_UNAVAIL",
        "The server of updates does not answer.",
        NETWORK,
        &[],
    ),
    (
        0xc000_0001,
        "STATUS_UNSUCCESSFUL",
        "The boot manager or the loader failed and says no more. It is seen with damaged hives, with a boot store that fits another disk, and with firmware that cannot read the disk.",
        "`vmrescue diagnose IMAGE` walks the whole start.",
        &["hive-unreadable", "hive-not-clean", "boot-store-dangling-device"],
    ),
    (
        0xc000_0005,
        "STATUS_ACCESS_VIOLATION",
        "A program or driver read or wrote where nothing is. As the parameter of a stop it names no cause by itself.",
        "`vmrescue inspect IMAGE` shows what the last dump says.",
        &["crashed"],
    ),
    (
        0xc000_0017,
        "STATUS_NO_MEMORY",
        "The loader found too little memory that it may use.",
        "`vmrescue bcd enum IMAGE` shows the list of bad memory, truncatememory and removememory.",
        &["bad-memory-list"],
    ),
    (
        0xc000_009a,
        "STATUS_INSUFFICIENT_RESOURCES",
        "Something ran out: room in the log of the file system, in the registry, or memory.",
        STORY,
        &["volume-full"],
    ),
    (
        0xc000_00e9,
        "STATUS_UNEXPECTED_IO_ERROR",
        "The disk could not be read.",
        "Look at the storage below the image, and copy it before anything is repaired: `vmrescue disk convert`.",
        &["disk-errors-reported"],
    ),
    (
        0xc000_0135,
        "STATUS_DLL_NOT_FOUND",
        "A library that a process of the start imports is not there.",
        "`vmrescue diagnose IMAGE` follows the imports.",
        &["core-file-missing"],
    ),
    (
        0xc000_0142,
        "STATUS_DLL_INIT_FAILED",
        "A library of a process of the start did not initialise: it is damaged, or of another build than the others.",
        "`vmrescue diagnose IMAGE` looks at the files of the session.",
        &["core-file-broken", "core-version-mixed"],
    ),
    (
        0xc000_0185,
        "STATUS_IO_DEVICE_ERROR",
        "The disk, or the virtual disk below, could not be read.",
        "Look at the storage of the host below the image, and copy it before anything is repaired: `vmrescue disk convert`.",
        &["disk-errors-reported"],
    ),
    (
        0xc000_021a,
        "STATUS_SYSTEM_PROCESS_TERMINATED",
        "A process that Windows cannot do without ended: csrss or winlogon. A file of the session is missing, damaged, or of another build after an update that stopped.",
        "`vmrescue diagnose IMAGE` looks at the files of the session.",
        &["core-file-missing", "core-file-broken", "core-version-mixed", "kb5021233-hidparse"],
    ),
    (
        0xc000_0605,
        "STATUS_IMAGE_CERT_EXPIRED",
        "The evaluation copy has run out: its signature was good until a day.",
        "Set the clock of the machine back, or install a licensed edition.",
        &[],
    ),
    (
        0xc043_0001,
        "STATUS_SECUREBOOT_ROLLBACK_DETECTED",
        "Secure Boot found boot files that are older than its policy allows.",
        "Put the newer boot files onto the system partition: `vmrescue repair IMAGE rebuild-boot`.",
        &[],
    ),
    (
        0xc190_0101,
        "Setup rolled back",
        "An upgrade stopped, in most cases because of a driver. The second number, as in 0xC1900101-0x20017, says in which phase.",
        "`vmrescue collect IMAGE FILE` gathers the logs of Setup ($WINDOWS.~BT\\Sources\\Panther).",
        &["setup-unfinished"],
    ),
    (
        0xc190_010e,
        "MOSETUP_E_INSTALL_IMAGE",
        "Setup could not use its image.",
        "Fetch the installation medium again.",
        &[],
    ),
    (
        0xc190_0200,
        "MOSETUP_E_COMPAT_SYSREQ_BLOCK",
        "The machine does not meet the requirements of the upgrade.",
        "Nothing on the disk is to be repaired for it.",
        &[],
    ),
    (
        0xc190_0208,
        "MOSETUP_E_COMPAT_INSTALLREQ_BLOCK",
        "A program that is installed is not compatible with the upgrade.",
        "Remove it in the running Windows.",
        &[],
    ),
];

/// What is known of a code, for people; `None` when the question names none that has a name.
pub(super) fn note(asked: &Asked) -> Option<String> {
    let code = asked.code?;
    let row = ROWS.iter().find(|(known, ..)| *known == code);
    // Stop codes have few digits, statuses eight.
    let stop = (code < 0x1000).then(|| bugcheck_name(code)).flatten();
    let name = row.map(|row| row.1).or(stop).or_else(|| code_name(code))?;
    let shown = if code < 0x1000 { format!("stop {code:#x}") } else { format!("{code:#010x}") };
    let mut text = format!("{shown} {name}\n");
    if let Some((_, _, meaning, next, _)) = row {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{meaning}\n{next}\n");
    } else {
        let what = if code < 0x1000 { "a stop of the kernel" } else { "a code of Windows" };
        let _infallible = writeln!(
            text,
            "It is {what}. `vmrescue inspect IMAGE` shows what the last dump says, `vmrescue events IMAGE` what happened before; `vmrescue scripts --for {code:#x}` lists the repairs that are documented for it."
        );
    }
    Some(text)
}

/// The rules that look for causes of a code.
pub(super) fn rules_of(asked: &Asked) -> &'static [&'static str] {
    let row = asked.code.and_then(|code| ROWS.iter().find(|(known, ..)| *known == code));
    row.map_or(&[], |row| row.4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_name_rules_that_there_are() {
        let sorted = |pair: &[Row]| pair[0].0 < pair[1].0;
        let known: Vec<String> = crate::rules(&[]).unwrap().into_iter().map(|rule| rule.rule).collect();
        let mut rows = ROWS.to_vec();
        rows.sort_by_key(|row| row.0);
        assert!(rows.windows(2).all(sorted), "a code is there twice");
        for (code, name, meaning, next, rules) in ROWS {
            assert!(!meaning.is_empty() && !next.is_empty());
            if let Some(published) = code_name(*code) {
                assert_eq!(published, *name);
            }
            for rule in *rules {
                assert!(known.iter().any(|known| known == rule), "{code:#x}: {rule} is no rule");
            }
        }
    }

    #[test]
    fn codes_that_people_paste_have_an_answer() {
        for text in
            ["0x80070002", "80070002", "0x800f0922", "0xc1900101-0x20017", "0xC4", "c0000185", "0x800F0831"]
        {
            assert!(note(&Asked::new(text)).is_some(), "{text}");
        }
        assert!(note(&Asked::new("0x80070002")).unwrap().contains("ERROR_FILE_NOT_FOUND"));
        assert_eq!(note(&Asked::new("0x12345678")), None);
        assert_eq!(note(&Asked::new("BOOTMGR is missing")), None);
    }
}
