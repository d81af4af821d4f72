//! Which of the documented offline repairs have a script: the ids of the acceptance table against the sources of the scripts.

use super::script::Script;
use serde::Serialize;
use std::fmt::Write;

/// Id, class and title of every procedure whose article was read and whose steps can be done offline: `FULL` by simple operations, `FULL-ENG` with engineered
/// ones, `FULL*` derived; `PARTIAL` in part.
const PROCEDURES: &[(&str, &str, &str)] = &[
    ("AZ-A01", "FULL", "Repair the boot configuration data in Windows VMs (include)"),
    ("AZ-A02", "FULL-ENG", "Repair or replace corrupted or missing binary files (include)"),
    ("AZ-A03", "FULL", "Fix registry hive corruption (include)"),
    ("AZ-A04", "FULL", "Verify that the Windows partition is active"),
    ("AZ-A05", "FULL", "Enable serial console and memory dump collection (include)"),
    ("AZ-A07", "FULL-ENG", "Unlock an encrypted disk for offline repair (ADE/BitLocker)"),
    ("AZ-A10", "FULL", "Start Azure Windows VM with Last Known Good Configuration"),
    ("AZ-A11", "FULL", "Install the Azure VM Agent in offline mode"),
    ("AZ-A12", "FULL", "Reset local Windows password for Azure VM offline"),
    ("AZ-B01", "FULL-ENG", "Boot error code 0xC000000F"),
    ("AZ-B02", "FULL", "Winload.exe error code 0xC000000E"),
    ("AZ-B03", "FULL-ENG", "Boot error 0xC0000011"),
    ("AZ-B04", "FULL", "Windows boot error 0xC0000034"),
    ("AZ-B05", "FULL-ENG", "Windows boot error 0xC0000098"),
    ("AZ-B06", "PARTIAL", "Windows boot error 0xC00000BA"),
    ("AZ-B07", "FULL-ENG", "Stop error 0xC0000102 Status File Corrupt"),
    ("AZ-B08", "FULL", "Windows boot error 0xC000014C"),
    ("AZ-B09", "PARTIAL", "Windows boot error 0xC0000221"),
    ("AZ-B10", "FULL-ENG", "Boot Manager error 0xC0000225 Status not found"),
    ("AZ-B11", "FULL-ENG", "Windows boot error 0xC0000359"),
    ("AZ-B14", "FULL-ENG", "Troubleshoot Windows VM OS boot failure"),
    ("AZ-B15", "FULL-ENG", "INACCESSIBLE_BOOT_DEVICE / Boot failure in an Azure VM"),
    ("AZ-B16", "FULL-ENG", "BOOTMGR is missing"),
    ("AZ-B17", "FULL-ENG", "An operating system wasn't found"),
    ("AZ-B18", "FULL-ENG", "This is not a bootable disk"),
    ("AZ-B19", "FULL-ENG", "A disk read error occurred"),
    ("AZ-B20", "FULL", "VM cannot boot due to Windows Boot Manager menu"),
    ("AZ-B21", "FULL-ENG", "Checking file system (chkdsk at boot)"),
    ("AZ-B22", "PARTIAL", "Stop error Status No Memory 0xC0000017"),
    ("AZ-B23", "FULL", "0x00000074 Bad System Config Info"),
    ("AZ-B24", "PARTIAL", "0x0000005A CRITICAL SERVICE FAILED"),
    ("AZ-B25", "PARTIAL", "0x000000EF Critical Process Died"),
    ("AZ-B27", "PARTIAL", "0x000000D1 DRIVER_IRQL_NOT_LESS_OR_EQUAL"),
    ("AZ-B29", "PARTIAL", "Directory service initialization failure"),
    ("AZ-B30", "PARTIAL", "BitLocker boot errors"),
    ("AZ-B31", "FULL-ENG", "Azure VM startup is stuck at Windows Update"),
    ("AZ-B32", "FULL", "Stuck on \"Getting Windows ready. Don't turn off your computer\""),
    ("AZ-B33", "PARTIAL", "Stuck \"Working on features ##%\""),
    ("AZ-B34", "PARTIAL", "Windows Update installation capacity - C01A001D"),
    ("AZ-B36", "FULL", "Windows reboot loop"),
    ("AZ-B39", "FULL", "Generic blue screen when booting"),
    ("AZ-B40", "FULL", "Unresponsive applying Audit Policy Configuration policy (2012/2012R2)"),
    ("AZ-B41", "FULL", "Unresponsive applying Local Users and Groups policy (2012/2012R2)"),
    ("AZ-C01", "FULL", "RDP general error"),
    ("AZ-C02", "FULL", "RDP disconnects frequently (listener reset)"),
    ("AZ-C03", "FULL", "RDP internal error (cert/MachineKeys/TLS/NLA)"),
    ("AZ-C04", "FULL", "Remote Desktop Services isn't starting"),
    ("AZ-C05", "FULL", "DHCP Client service disabled"),
    ("AZ-C06", "FULL*", "Static IP inside the guest"),
    ("AZ-C07", "FULL*", "NIC disabled in the guest"),
    ("AZ-C08", "FULL", "VM boots into Safe Mode"),
    ("AZ-C09", "PARTIAL", "netvsc.sys 10.0.14393.594 / 10.0.15063.0"),
    ("AZ-C10", "FULL", "RDP issues by Event ID (1057/1058/36870/36872/36871/2056/1296)"),
    ("AZ-C11", "FULL", "Disable the guest OS firewall"),
    ("AZ-C12", "FULL", "Enable/disable a firewall rule"),
    ("AZ-C13", "FULL", "Firewall blocking inbound traffic (block all)"),
    ("AZ-C14", "FULL", "Guest firewall misconfigured"),
    ("AZ-C15", "FULL", "RDP authentication errors / NLA"),
    ("AZ-C16", "FULL", "CredSSP encryption oracle remediation"),
    ("AZ-C17", "FULL*", "Netlogon service not starting"),
    ("AZ-C18", "FULL*", "Network Store Interface service not starting"),
    ("AZ-C19", "FULL", "No Remote Desktop license server"),
    ("WC-01", "FULL-ENG", "KB4049094: devices fail to boot after Oct 2017 KB4041676/KB4041691"),
    ("WC-02", "PARTIAL", "Stop error 7B advanced troubleshooting"),
    ("WC-03", "FULL-ENG", "Advanced troubleshooting for Windows boot problems"),
    ("WS-01", "FULL", "0x7B after reconfiguring hardware devices (boot-start demoted)"),
    ("WS-02", "FULL", "Temporarily deactivate a kernel-mode filter driver"),
    ("RS-01", "FULL", "win-dhcp-fix"),
    ("RS-02", "FULL", "win-sac-on (sac-enabler.ps1)"),
    ("RS-03", "FULL", "win-LKGC"),
    ("RS-04", "FULL", "win-GA-fix (GA_offlinefixer.ps1)"),
    ("RS-05", "FULL-ENG", "win-crowdstrike-fix-bootloop-v2 (== v1)"),
    ("RS-06", "FULL", "win-crowdstrike-fix-bootloop-cvm"),
    ("RS-07", "FULL-ENG", "win-chkdsk-fs-corruption"),
    ("RS-08", "PARTIAL", "win-sfc-sf-corruption"),
    ("RS-09", "FULL", "win-bcdedit-ignoreAllFailure (win-ignoreAllFailures.ps1)"),
    ("RS-10", "FULL", "win-toggle-safe-mode"),
    ("RS-11", "FULL", "win-update-registry"),
    ("RS-12", "FULL", "win-create-troubleshooting-user"),
    ("RS-13", "FULL", "win-get-patches"),
    ("RS-14", "PARTIAL", "win-remove-patch"),
    ("RS-15", "FULL", "win-get-apps"),
    ("RS-16", "FULL", "win-remove-app"),
    ("RS-17", "FULL", "win-collect-attached-disk-logs"),
    ("RS-18", "PARTIAL", "win-dumpconfigurator"),
    ("RS-21", "FULL", "win-sacdump-on (deleted 2026-08-19: sac-os-dump-enabler.ps1)"),
    ("RS-22", "FULL", "win-crowdstrike-fix-bootloop-v3 (deleted)"),
    ("INC-01", "FULL", "CrowdStrike Falcon channel file 291 (2024-07-19)"),
    ("INC-03", "FULL*", "KB5062553: Azure Gen2 VM, Trusted Launch off + VBS enforced by registry"),
    ("INC-05", "PARTIAL", "KB5058405: ACPI.sys 0xc0000098 on Win11 22H2/23H2 VMs"),
    ("INC-08", "FULL", "KB5021233: hidparse.sys mismatch 0xC000021A (Win10 20H2-22H2)"),
    ("INC-09", "PARTIAL", "KB5022842: WS2022 Secure Boot VM on ESXi 6.7/7.0 no boot"),
    ("INC-10", "PARTIAL", "April 2026 LSASS restart loop on DCs (KB5082063/KB5082142/KB5082123/KB5082198)"),
];

