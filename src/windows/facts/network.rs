//! Network adapters and their addresses.

use super::Source;
use crate::keys::Notes;
use serde::Serialize;
use vmrescue_registry::Key;

const CLASS: &str = r"%\Control\Class\{4d36e972-e325-11ce-bfc1-08002be10318}";
const CONNECTIONS: &str = r"%\Control\Network\{4D36E972-E325-11CE-BFC1-08002BE10318}";
const PARAMETERS: &str = r"%\Services\Tcpip\Parameters";
/// Adapters that are looked at.
const MAX_ADAPTERS: usize = 512;
/// Bit of `Characteristics`: not shown to users.
const HIDDEN: u32 = 8;
/// Bit of `Characteristics`: hardware.
const PHYSICAL: u32 = 4;

/// The network.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Network {
    /// Host name.
    pub host_name: Option<String>,
    /// Suffixes that are tried in turn.
    pub search_list: Option<String>,
    /// IPv6 is switched off, wholly or in part (`DisabledComponents`).
    pub ipv6_disabled_components: Option<u32>,
    /// Adapters that users see, and interfaces with addresses whose adapter is gone.
    pub adapters: Vec<Adapter>,
}

/// An adapter and its addresses.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Adapter {
    /// Identifier of the interface, with braces.
    pub id: String,
    /// Name of the connection, such as `Ethernet`.
    pub connection: Option<String>,
    /// Name of the device; `None` when only the interface's settings are left.
    pub device: Option<String>,
    /// Version of its driver.
    pub driver_version: Option<String>,
    /// Its driver's service.
    pub service: Option<String>,
    /// Hardware, or what a virtual machine takes for it.
    pub physical: bool,
    /// Addresses come by DHCP.
    pub dhcp: Option<bool>,
    /// Static addresses, each with its mask.
    pub addresses: Vec<String>,
    /// Static gateways.
    pub gateways: Vec<String>,
    /// DNS servers that were set by hand.
    pub dns: Vec<String>,
    /// The address of the last lease.
    pub dhcp_address: Option<String>,
    /// Who gave it.
    pub dhcp_server: Option<String>,
    /// DNS servers of the last lease.
    pub dhcp_dns: Vec<String>,
}

fn list(text: Option<String>) -> Vec<String> {
    text.unwrap_or_default().split([' ', ',']).filter(|part| !part.is_empty()).map(String::from).collect()
}

fn addresses(notes: &Notes, key: &Key<'_>) -> Vec<String> {
    let masks = notes.texts(key, "SubnetMask");
    let all = notes.texts(key, "IPAddress").into_iter().enumerate();
    let pairs = all.filter(|(_, address)| address != "0.0.0.0").map(|(i, address)| match masks.get(i) {
        Some(mask) => {
            format!("{address}/{}", prefix(mask).map_or_else(|| mask.clone(), |bits| bits.to_string()))
        }
        None => address,
    });
    pairs.collect()
}

/// Bits of a mask such as `255.255.255.0`; `None` for masks with holes.
fn prefix(mask: &str) -> Option<u32> {
    let bits = u32::from(mask.parse::<std::net::Ipv4Addr>().ok()?);
    (bits.leading_ones() + bits.trailing_zeros().min(32) >= 32).then(|| bits.leading_ones())
}

/// Puts the settings of an interface into an adapter.
fn settings(source: &Source<'_>, adapter: &mut Adapter) {
    let Some(key) = source.system.key(&format!(r"{PARAMETERS}\Interfaces\{}", adapter.id)) else { return };
    let notes = source.notes;
    adapter.dhcp = notes.number(&key, "EnableDHCP").map(|value| value != 0);
    // What was set by hand before DHCP was chosen stays behind and does not count.
    if adapter.dhcp != Some(true) {
        adapter.addresses = addresses(notes, &key);
        adapter.gateways = notes.texts(&key, "DefaultGateway");
        adapter.gateways.retain(|gateway| !gateway.is_empty());
    }
    adapter.dns = list(notes.text(&key, "NameServer"));
    adapter.dhcp_address = notes.text(&key, "DhcpIPAddress").filter(|address| address != "0.0.0.0");
    adapter.dhcp_server = notes.text(&key, "DhcpServer").filter(|address| address != "255.255.255.255");
    adapter.dhcp_dns = list(notes.text(&key, "DhcpNameServer"));
}

pub(super) fn read(source: &Source<'_>) -> Network {
    let system = &source.system;
    let mut adapters: Vec<Adapter> = Vec::new();
    let connection = |id: &str| system.text(&format!(r"{CONNECTIONS}\{id}\Connection"), "Name");
    let notes = source.notes;
    for key in system.subkeys(CLASS).into_iter().take(MAX_ADAPTERS) {
        let Some(id) = notes.text(&key, "NetCfgInstanceId") else { continue };
        // An adapter without them is neither hidden nor hardware.
        let bits = notes.number(&key, "Characteristics").unwrap_or(0);
        if bits & HIDDEN != 0 {
            continue;
        }
        let mut adapter = Adapter {
            connection: connection(&id),
            device: notes.text(&key, "DriverDesc"),
            driver_version: notes.text(&key, "DriverVersion"),
            service: notes.seen(&id, key.subkey(r"Ndi")).and_then(|ndi| notes.text(&ndi, "Service")),
            physical: bits & PHYSICAL != 0,
            id,
            ..Adapter::default()
        };
        settings(source, &mut adapter);
        adapters.push(adapter);
    }
    for key in system.subkeys(&format!(r"{PARAMETERS}\Interfaces")).into_iter().take(MAX_ADAPTERS) {
        let id = key.name();
        if adapters.iter().any(|adapter| adapter.id.eq_ignore_ascii_case(&id)) {
            continue;
        }
        let mut adapter = Adapter { connection: connection(&id), id, ..Adapter::default() };
        settings(source, &mut adapter);
        // Interfaces without any address are those of tunnels.
        if !adapter.addresses.is_empty() || adapter.dhcp_address.is_some() {
            adapters.push(adapter);
        }
    }
    adapters.sort_by_key(|adapter| (adapter.device.is_none(), !adapter.physical));
    Network {
        host_name: system.text(PARAMETERS, "NV Hostname").or_else(|| system.text(PARAMETERS, "Hostname")),
        search_list: system.text(PARAMETERS, "SearchList"),
        ipv6_disabled_components: system.number(r"%\Services\Tcpip6\Parameters", "DisabledComponents"),
        adapters,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn masks_become_prefixes() {
        use super::prefix;
        assert_eq!(prefix("255.255.255.0"), Some(24));
        assert_eq!((prefix("0.0.0.0"), prefix("255.255.255.255")), (Some(0), Some(32)));
        assert_eq!((prefix("255.0.255.0"), prefix("x")), (None, None));
    }
}
