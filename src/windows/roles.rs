//! What a machine is for.

use super::machine::{Installation, Machine};
use serde::Serialize;
use vmrescue_base::error::Result;

/// A role that decides what an update may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Active Directory domain controller.
    DomainController,
    /// Hyper-V host.
    HyperV,
    /// Node of a failover cluster.
    FailoverCluster,
    /// Remote Desktop session host: more than two people work on it.
    SessionHost,
    /// Another part of Remote Desktop Services: broker, gateway, licensing.
    RemoteDesktopServices,
    /// DNS server.
    DnsServer,
    /// DHCP server.
    DhcpServer,
    /// Certificate authority.
    CertificateAuthority,
    /// Internet Information Services.
    WebServer,
}

impl Role {
    /// Its name in scripts and reports.
    pub fn name(self) -> &'static str {
        match self {
            Role::DomainController => "domain-controller",
            Role::HyperV => "hyper-v",
            Role::FailoverCluster => "failover-cluster",
            Role::SessionHost => "session-host",
            Role::RemoteDesktopServices => "remote-desktop-services",
            Role::DnsServer => "dns-server",
            Role::DhcpServer => "dhcp-server",
            Role::CertificateAuthority => "certificate-authority",
            Role::WebServer => "web-server",
        }
    }
}

/// The roles of an installation, by the product type and the services that are there.
///
/// # Errors
/// Of reading the SYSTEM hive.
pub fn roles(machine: &Machine, installation: &Installation) -> Result<Vec<Role>> {
    let hive = machine.hive(installation, "SYSTEM")?;
    let set = format!("ControlSet{:03}", installation.control_sets.default.max(1));
    let mut found = Vec::new();
    let options = hive.key(&format!(r"{set}\Control\ProductOptions"))?;
    let product = options.map(|key| key.value("ProductType")).transpose()?.flatten();
    if product.and_then(|value| value.as_string()).is_some_and(|text| text.eq_ignore_ascii_case("LanmanNT")) {
        found.push(Role::DomainController);
    }
    let services = [
        ("vmms", Role::HyperV),
        ("ClusSvc", Role::FailoverCluster),
        ("Tssdis", Role::RemoteDesktopServices),
        ("TSGateway", Role::RemoteDesktopServices),
        ("TermServLicensing", Role::RemoteDesktopServices),
        ("DNS", Role::DnsServer),
        ("DHCPServer", Role::DhcpServer),
        ("CertSvc", Role::CertificateAuthority),
        ("W3SVC", Role::WebServer),
    ];
    for (service, role) in services {
        if !found.contains(&role) && hive.key(&format!(r"{set}\Services\{service}"))?.is_some() {
            found.push(role);
        }
    }
    let server = hive.key(&format!(r"{set}\Control\Terminal Server"))?;
    let many = server.map(|key| key.value("TSAppCompat")).transpose()?.flatten();
    if many.and_then(|value| value.as_u32()) == Some(1) {
        found.push(Role::SessionHost);
    }
    Ok(found)
}