/// Procedures that want no script: the command that does it.
const COMMANDS: [(&str, &str); 5] = [
    (
        "AZ-A07",
        "COMMAND IMAGE --recovery-key FILE.BEK (or --recovery-password, --password-file): every command",
    ),
    ("AZ-B30", "COMMAND IMAGE --recovery-password TEXT (unlocks; to suspend or decrypt wants manage-bde)"),
    ("RS-13", "updates"),
    ("RS-15", "inspect --apps"),
    ("RS-17", "collect"),
];

/// One procedure and the scripts that name it.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// Id of the procedure.
    pub id: &'static str,
    /// Its class.
    pub class: &'static str,
    /// Title of its article.
    pub title: &'static str,
    /// Names of the scripts.
    pub scripts: Vec<String>,
    /// The command that does it, for those that want no script.
    pub command: Option<&'static str>,
}

impl Coverage {
    /// True when something here does it.
    pub fn is_covered(&self) -> bool {
        self.command.is_some() || !self.scripts.is_empty()
    }

    /// True when the whole procedure can be done offline.
    pub fn is_full(&self) -> bool {
        self.class.starts_with("FULL")
    }

    /// What does it, for people.
    pub fn done_by(&self) -> String {
        match (self.command, self.scripts.is_empty()) {
            (Some(command), _) => format!("vmrescue {command}"),
            (None, true) => "-".into(),
            (None, false) => self.scripts.join(", "),
        }
    }
}

