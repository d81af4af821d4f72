//! What protects the start: Secure Boot, virtualization-based security, the TPM. Of the last two the disk only tells how they are set up, not
//! whether they ran.

use super::Source;
use serde::Serialize;

const GUARD: &str = r"%\Control\DeviceGuard";

/// Secure Boot, virtualization-based security, TPM.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Security {
    /// `UEFISecureBootEnabled`: Secure Boot was on when Windows last ran.
    pub secure_boot: Option<bool>,
    /// State of the change to the certificates of 2023 (`UEFICA2023Status`).
    pub uefi_ca_2023: Option<String>,
    /// Virtualization-based security is set up.
    pub vbs: Option<bool>,
    /// It wants platform features: 1 Secure Boot, 3 Secure Boot and DMA protection.
    pub vbs_platform_features: Option<u32>,
    /// It is locked in the firmware.
    pub vbs_locked: Option<bool>,
    /// Windows stops when it cannot be started.
    pub vbs_mandatory: Option<bool>,
    /// Memory integrity (HVCI).
    pub hvci: Option<bool>,
    /// Memory integrity is locked in the firmware.
    pub hvci_locked: Option<bool>,
    /// `LsaCfgFlags`, Credential Guard: 0 off, 1 on with lock, 2 on without.
    pub credential_guard: Option<u32>,
    /// System Guard secure launch.
    pub secure_launch: Option<bool>,
    /// LSA runs protected (`RunAsPPL`).
    pub lsa_protected: Option<u32>,
    /// The blocklist of vulnerable drivers.
    pub driver_blocklist: Option<bool>,
    /// Windows has seen a TPM 2.0 on this machine (a device `MSFT0101`), as a Trusted Launch machine has one.
    pub tpm_seen: Option<bool>,
    /// Policies of `DeviceGuard` that win over the above, as name and number.
    pub policies: Vec<(String, u32)>,
}

pub(super) fn read(source: &Source<'_>) -> Security {
    let (system, software) = (&source.system, &source.software);
    let policy = r"Policies\Microsoft\Windows\DeviceGuard";
    let names = [
        "EnableVirtualizationBasedSecurity",
        "RequirePlatformSecurityFeatures",
        "HypervisorEnforcedCodeIntegrity",
        "LsaCfgFlags",
    ];
    let hvci = format!(r"{GUARD}\Scenarios\HypervisorEnforcedCodeIntegrity");
    Security {
        secure_boot: system.flag(r"%\Control\SecureBoot\State", "UEFISecureBootEnabled"),
        uefi_ca_2023: system.text(r"%\Control\SecureBoot\Servicing", "UEFICA2023Status"),
        vbs: system.flag(GUARD, "EnableVirtualizationBasedSecurity"),
        vbs_platform_features: system.number(GUARD, "RequirePlatformSecurityFeatures"),
        vbs_locked: system.flag(GUARD, "Locked"),
        vbs_mandatory: system.flag(GUARD, "Mandatory"),
        hvci: system.flag(&hvci, "Enabled"),
        hvci_locked: system.flag(&hvci, "Locked"),
        credential_guard: system.number(r"%\Control\Lsa", "LsaCfgFlags"),
        secure_launch: system.flag(&format!(r"{GUARD}\Scenarios\SystemGuard"), "Enabled"),
        lsa_protected: system.number(r"%\Control\Lsa", "RunAsPPL"),
        driver_blocklist: system.flag(r"%\Control\CI\Config", "VulnerableDriverBlocklistEnable"),
        tpm_seen: system.are_known().then(|| system.has(r"%\Enum\ACPI\MSFT0101")),
        policies: names
            .into_iter()
            .filter_map(|name| Some((name.to_string(), software.number(policy, name)?)))
            .collect(),
    }
}
