//! The facts of a baseline: areas with named values, in the words of Windows.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_registry::Hive;
use vmrescue_windows::{
    Installation, Machine, Service, bcd, boot_layout, boot_stores, load_store, services, updates,
};

/// The schema's name.
const SCHEMA: &str = "vmrescue.baseline/1";

/// What a machine is set up like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Name and version of this form.
    pub schema: String,
    /// Area (`windows`, `boot`, `services`, `drivers`, `packages`, `security`), name, value.
    pub areas: BTreeMap<String, BTreeMap<String, String>>,
}

impl Baseline {
    /// Reads a baseline from a file.
    ///
    /// # Errors
    /// Of the host; `Invalid` with line and column.
    pub fn read(path: &Path) -> Result<Baseline> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("cannot be read", path, e))?;
        let found: Baseline = serde_json::from_str(&text)
            .map_err(|e| Error::invalid(Layer::Windows, "not a baseline").in_file(path).caused_by(e))?;
        if found.schema != SCHEMA {
            return Err(Error::unsupported(Layer::Windows, "a baseline of another kind")
                .in_file(path)
                .expected(SCHEMA)
                .found(found.schema));
        }
        Ok(found)
    }
}

/// Settings that decide who may log on, over what, and what is protected: hive, key, value. `%` stands for the control set.
const SECURITY: [(&str, &str, &str); 34] = [
    ("SYSTEM", r"%\Control\Lsa", "LmCompatibilityLevel"),
    ("SYSTEM", r"%\Control\Lsa", "RunAsPPL"),
    ("SYSTEM", r"%\Control\Lsa", "LimitBlankPasswordUse"),
    ("SYSTEM", r"%\Control\Lsa", "NoLMHash"),
    ("SYSTEM", r"%\Control\Lsa", "RestrictAnonymous"),
    ("SYSTEM", r"%\Control\Lsa", "RestrictAnonymousSAM"),
    ("SYSTEM", r"%\Control\Lsa", "DisableRestrictedAdmin"),
    ("SYSTEM", r"%\Control\SecurityProviders\WDigest", "UseLogonCredential"),
    ("SYSTEM", r"%\Control\SecurityProviders\SCHANNEL\Protocols\TLS 1.0\Server", "Enabled"),
    ("SYSTEM", r"%\Control\SecurityProviders\SCHANNEL\Protocols\TLS 1.1\Server", "Enabled"),
    ("SYSTEM", r"%\Control\SecurityProviders\SCHANNEL\Protocols\TLS 1.2\Server", "Enabled"),
    ("SYSTEM", r"%\Control\DeviceGuard", "EnableVirtualizationBasedSecurity"),
    ("SYSTEM", r"%\Control\DeviceGuard", "RequirePlatformSecurityFeatures"),
    ("SYSTEM", r"%\Control\DeviceGuard\Scenarios\HypervisorEnforcedCodeIntegrity", "Enabled"),
    ("SYSTEM", r"%\Control\CI\Config", "VulnerableDriverBlocklistEnable"),
    ("SYSTEM", r"%\Control\SecureBoot\State", "UEFISecureBootEnabled"),
    ("SYSTEM", r"%\Control\Terminal Server", "fDenyTSConnections"),
    ("SYSTEM", r"%\Control\Terminal Server\WinStations\RDP-Tcp", "UserAuthentication"),
    ("SYSTEM", r"%\Control\Terminal Server\WinStations\RDP-Tcp", "SecurityLayer"),
    ("SYSTEM", r"%\Control\Terminal Server\WinStations\RDP-Tcp", "PortNumber"),
    ("SYSTEM", r"%\Services\LanmanServer\Parameters", "RequireSecuritySignature"),
    ("SYSTEM", r"%\Services\LanmanServer\Parameters", "SMB1"),
    ("SYSTEM", r"%\Services\LanmanWorkstation\Parameters", "RequireSecuritySignature"),
    ("SYSTEM", r"%\Services\SharedAccess\Parameters\FirewallPolicy\DomainProfile", "EnableFirewall"),
    ("SYSTEM", r"%\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile", "EnableFirewall"),
    ("SYSTEM", r"%\Services\SharedAccess\Parameters\FirewallPolicy\StandardProfile", "EnableFirewall"),
    ("SYSTEM", r"%\Control\Session Manager", "SafeDllSearchMode"),
    ("SYSTEM", r"%\Control\Session Manager\kernel", "MitigationOptions"),
    ("SOFTWARE", r"Microsoft\Windows\CurrentVersion\Policies\System", "EnableLUA"),
    ("SOFTWARE", r"Microsoft\Windows\CurrentVersion\Policies\System", "ConsentPromptBehaviorAdmin"),
    ("SOFTWARE", r"Microsoft\Windows\CurrentVersion\Policies\System", "LocalAccountTokenFilterPolicy"),
    ("SOFTWARE", r"Microsoft\Windows NT\CurrentVersion\Winlogon", "AutoAdminLogon"),
    ("SOFTWARE", r"Microsoft\Windows Defender\Features", "TamperProtection"),
    ("SOFTWARE", r"Policies\Microsoft\Windows Defender", "DisableAntiSpyware"),
];

