//! Remote Desktop, and the firewall as far as it decides whether one gets in.

use super::{Source, start_word};
use serde::Serialize;
use std::collections::BTreeMap;

const SERVER: &str = r"%\Control\Terminal Server";
const POLICY: &str = r"Policies\Microsoft\Windows NT\Terminal Services";
const FIREWALL: &str = r"%\Services\SharedAccess\Parameters\FirewallPolicy";
/// Rules that are looked at.
const MAX_RULES: usize = 20_000;

/// Remote Desktop.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rdp {
    /// `fDenyTSConnections`: nobody may connect.
    pub denied: Option<bool>,
    /// The same as a policy, which wins.
    pub denied_by_policy: Option<bool>,
    /// Port.
    pub port: Option<u32>,
    /// Network level authentication is asked for.
    pub nla: Option<bool>,
    /// `SecurityLayer`: 0 RDP, 1 negotiate, 2 TLS.
    pub security_layer: Option<u32>,
    /// The listener is on.
    pub listener: Option<bool>,
    /// A certificate was chosen by hand.
    pub own_certificate: bool,
    /// Start of the service TermService.
    pub service: Option<&'static str>,
}

/// Windows Firewall.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Firewall {
    /// Start of the service MpsSvc.
    pub service: Option<&'static str>,
    /// The three profiles.
    pub profiles: Vec<FirewallProfile>,
    /// Inbound rules for the port of Remote Desktop that are switched on, and those of its own group in any state.
    pub rdp_rules: Vec<FirewallRule>,
    /// How many rules there are; `None` when they cannot be read.
    pub rules: Option<usize>,
}

/// A profile of the firewall.
#[derive(Debug, Clone, Serialize)]
pub struct FirewallProfile {
    /// `domain`, `private`, `public`.
    pub name: &'static str,
    /// The firewall is on.
    pub on: Option<bool>,
    /// The same as a policy, which wins.
    pub on_by_policy: Option<bool>,
    /// What no rule allows is blocked.
    pub blocks_inbound: Option<bool>,
}

/// A rule of the firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirewallRule {
    /// Its id.
    pub id: String,
    /// Its name; rules of Windows have the number of a text instead.
    pub name: Option<String>,
    /// Switched on.
    pub active: bool,
    /// Allows; else blocks.
    pub allows: bool,
    /// Profiles that it is for; empty for all.
    pub profiles: Vec<String>,
    /// Local ports; empty for all.
    pub ports: Vec<String>,
    /// Addresses that it is limited to.
    pub remote_addresses: Vec<String>,
}

pub(super) fn rdp(source: &Source<'_>) -> Rdp {
    let (system, software) = (&source.system, &source.software);
    let listener = format!(r"{SERVER}\WinStations\RDP-Tcp");
    Rdp {
        denied: system.flag(SERVER, "fDenyTSConnections"),
        denied_by_policy: software.flag(POLICY, "fDenyTSConnections"),
        port: system.number(&listener, "PortNumber"),
        nla: software
            .flag(POLICY, "UserAuthentication")
            .or_else(|| system.flag(&listener, "UserAuthentication")),
        security_layer: system.number(&listener, "SecurityLayer"),
        listener: system.flag(&listener, "fEnableWinStation"),
        own_certificate: system.bytes(&listener, "SSLCertificateSHA1Hash").is_some(),
        service: source.start_of("TermService").map(start_word),
    }
}

pub(super) fn firewall(source: &Source<'_>) -> Firewall {
    let system = &source.system;
    let names = [
        ("domain", "DomainProfile", "DomainProfile"),
        ("private", "StandardProfile", "StandardProfile"),
        ("public", "PublicProfile", "PublicProfile"),
    ];
    let profiles = names.map(|(name, own, policy)| {
        let (own, policy) =
            (format!(r"{FIREWALL}\{own}"), format!(r"Policies\Microsoft\WindowsFirewall\{policy}"));
        FirewallProfile {
            name,
            on: system.flag(&own, "EnableFirewall"),
            on_by_policy: source.software.flag(&policy, "EnableFirewall"),
            blocks_inbound: system.flag(&own, "DefaultInboundAction"),
        }
    });
    let port =
        system.number(&format!(r"{SERVER}\WinStations\RDP-Tcp"), "PortNumber").unwrap_or(3389).to_string();
    let key = system.key(&format!(r"{FIREWALL}\FirewallRules"));
    let rules = key.map(|key| key.values_lenient().0);
    let mut rdp_rules = Vec::new();
    for value in rules.iter().flatten().take(MAX_RULES) {
        let own = value.name().to_ascii_lowercase().starts_with("remotedesktop-");
        let Some(text) = value.as_string().filter(|text| own || text.contains(&port)) else { continue };
        let Some(rule) = rule(value.name(), &text) else { continue };
        if own || rule.active && rule.ports.iter().any(|known| covers(known, &port)) {
            rdp_rules.push(rule);
        }
    }
    Firewall {
        service: source.start_of("MpsSvc").map(start_word),
        profiles: profiles.into(),
        rdp_rules,
        rules: rules.map(|rules| rules.len()),
    }
}

fn covers(ports: &str, port: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    match ports.split_once('-') {
        Some((low, high)) => match (number(low), number(high), number(port)) {
            (Some(low), Some(high), Some(port)) => (low..=high).contains(&port),
            _ => false,
        },
        None => ports == port,
    }
}

/// Reads a rule ([MS-FASP] 2.2.32); `None` unless it is for inbound connections.
fn rule(id: String, text: &str) -> Option<FirewallRule> {
    let mut fields: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in text.split('|').filter_map(|part| part.split_once('=')) {
        fields.entry(name).or_default().push(value.to_string());
    }
    let mut all = |name: &str| fields.remove(name).unwrap_or_default();
    let direction = all("Dir");
    (direction.first().map(String::as_str) == Some("In")).then_some(())?;
    let mut remote_addresses = all("RA4");
    remote_addresses.extend(all("RA6"));
    let mut ports = all("LPort");
    ports.extend(all("LPort2_10"));
    Some(FirewallRule {
        id,
        name: all("Name").into_iter().next(),
        active: all("Active").first().map(String::as_str) == Some("TRUE"),
        allows: all("Action").first().map(String::as_str) == Some("Allow"),
        profiles: all("Profile"),
        ports,
        remote_addresses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_windows_writes_them() {
        let text = "v2.30|Action=Allow|Active=TRUE|Dir=In|Protocol=6|Profile=Domain|Profile=Private|LPort=3389|RA4=LocalSubnet|App=System|Name=@FirewallAPI.dll,-28753|";
        let found = rule("RemoteDesktop-In-TCP".into(), text).unwrap();
        assert!(found.active && found.allows);
        assert_eq!(found.profiles, ["Domain", "Private"]);
        assert_eq!((found.ports, found.remote_addresses), (vec!["3389".into()], vec!["LocalSubnet".into()]));
        assert_eq!(rule("x".into(), "v2.30|Action=Allow|Active=TRUE|Dir=Out|"), None);
        assert!(covers("3000-4000", "3389") && !covers("3390", "3389") && !covers("RPC", "3389"));
    }
}
