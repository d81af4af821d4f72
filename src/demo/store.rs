//! A component store with the forms that real ones have, around the demo's own files: manifests (plain, and packed against a base in wcp.dll),
//! a packed first version, forward and reverse deltas, a null delta, one file that only its deltas can make.

use crate::{ACPI_VERSIONS, program_file};
use sha2::{Digest, Sha256};
use vmrescue_payload::testing::{dcm, dcs, differential};
use vmrescue_repair::Change;
use vmrescue_windows::Identity;
use vmrescue_windows::testing::resource_file;

const STORE: &str = r"C:\Windows\WinSxS";
/// The first version of every component.
pub const FIRST_VERSION: &str = "10.0.17763.1";
/// A file of a component whose manifest is packed, and the versions of it.
pub const PACKED_FILE: &str = "rescue.dll";
/// Where it lies.
pub const PACKED_PATH: &str = r"C:\Windows\System32\rescue.dll";
/// Resource type of the base in wcp.dll.
const BASE: u32 = 614;

/// What a version of a file holds: as the demo has it, or some other program.
fn content(file: &str, version: &str) -> Vec<u8> {
    program_file(file, version).unwrap_or_else(|| vmrescue_windows::testing::driver(file, version, 0x8664))
}

/// The bytes that the installed build expects of [`PACKED_FILE`].
pub fn packed_file() -> Vec<u8> {
    content(PACKED_FILE, ACPI_VERSIONS[0])
}

fn write(path: String, data: Vec<u8>) -> Change {
    Change::FileWrite { path, size: data.len() as u64, data: data.into(), from: "the demo".into() }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// The text of a manifest with one file.
pub fn manifest(identity: &Identity, file: &str, data: &[u8]) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\" standalone=\"yes\"?>\r\n<assembly xmlns=\"urn:schemas-microsoft-com:asm.v3\" manifestVersion=\"1.0\">\r\n  \
         <assemblyIdentity name=\"{}\" version=\"{}\" processorArchitecture=\"{}\" language=\"neutral\" buildType=\"release\" publicKeyToken=\"{}\" versionScope=\"nonSxS\" />\r\n  \
         <file name=\"{file}\" destinationPath=\"$(runtime.system32)\\\" sourceName=\"{file}\" importPath=\"$(build.nttree)\\\">\r\n    \
         <asmv2:hash xmlns:asmv2=\"urn:schemas-microsoft-com:asm.v2\" xmlns:dsig=\"http://www.w3.org/2000/09/xmldsig#\">\r\n      \
         <dsig:Transforms><dsig:Transform Algorithm=\"urn:schemas-microsoft-com:HashTransforms.Identity\" /></dsig:Transforms>\r\n      \
         <dsig:DigestMethod Algorithm=\"http://www.w3.org/2000/09/xmldsig#sha256\" />\r\n      <dsig:DigestValue>{}</dsig:DigestValue>\r\n    \
         </asmv2:hash>\r\n  </file>\r\n</assembly>\r\n",
        identity.name,
        identity.version,
        identity.architecture,
        identity.token,
        base64(&Sha256::digest(data))
    )
    .into_bytes()
}

/// The identity of a component of the demo.
pub fn identity(name: &str, version: &str) -> Identity {
    Identity {
        name: name.into(),
        culture: "neutral".into(),
        kind: String::new(),
        version: version.into(),
        token: "31bf3856ad364e35".into(),
        architecture: "amd64".into(),
        version_scope: "nonSxS".into(),
    }
}

/// The changes that give the demo's disk such a store.
pub fn store_changes() -> Vec<Change> {
    let mut changes = vec![Change::MakeDirectory { path: format!(r"{STORE}\Manifests") }];
    acpi(&mut changes);
    packed(&mut changes);
    changes
}

/// The component of ACPI.sys: the demo has two versions of it; now also the first one, packed, and the deltas.
fn acpi(changes: &mut Vec<Change>) {
    let [new, old] = ACPI_VERSIONS;
    let file = "ACPI.sys";
    let folder = |version: &str| format!(r"amd64_acpi.inf_31bf3856ad364e35_{version}_none_0a1b2c3d4e5f6071");
    let first = content(file, FIRST_VERSION);
    for version in [new, old, FIRST_VERSION] {
        let text = manifest(&identity("acpi.inf", version), file, &content(file, version));
        changes.push(write(format!(r"{STORE}\Manifests\{}.manifest", folder(version)), text));
    }
    let at = format!(r"{STORE}\{}", folder(FIRST_VERSION));
    changes.push(Change::MakeDirectory { path: at.clone() });
    changes.push(write(format!(r"{at}\{file}"), dcs(&first)));
    for version in [new, old] {
        let at = format!(r"{STORE}\{}", folder(version));
        let own = content(file, version);
        for (kind, delta) in [("f", differential(&first, &own)), ("r", differential(&own, &first))] {
            changes.push(Change::MakeDirectory { path: format!(r"{at}\{kind}") });
            changes.push(write(format!(r"{at}\{kind}\{file}"), delta));
        }
    }
}

/// A component whose manifest is packed, with wcp.dll and its base; its file has a name in System32, and a null delta.
fn packed(changes: &mut Vec<Change>) {
    let base = manifest(&identity("base of all manifests", "0.0.0.0"), "none", b"");
    let stack = identity("Microsoft-Windows-ServicingStack", ACPI_VERSIONS[0]).key_form();
    let at = format!(r"{STORE}\{stack}");
    changes.push(Change::MakeDirectory { path: at.clone() });
    changes.push(write(format!(r"{at}\wcp.dll"), resource_file("wcp.dll", BASE, &base)));
    let own = identity("Microsoft-Windows-Rescue Demo", ACPI_VERSIONS[0]);
    let (name, data) = (own.key_form(), packed_file());
    let text = manifest(&own, PACKED_FILE, &data);
    changes.push(write(format!(r"{STORE}\Manifests\{name}.manifest"), dcm(&base, &text)));
    let at = format!(r"{STORE}\{name}");
    changes.push(Change::MakeDirectory { path: at.clone() });
    let path = format!(r"{at}\{PACKED_FILE}");
    changes.push(write(path.clone(), data.clone()));
    changes.push(Change::FileLink {
        path: PACKED_PATH.into(),
        target: path,
        why: "as Windows has it".into(),
    });
    changes.push(Change::MakeDirectory { path: format!(r"{at}\n") });
    changes.push(write(format!(r"{at}\n\{PACKED_FILE}"), differential(b"", &data)));
}