/// The baseline of an installation.
///
/// # Errors
/// Of reading the disk; damaged hives.
pub fn baseline(machine: &Machine, installation: &Installation) -> Result<Baseline> {
    let mut areas: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut note = |area: &str, name: String, value: String| {
        areas.entry(area.to_string()).or_default().insert(name, value);
    };
    note("windows", "product".into(), installation.product.clone());
    note("windows", "edition".into(), installation.edition.clone());
    note("windows", "build".into(), format!("{}.{}", installation.build, installation.ubr));
    note("windows", "architecture".into(), installation.architecture.clone());
    let system = machine.hive(installation, "SYSTEM")?;
    let set = installation.control_sets.default.max(1);
    for service in services(machine, installation, &system, set, true)? {
        note("services", service.name.clone(), described(&service));
        if let (true, Some(file)) = (service.is_driver(), &service.file) {
            let version = service.version.clone().or(service.problem.clone());
            note("drivers", file.to_lowercase(), version.unwrap_or_else(|| "no version".into()));
        }
    }
    for package in updates(machine, installation)?.packages {
        note("packages", package.identity, package.state_name.to_string());
    }
    let software = machine.hive(installation, "SOFTWARE")?;
    for (hive, key, value) in SECURITY {
        let from = if hive == "SYSTEM" { &system } else { &software };
        let key = key.replace('%', &format!("ControlSet{set:03}"));
        let name = format!(
            r"HKLM\{hive}\{}\{value}",
            key.replace(&format!("ControlSet{set:03}"), "CurrentControlSet")
        );
        note("security", name, text_of(from, &key, value)?);
    }
    for (name, value) in boot(machine)? {
        note("boot", name, value);
    }
    Ok(Baseline { schema: SCHEMA.into(), areas })
}

fn described(service: &Service) -> String {
    let kind = if service.is_driver() { "driver" } else { "service" };
    let text = format!("{kind}, {}, {}", service.start_name(), service.image_path.to_lowercase());
    if service.group.is_empty() { text } else { format!("{text}, group {}", service.group) }
}

fn text_of(hive: &Hive, key: &str, value: &str) -> Result<String> {
    let Some(found) = hive.key(key)?.map(|key| key.value(value)).transpose()?.flatten() else {
        return Ok("not set".into());
    };
    Ok(match (found.as_u32(), found.as_string()) {
        (Some(number), _) => number.to_string(),
        (None, Some(text)) => text,
        (None, None) => vmrescue_base::text::hex(&found.data()?),
    })
}

/// The elements of the store that the machine boots from, by object and element.
fn boot(machine: &Machine) -> Result<Vec<(String, String)>> {
    let layout = boot_layout(machine);
    let own = layout.system_volume(machine, None).map(|volume| layout.store_path(machine, volume)).ok();
    let Some(path) = own.or_else(|| boot_stores(machine).into_iter().next()) else {
        return Ok(Vec::new());
    };
    let Some((_, store)) = load_store(machine, &path)? else { return Ok(Vec::new()) };
    let objects = bcd::view(&store, &machine.disk_map(), bcd::Options { aliases: true });
    let lines = objects.iter().flat_map(|object| {
        let name = object.alias.as_ref().unwrap_or(&object.heading);
        object.elements.iter().map(move |e| (format!("{name} {}", e.name), e.value.join(", ")))
    });
    Ok(lines.collect())
}
