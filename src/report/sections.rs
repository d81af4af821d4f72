//! Facts as rows of words, for text and HTML alike. What is not set says so; what could not be read is "unknown".

use vmrescue_base::text::size;
use vmrescue_base::time::FileTime;
use vmrescue_windows::facts::{Adapter, Facts, User};

/// One subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub title: &'static str,
    /// Name and value.
    pub rows: Vec<(String, String)>,
    /// A list, when the subject is one.
    pub table: Option<Table>,
}

/// A list with a head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Heads of the columns.
    pub heads: Vec<&'static str>,
    /// As many cells a row as there are heads.
    pub rows: Vec<Vec<String>>,
}

/// A time to the second.
pub(super) fn moment(time: FileTime) -> String {
    let text = time.to_string();
    format!("{} {} UTC", text.get(..10).unwrap_or(&text), text.get(11..19).unwrap_or_default())
}

/// Words for what is not there.
struct Absent(&'static str);

impl Absent {
    fn text(&self, value: &Option<String>) -> String {
        value.clone().unwrap_or_else(|| self.0.into())
    }

    fn number(&self, value: Option<u32>) -> String {
        value.map_or_else(|| self.0.into(), |number| number.to_string())
    }

    fn word(&self, value: Option<&'static str>) -> String {
        value.unwrap_or(self.0).into()
    }

    fn flag(&self, value: Option<bool>, yes: &str, no: &str) -> String {
        value.map_or(self.0, |value| if value { yes } else { no }).into()
    }

    fn on(&self, value: Option<bool>) -> String {
        self.flag(value, "on", "off")
    }

    fn time(&self, value: Option<FileTime>) -> String {
        value.map_or_else(|| self.0.into(), moment)
    }
}

fn rows(title: &'static str, rows: Vec<(&str, String)>) -> Section {
    let rows = rows.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    Section { title, rows, table: None }
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() { "none".into() } else { list.join(", ") }
}

/// All subjects of an installation, in the order in which they are read.
pub fn sections(facts: &Facts) -> Vec<Section> {
    let system = Absent(if facts.system_was_read { "not set" } else { "unknown" });
    let software = Absent(if facts.software_was_read { "not set" } else { "unknown" });
    let mut all = vec![
        identity(facts),
        start(facts, &system),
        servicing(facts),
        security(facts, &system),
        rdp(facts, &system, &software),
        firewall(facts, &system),
        network(facts, &system),
        users(facts),
        virtualization(facts),
        memory(facts, &system),
        crash(facts),
        recovery(facts),
        antivirus(facts, &system, &software),
    ];
    all.extend(azure(facts, &system));
    if !facts.unreadable.is_empty() {
        let list = facts.unreadable.iter().map(|text| (String::new(), text.clone())).collect();
        all.push(Section { title: "Could not be read", rows: list, table: None });
    }
    all
}

fn identity(facts: &Facts) -> Section {
    let (id, unknown) = (&facts.identity, Absent("unknown"));
    let zone = &id.time_zone;
    let bias = zone.active_bias_minutes.or(zone.bias_minutes).map(|bias| {
        let ahead = bias.saturating_neg();
        let sign = if ahead < 0 { '-' } else { '+' };
        format!(", UTC{sign}{:02}:{:02}", ahead.unsigned_abs() / 60, ahead.unsigned_abs() % 60)
    });
    let roles: Vec<String> = facts.roles.iter().map(|role| role.name().to_string()).collect();
    let mut list = vec![
        ("Product", unknown.text(&id.product)),
        ("Edition", unknown.text(&id.edition)),
        ("Version", unknown.text(&id.display_version)),
        ("Build", unknown.text(&id.build)),
        ("Computer", unknown.text(&id.computer_name)),
    ];
    if let Some(name) = &id.pending_name {
        list.push(("Name at the next start", name.clone()));
    }
    let domain = id.domain.clone().or_else(|| id.dns_domain.clone()).unwrap_or_else(|| "unknown".into());
    let member = match id.domain_joined {
        Some(true) => format!("member of the domain {domain}"),
        Some(false) => format!("workgroup {domain}"),
        None => "unknown".into(),
    };
    list.push(("Domain", member));
    if let Some(name) = &id.dns_domain {
        list.push(("DNS domain", name.clone()));
    }
    list.push(("Roles", if facts.system_was_read { or_none(&roles) } else { "unknown".into() }));
    list.push(("Installed", unknown.time(id.installed)));
    list.push(("Last clean shutdown", unknown.time(id.last_shutdown)));
    list.push(("Time zone", unknown.text(&zone.name) + &bias.unwrap_or_default()));
    rows("Windows", list)
}

fn start(facts: &Facts, absent: &Absent) -> Section {
    let start = &facts.start;
    let numbers: Vec<String> = start.system_partitions.iter().map(|number| format!("#{number}")).collect();
    let mut section = rows(
        "Start",
        vec![
            ("Firmware", format!("{} by the partition table", start.firmware.to_uppercase())),
            (
                "Firmware that Windows saw",
                absent.word(
                    start.firmware_seen_by_windows.map(|word| if word == "uefi" { "UEFI" } else { "BIOS" }),
                ),
            ),
            ("System partition", or_none(&numbers)),
            ("Boot store", start.store.clone().unwrap_or_else(|| "none".into())),
        ],
    );
    if !start.entries.is_empty() {
        let row = |entry: &vmrescue_windows::facts::StartEntry| {
            let mut notes = entry.unusual.clone();
            notes.extend(entry.safe_boot.iter().map(|mode| format!("safe mode ({mode})")));
            vec![
                if entry.default { "default".into() } else { String::new() },
                entry.description.clone().unwrap_or_else(|| entry.id.clone()),
                entry.device.clone().unwrap_or_default(),
                entry.path.clone().unwrap_or_default(),
                notes.join(", "),
            ]
        };
        section.table = Some(Table {
            heads: vec!["", "Entry", "Device", "Loader", "Settings"],
            rows: start.entries.iter().map(row).collect(),
        });
    }
    section
}

fn servicing(facts: &Facts) -> Section {
    let servicing = &facts.servicing;
    let mut section = rows(
        "Updates",
        vec![
            ("Servicing stack", Absent("unknown").text(&servicing.stack_version)),
            ("Packages", Absent("unknown").number(servicing.packages)),
            ("Restart pending", if servicing.reboot_pending { "yes".into() } else { "no".into() }),
        ],
    );
    section.rows.extend(servicing.pending.iter().map(|text| ("Pending".to_string(), text.clone())));
    section
}

fn security(facts: &Facts, absent: &Absent) -> Section {
    let security = &facts.security;
    let vbs = match (security.vbs, security.vbs_platform_features) {
        (Some(true), Some(3)) => "set up, with Secure Boot and DMA protection".into(),
        (Some(true), Some(1)) => "set up, with Secure Boot".into(),
        (value, _) => absent.flag(value, "set up", "off"),
    };
    let guard = match security.credential_guard {
        Some(0) => "off".into(),
        Some(1) => "on, locked in the firmware".into(),
        Some(2) => "on".into(),
        other => absent.number(other),
    };
    let lock = |locked: Option<bool>| if locked == Some(true) { ", locked in the firmware" } else { "" };
    let mut list = vec![
        ("Secure Boot at the last start", absent.on(security.secure_boot)),
        ("TPM 2.0", absent.flag(security.tpm_seen, "seen by Windows", "never seen")),
        ("Virtualization-based security", vbs + lock(security.vbs_locked)),
        ("Memory integrity (HVCI)", absent.on(security.hvci) + lock(security.hvci_locked)),
        ("Credential Guard", guard),
        ("System Guard secure launch", absent.on(security.secure_launch)),
        (
            "LSA protection",
            match security.lsa_protected {
                Some(0) => "off".into(),
                Some(1) => "on, locked in the firmware".into(),
                Some(2) => "on".into(),
                other => absent.number(other),
            },
        ),
        ("Vulnerable driver blocklist", absent.on(security.driver_blocklist)),
    ];
    if let Some(state) = &security.uefi_ca_2023 {
        list.push(("Secure Boot certificates of 2023", state.clone()));
    }
    let mut section = rows("Security of the start", list);
    let policies = security.policies.iter();
    section.rows.extend(policies.map(|(name, value)| (format!("Policy {name}"), value.to_string())));
    section
}

fn rdp(facts: &Facts, system: &Absent, software: &Absent) -> Section {
    let rdp = &facts.rdp;
    let layer = match rdp.security_layer {
        Some(0) => "RDP".into(),
        Some(1) => "negotiate".into(),
        Some(2) => "TLS".into(),
        other => system.number(other),
    };
    rows(
        "Remote Desktop",
        vec![
            ("Connections", system.flag(rdp.denied, "denied", "allowed")),
            ("By policy", software.flag(rdp.denied_by_policy, "denied", "allowed")),
            ("Port", system.number(rdp.port)),
            ("Network level authentication", system.flag(rdp.nla, "required", "not required")),
            ("Security layer", layer),
            ("Listener", system.on(rdp.listener)),
            ("Service TermService", system.word(rdp.service)),
        ],
    )
}

fn firewall(facts: &Facts, absent: &Absent) -> Section {
    let firewall = &facts.firewall;
    let mut section = rows("Firewall", vec![("Service MpsSvc", absent.word(firewall.service))]);
    for profile in &firewall.profiles {
        let mut text = absent.on(profile.on);
        match profile.on_by_policy {
            Some(true) => text.push_str(", on by policy"),
            Some(false) => text.push_str(", off by policy"),
            None => {}
        }
        section.rows.push((format!("Profile {}", profile.name), text));
    }
    let count = firewall.rules.map_or_else(|| "unknown".to_string(), |count| count.to_string());
    section.rows.push(("Rules".into(), count));
    if !firewall.rdp_rules.is_empty() {
        let all = |list: &[String]| if list.is_empty() { "all".to_string() } else { list.join(", ") };
        let row = |rule: &vmrescue_windows::facts::FirewallRule| {
            vec![
                rule.id.clone(),
                if rule.active { "on".into() } else { "off".into() },
                if rule.allows { "allows".into() } else { "blocks".into() },
                all(&rule.profiles),
                all(&rule.ports),
                all(&rule.remote_addresses),
            ]
        };
        section.table = Some(Table {
            heads: vec!["Inbound rule for Remote Desktop", "State", "Action", "Profiles", "Ports", "From"],
            rows: firewall.rdp_rules.iter().map(row).collect(),
        });
    }
    section
}

fn network(facts: &Facts, absent: &Absent) -> Section {
    let network = &facts.network;
    let mut section = rows("Network", vec![("Host name", absent.text(&network.host_name))]);
    if let Some(list) = &network.search_list {
        section.rows.push(("Search list".into(), list.clone()));
    }
    if let Some(bits) = network.ipv6_disabled_components.filter(|bits| *bits != 0) {
        section.rows.push(("IPv6 DisabledComponents".into(), format!("{bits:#x}")));
    }
    let row = |adapter: &Adapter| {
        let how = match adapter.dhcp {
            Some(true) => "DHCP",
            Some(false) => "static",
            None => "not set",
        };
        let lease = adapter.dhcp_address.iter().filter(|_| adapter.dhcp == Some(true));
        let addresses: Vec<String> = adapter
            .addresses
            .iter()
            .cloned()
            .chain(lease.map(|address| format!("{address} (last lease)")))
            .collect();
        let dns = if adapter.dns.is_empty() { &adapter.dhcp_dns } else { &adapter.dns };
        vec![
            adapter.connection.clone().unwrap_or_else(|| adapter.id.clone()),
            adapter.device.clone().unwrap_or_else(|| "adapter is gone, its settings are left".into()),
            how.into(),
            addresses.join(", "),
            adapter.gateways.join(", "),
            dns.join(", "),
        ]
    };
    if !network.adapters.is_empty() {
        section.table = Some(Table {
            heads: vec!["Connection", "Adapter", "Addresses by", "Addresses", "Gateway", "DNS"],
            rows: network.adapters.iter().map(row).collect(),
        });
    }
    section
}

fn users(facts: &Facts) -> Section {
    let Some(users) = &facts.users else {
        return rows("Local users", vec![("Users", "unknown: the SAM hive cannot be read".into())]);
    };
    let row = |user: &User| {
        let mut state = Vec::new();
        for (is, word) in [
            (user.disabled, "disabled"),
            (user.locked, "locked"),
            (user.password_not_required, "no password required"),
        ] {
            if is {
                state.push(word);
            }
        }
        let time = |time: Option<FileTime>| time.map_or_else(|| "never".into(), moment);
        let administrator = match user.administrator {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        vec![
            user.name.clone(),
            user.rid.to_string(),
            if state.is_empty() { "enabled".into() } else { state.join(", ") },
            administrator.into(),
            time(user.last_logon),
            time(user.password_set),
        ]
    };
    let mut section = rows("Local users", vec![("Users", users.len().to_string())]);
    if !users.is_empty() {
        section.table = Some(Table {
            heads: vec!["Name", "RID", "State", "Administrator", "Last logon", "Password set"],
            rows: users.iter().map(row).collect(),
        });
    }
    section
}

fn virtualization(facts: &Facts) -> Section {
    let mut section = Section { title: "Drivers for virtual machines", ..Section::default() };
    for family in &facts.virtualization {
        let words = family.drivers.iter().map(|driver| {
            let missing = if driver.file_present == Some(false) { ", file is missing" } else { "" };
            format!("{} ({}{missing})", driver.name, driver.start)
        });
        section.rows.push((family.family.into(), words.collect::<Vec<_>>().join(", ")));
    }
    if section.rows.is_empty() {
        let text = if facts.system_was_read { "none" } else { "unknown" };
        section.rows.push(("Drivers".into(), text.into()));
    }
    section
}

fn memory(facts: &Facts, absent: &Absent) -> Section {
    let mut section = Section { title: "Page files", ..Section::default() };
    for file in &facts.page_files {
        let sizes = match (file.minimum_mib, file.maximum_mib) {
            (None, None) => "size set by Windows".to_string(),
            (minimum, maximum) => {
                let words = |size: Option<u64>| size.map_or_else(|| "?".into(), |size| size.to_string());
                format!("{} to {} MiB", words(minimum), words(maximum))
            }
        };
        let there = file
            .file_bytes
            .map_or_else(|| "no file there".to_string(), |bytes| format!("file of {}", size(bytes)));
        section.rows.push((file.path.clone(), format!("{sizes}; {there}")));
    }
    if section.rows.is_empty() {
        section.rows.push(("Page files".into(), absent.0.into()));
    }
    section
}

fn crash(facts: &Facts) -> Section {
    let (settings, absent) =
        (&facts.crash.settings, Absent(if facts.system_was_read { "not set" } else { "unknown" }));
    let mut section = rows(
        "Crash dumps",
        vec![
            ("Kind", absent.text(&settings.kind)),
            ("File", absent.text(&settings.dump_file)),
            ("Restarts after a crash", absent.flag(settings.auto_reboot, "yes", "no")),
        ],
    );
    if let Some(file) = &settings.dedicated_file {
        section.rows.push(("Dedicated file".into(), file.clone()));
    }
    if facts.crash.dumps.is_empty() {
        section.rows.push(("Dumps".into(), "none found".into()));
        return section;
    }
    let row = |file: &vmrescue_windows::facts::DumpFile| {
        vec![
            file.time().map_or_else(|| "unknown".into(), moment),
            file.dump.as_ref().map_or_else(|| "no dump that is known".into(), vmrescue_windows::Dump::text),
            file.path.clone(),
            size(file.size),
        ]
    };
    section.table = Some(Table {
        heads: vec!["When", "Stop code", "File", "Size"],
        rows: facts.crash.dumps.iter().map(row).collect(),
    });
    section
}

fn recovery(facts: &Facts) -> Section {
    let (recovery, unknown) = (&facts.recovery, Absent("unknown"));
    let place = match (recovery.partition, &recovery.directory) {
        (Some(number), Some(directory)) => format!("#{number}:{directory}"),
        (None, Some(directory)) => format!("{directory} on a partition that is not there"),
        _ => "none named".into(),
    };
    rows(
        "Recovery environment",
        vec![
            ("State", unknown.on(recovery.enabled)),
            ("Place", place),
            ("Winre.wim there", unknown.flag(recovery.image_present, "yes", "no")),
            ("Winre.wim in System32\\Recovery", unknown.flag(recovery.staged_image, "yes", "no")),
            ("Build", unknown.text(&recovery.build)),
        ],
    )
}

fn antivirus(facts: &Facts, system: &Absent, software: &Absent) -> Section {
    let scan = &facts.antivirus;
    let mut section = rows(
        "Virus scanners",
        vec![
            ("Defender service", system.word(scan.defender_service)),
            ("Defender", software.flag(scan.defender_disabled, "switched off", "not switched off")),
            (
                "Real-time protection",
                software.flag(scan.realtime_disabled, "switched off", "not switched off"),
            ),
            ("Signatures", software.text(&scan.signatures)),
            ("Signatures applied", software.time(scan.signatures_applied)),
        ],
    );
    let products = scan.products.iter();
    section
        .rows
        .extend(products.map(|p| (p.name.to_string(), format!("service {} ({})", p.service, p.start))));
    section
}

fn azure(facts: &Facts, absent: &Absent) -> Option<Section> {
    let agent = facts.azure_agent.as_ref()?;
    let mut section = rows(
        "Azure VM agent",
        vec![
            ("Version", Absent("unknown").text(&agent.version)),
            ("Service RdAgent", absent.word(agent.rd_agent)),
            ("Service WindowsAzureGuestAgent", absent.word(agent.guest_agent)),
            ("Its file", Absent("unknown").flag(agent.file_present, "there", "missing")),
            ("VM id", Absent("unknown").text(&agent.vm_id)),
        ],
    );
    if !agent.extensions.is_empty() {
        let row = |e: &vmrescue_windows::facts::AzureExtension| {
            vec![e.name.clone(), e.versions.join(", "), e.status.clone().unwrap_or_else(|| "unknown".into())]
        };
        section.table = Some(Table {
            heads: vec!["Extension", "Versions", "Status"],
            rows: agent.extensions.iter().map(row).collect(),
        });
    }
    Some(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_a_table_has_a_cell_for_each_head_and_times_are_short() {
        assert_eq!(moment(FileTime::from_unix_seconds(1_709_208_000)), "2024-02-29 12:00:00 UTC");
        let absent = Absent("unknown");
        assert_eq!((absent.on(None), absent.on(Some(true))), ("unknown".into(), "on".into()));
    }
}