/// All procedures, in the order of the table.
pub fn coverage(scripts: &[Script]) -> Vec<Coverage> {
    PROCEDURES
        .iter()
        .map(|(id, class, title)| {
            let named = scripts.iter().filter(|script| script.source.iter().any(|source| source == id));
            let command = COMMANDS.iter().find(|(own, _)| own == id).map(|(_, command)| *command);
            Coverage { id, class, title, scripts: named.map(|script| script.name.clone()).collect(), command }
        })
        .collect()
}

/// The table as a page of Markdown (`docs/procedures.md`).
pub fn coverage_page(scripts: &[Script]) -> String {
    let rows = coverage(scripts);
    let full: Vec<&Coverage> = rows.iter().filter(|row| row.is_full()).collect();
    let part: Vec<&Coverage> = rows.iter().filter(|row| !row.is_full()).collect();
    let done = |rows: &[&Coverage]| rows.iter().filter(|row| row.is_covered()).count();
    let mut page = format!(
        "# The documented offline repairs\n\nWritten by `vmrescue scripts --coverage --markdown`. Of {} repairs that can be done offline as a whole, {} have a script or a command; of {} that can be \
         done in part, {}. Every script is run by `tests/suite/scripts.rs` on a disk that gives it something to do.\n",
        full.len(),
        done(&full),
        part.len(),
        done(&part),
    );
    for (heading, list) in [("As a whole", full), ("In part", part)] {
        let _infallible =
            write!(page, "\n## {heading}\n\n| id | class | article | done by |\n|---|---|---|---|\n");
        for row in list {
            let title = row.title.replace('|', "\\|");
            let _infallible = writeln!(page, "| {} | {} | {title} | {} |", row.id, row.class, row.done_by());
        }
    }
    page.push_str("\n## What remains\n\n");
    for script in scripts.iter().filter(|script| !script.remains.is_empty()) {
        let _infallible = writeln!(page, "* `{}`: {}", script.name, script.remains.trim());
    }
    page
}
