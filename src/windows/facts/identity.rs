//! Names, versions and times of an installation.

use super::{Source, time_text};
use serde::Serialize;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at};
use vmrescue_base::text::utf16le_lossy;
use vmrescue_base::time::FileTime;

const VERSION: &str = r"Microsoft\Windows NT\CurrentVersion";

/// Names, versions and times.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Identity {
    /// ProductName.
    pub product: Option<String>,
    /// EditionID.
    pub edition: Option<String>,
    /// `Client`, `Server`, `Server Core`.
    pub installation_type: Option<String>,
    /// DisplayVersion or ReleaseId.
    pub display_version: Option<String>,
    /// Build and revision, such as `17763.7558`; only the build where the revision is not told.
    pub build: Option<String>,
    /// BuildLabEx.
    pub build_lab: Option<String>,
    /// When Windows was installed, or last upgraded.
    #[serde(serialize_with = "time_text")]
    pub installed: Option<FileTime>,
    /// When it last shut down cleanly.
    #[serde(serialize_with = "time_text")]
    pub last_shutdown: Option<FileTime>,
    /// Computer name.
    pub computer_name: Option<String>,
    /// The name that it takes at the next start, when that is another.
    pub pending_name: Option<String>,
    /// DNS domain.
    pub dns_domain: Option<String>,
    /// Member of a domain: the policy database has the domain's SID. `None` when that cannot be read.
    pub domain_joined: Option<bool>,
    /// Domain or workgroup.
    pub domain: Option<String>,
    /// `WinNT` workstation, `ServerNT` server, `LanmanNT` domain controller.
    pub product_type: Option<String>,
    /// Registered owner.
    pub owner: Option<String>,
    /// Time zone.
    pub time_zone: TimeZone,
    /// The hardware clock keeps universal time.
    pub clock_is_universal: Option<bool>,
}

/// Time zone.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TimeZone {
    /// Its key name, such as `W. Europe Standard Time`.
    pub name: Option<String>,
    /// Minutes that are added to local standard time to get universal time.
    pub bias_minutes: Option<i32>,
    /// As `bias_minutes`, as it was in force when the machine last ran.
    pub active_bias_minutes: Option<i32>,
}

pub(super) fn read(source: &Source<'_>) -> Identity {
    let (system, software) = (&source.system, &source.software);
    let text = |name: &str| software.text(VERSION, name);
    let seconds = software.number(VERSION, "InstallDate").filter(|seconds| *seconds != 0);
    let installed = software
        .time(VERSION, "InstallTime")
        .or_else(|| seconds.map(|seconds| FileTime::from_unix_seconds(i64::from(seconds))));
    let build = text("CurrentBuildNumber").or_else(|| text("CurrentBuild"));
    let revision = software.number(VERSION, "UBR");
    let active = system.text(r"%\Control\ComputerName\ActiveComputerName", "ComputerName");
    let name = system.text(r"%\Control\ComputerName\ComputerName", "ComputerName");
    let parameters = r"%\Services\Tcpip\Parameters";
    let zone = r"%\Control\TimeZoneInformation";
    let signed = |name: &str| system.number(zone, name).map(u32::cast_signed);
    let policy = super::hive(source.machine, source.installation, "SECURITY", source.notes);
    let account = |path: &str| -> Option<Vec<u8>> {
        let key = source.notes.seen("SECURITY", policy.as_ref()?.key(path))?;
        source.notes.bytes(&key, "")
    };
    let workgroup = account(r"Policy\PolPrDmN").and_then(|data| policy_text(&data));
    // Without the hive, or without its policy, nothing is known; a workgroup has an empty SID.
    let joined = account(r"Policy\PolPrDmS").map(|sid| sid.len() >= 8 && sid[0] == 1);
    Identity {
        product: text("ProductName"),
        edition: text("EditionID"),
        installation_type: text("InstallationType"),
        display_version: text("DisplayVersion").or_else(|| text("ReleaseId")),
        build: build.map(|build| match revision {
            Some(revision) => format!("{build}.{revision}"),
            None => build,
        }),
        build_lab: text("BuildLabEx").or_else(|| text("BuildLab")),
        installed,
        last_shutdown: system.time(r"%\Control\Windows", "ShutdownTime"),
        pending_name: name.clone().filter(|name| active.as_ref().is_some_and(|active| active != name)),
        computer_name: active.or(name),
        dns_domain: system.text(parameters, "NV Domain").or_else(|| system.text(parameters, "Domain")),
        domain_joined: joined,
        domain: workgroup,
        product_type: system.text(r"%\Control\ProductOptions", "ProductType"),
        owner: text("RegisteredOwner"),
        time_zone: TimeZone {
            name: system.text(zone, "TimeZoneKeyName").or_else(|| system.text(zone, "StandardName")),
            bias_minutes: signed("Bias"),
            active_bias_minutes: signed("ActiveTimeBias"),
        },
        clock_is_universal: system.flag(zone, "RealTimeIsUniversal"),
    }
}

/// A text of the policy database: length, capacity, offset, and the text.
fn policy_text(data: &[u8]) -> Option<String> {
    let (length, offset) = (usize::from(u16_at(data, 0)?), u32_at(data, 4)? as usize);
    let text = utf16le_lossy(slice_at(data, offset, length)?);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_of_the_policy_database_stay_inside_their_bytes() {
        let mut data = vec![4, 0, 6, 0, 8, 0, 0, 0, b'A', 0, b'D', 0];
        assert_eq!(super::policy_text(&data).as_deref(), Some("AD"));
        data[4] = 0xff;
        assert_eq!(super::policy_text(&data), None);
    }
}
