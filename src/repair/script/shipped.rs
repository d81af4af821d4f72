//! The scripts that ship with the program.

use super::Script;
use vmrescue_base::error::Result;

pub(super) const SHIPPED: &[&str] = &[
    include_str!("../../../scripts/restore-driver.toml"),
    include_str!("../../../scripts/disable-driver.toml"),
    include_str!("../../../scripts/enable-boot-driver.toml"),
    include_str!("../../../scripts/remove-filter-driver.toml"),
    include_str!("../../../scripts/revert-pending-updates.toml"),
    include_str!("../../../scripts/crowdstrike-291.toml"),
    include_str!("../../../scripts/nla-off.toml"),
    include_str!("../../../scripts/rdp-on.toml"),
    include_str!("../../../scripts/memory-dump-on.toml"),
    include_str!("../../../scripts/vbs-off.toml"),
    include_str!("../../../scripts/last-known-good.toml"),
    include_str!("../../../scripts/rebuild-boot.toml"),
    include_str!("../../../scripts/system-partition.toml"),
    include_str!("../../../scripts/set-active.toml"),
    include_str!("../../../scripts/set-partition-type.toml"),
    include_str!("../../../scripts/repair-gpt.toml"),
    include_str!("../../../scripts/restore-partitions.toml"),
    include_str!("../../../scripts/repair-boot-sector.toml"),
    include_str!("../../../scripts/check-file-system.toml"),
    include_str!("../../../scripts/safe-mode.toml"),
    include_str!("../../../scripts/serial-console.toml"),
    include_str!("../../../scripts/ignore-boot-failures.toml"),
    include_str!("../../../scripts/winre-off.toml"),
    include_str!("../../../scripts/storage-drivers-boot.toml"),
    include_str!("../../../scripts/enable-admin.toml"),
    include_str!("../../../scripts/first-boot-command.toml"),
    include_str!("../../../scripts/registry-set.toml"),
    include_str!("../../../scripts/hidparse-mismatch.toml"),
    include_str!("../../../scripts/clear-txr-logs.toml"),
    include_str!("../../../scripts/restore-regback.toml"),
    include_str!("../../../scripts/replay-hive-logs.toml"),
    include_str!("../../../scripts/policy-cleanup-profiles-off.toml"),
    include_str!("../../../scripts/reboot-loop-azure.toml"),
    include_str!("../../../scripts/tls-on.toml"),
    include_str!("../../../scripts/network-adapter-enable.toml"),
    include_str!("../../../scripts/network-dhcp.toml"),
    include_str!("../../../scripts/dhcp-service.toml"),
    include_str!("../../../scripts/rdp-service.toml"),
    include_str!("../../../scripts/rdp-certificate-reset.toml"),
    include_str!("../../../scripts/rdp-listener-reset.toml"),
    include_str!("../../../scripts/rdp-general.toml"),
    include_str!("../../../scripts/rdp-licensing-mode.toml"),
    include_str!("../../../scripts/nsi-start.toml"),
    include_str!("../../../scripts/netlogon-start.toml"),
    include_str!("../../../scripts/credssp-allow.toml"),
    include_str!("../../../scripts/rdp-authentication-reset.toml"),
    include_str!("../../../scripts/firewall-allow-inbound.toml"),
    include_str!("../../../scripts/firewall-allow-rdp.toml"),
    include_str!("../../../scripts/firewall-off.toml"),
    include_str!("../../../scripts/boot-menu-off.toml"),
    include_str!("../../../scripts/sac-and-dump.toml"),
    include_str!("../../../scripts/safe-mode-off.toml"),
    include_str!("../../../scripts/safe-mode-entry.toml"),
    include_str!("../../../scripts/restore-boot-drivers.toml"),
    include_str!("../../../scripts/azure-agent-install.toml"),
    include_str!("../../../scripts/memory-map-reset.toml"),
    include_str!("../../../scripts/free-space.toml"),
    include_str!("../../../scripts/dump-configuration.toml"),
    include_str!("../../../scripts/winre-on.toml"),
    include_str!("../../../scripts/integrity-checks-off.toml"),
    include_str!("../../../scripts/remove-device-filter.toml"),
    include_str!("../../../scripts/setup-child-completion.toml"),
    include_str!("../../../scripts/restore-drive-letter.toml"),
    include_str!("../../../scripts/write-boot-code.toml"),
];

/// The scripts that ship with the program.
///
/// # Errors
/// Only when one of them is broken, which a test excludes.
pub fn shipped() -> Result<Vec<Script>> {
    SHIPPED.iter().map(|text| Script::parse(text)).collect()
}
