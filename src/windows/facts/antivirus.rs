//! Virus scanners: Defender with its settings, and others by their services. Their filter drivers take part in every start.

use super::{Source, start_word, time_text};
use serde::Serialize;
use vmrescue_base::time::FileTime;

/// Virus scanners.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Antivirus {
    /// Start of the service WinDefend.
    pub defender_service: Option<&'static str>,
    /// Defender is switched off, by setting or policy.
    pub defender_disabled: Option<bool>,
    /// Protection in real time is switched off.
    pub realtime_disabled: Option<bool>,
    /// Tamper protection: 5 or 1 on, 4 or 0 off.
    pub tamper_protection: Option<u32>,
    /// Version of the signatures.
    pub signatures: Option<String>,
    /// When they were last applied.
    #[serde(serialize_with = "time_text")]
    pub signatures_applied: Option<FileTime>,
    /// Folder of the running platform.
    pub platform: Option<String>,
    /// Other products.
    pub products: Vec<AntivirusProduct>,
}

/// A product by its service.
#[derive(Debug, Clone, Serialize)]
pub struct AntivirusProduct {
    /// Its name.
    pub name: &'static str,
    /// The service that tells it.
    pub service: &'static str,
    /// Start of that service.
    pub start: &'static str,
}

const PRODUCTS: [(&str, &str); 24] = [
    ("Microsoft Defender for Endpoint", "Sense"),
    ("CrowdStrike Falcon", "CSFalconService"),
    ("CrowdStrike Falcon (driver)", "CSAgent"),
    ("SentinelOne", "SentinelAgent"),
    ("Carbon Black", "CbDefense"),
    ("Carbon Black (driver)", "carbonblackk"),
    ("Symantec Endpoint Protection", "SepMasterService"),
    ("Trellix or McAfee", "mfemms"),
    ("McAfee (driver)", "mfehidk"),
    ("Trend Micro", "ntrtscan"),
    ("Trend Micro Deep Security", "ds_agent"),
    ("Trend Micro (driver)", "tmcomm"),
    ("Sophos", "SAVService"),
    ("Sophos Endpoint", "Sophos Endpoint Defense Service"),
    ("ESET", "ekrn"),
    ("Kaspersky (driver)", "klif"),
    ("Bitdefender", "EPSecurityService"),
    ("Palo Alto Cortex XDR", "cyserver"),
    ("Cylance", "CylanceSvc"),
    ("Malwarebytes", "MBAMService"),
    ("Cisco Secure Endpoint", "CiscoAMP"),
    ("FireEye", "xagt"),
    ("Webroot", "WRSVC"),
    ("Avast or AVG (driver)", "aswSP"),
];

pub(super) fn read(source: &Source<'_>) -> Antivirus {
    let software = &source.software;
    let (own, policy) = (r"Microsoft\Windows Defender", r"Policies\Microsoft\Windows Defender");
    let either = |key: &str, name: &str| {
        let path = |root: &str| if key.is_empty() { root.to_string() } else { format!(r"{root}\{key}") };
        software.flag(&path(policy), name).or_else(|| software.flag(&path(own), name))
    };
    let updates = format!(r"{own}\Signature Updates");
    Antivirus {
        defender_service: source.start_of("WinDefend").map(start_word),
        defender_disabled: either("", "DisableAntiSpyware").or_else(|| either("", "DisableAntiVirus")),
        realtime_disabled: either("Real-Time Protection", "DisableRealtimeMonitoring"),
        tamper_protection: software.number(&format!(r"{own}\Features"), "TamperProtection"),
        signatures: software.text(&updates, "AVSignatureVersion"),
        signatures_applied: software
            .time(&updates, "SignaturesLastUpdated")
            .or_else(|| software.time(&updates, "AVSignatureApplied")),
        platform: software.text(own, "InstallLocation"),
        products: PRODUCTS
            .iter()
            .filter_map(|(name, service)| {
                Some(AntivirusProduct { name, service, start: start_word(source.start_of(service)?) })
            })
            .collect(),
    }
}
