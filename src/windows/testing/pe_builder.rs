//! Small PE files without code, with a version resource: what a driver looks like to everybody who does not run it.

use vmrescue_base::text::utf16le_bytes;

const FILE_ALIGN: usize = 512;
const RESOURCE_RVA: u32 = 0x2000;
/// Resource type of version information.
const VERSION: u32 = 16;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A node of a version resource: length, value length, type, key, value, children; each on a 4-byte boundary.
fn node(key: &str, is_text: bool, value: &[u8], children: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 6];
    bytes.extend(utf16le_bytes(&format!("{key}\0")));
    let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(4), 0);
    pad(&mut bytes);
    bytes.extend(value);
    for child in children {
        pad(&mut bytes);
        bytes.extend(child);
    }
    let (length, value_length) = (bytes.len() as u16, value.len() / if is_text { 2 } else { 1 });
    put(&mut bytes, 0, &length.to_le_bytes());
    put(&mut bytes, 2, &(value_length as u16).to_le_bytes());
    put(&mut bytes, 4, &u16::from(is_text).to_le_bytes());
    bytes
}

fn version_resource(name: &str, version: &str) -> Vec<u8> {
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap_or(0)).collect();
    let part = |i: usize| parts.get(i).copied().unwrap_or(0);
    let (high, low) = (part(0) << 16 | part(1), part(2) << 16 | part(3));
    let fixed: Vec<u8> = [0xfeef_04bd, 0x1_0000, high, low, high, low, 0x3f, 0, 0x4_0004, 3, 7, 0, 0]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    let text = |key: &str, value: &str| node(key, true, &utf16le_bytes(&format!("{value}\0")), &[]);
    let table = node(
        "040904B0",
        true,
        &[],
        &[
            text("FileDescription", "made by vmrescue"),
            text("FileVersion", version),
            text("OriginalFilename", name),
            text("ProductVersion", version),
        ],
    );
    let translation = node("Translation", false, &[0x09, 0x04, 0xb0, 0x04], &[]);
    node(
        "VS_VERSION_INFO",
        false,
        &fixed,
        &[node("StringFileInfo", true, &[], &[table]), node("VarFileInfo", true, &[], &[translation])],
    )
}

/// The resource section: three levels of directories (type, name 1, language 0x409) and the data.
fn resource_section(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 88];
    for (level, (id, next)) in
        [(kind, 0x8000_0018u32), (1, 0x8000_0030), (0x409, 0x48)].into_iter().enumerate()
    {
        put(&mut bytes, level * 24 + 14, &1u16.to_le_bytes());
        put(&mut bytes, level * 24 + 16, &id.to_le_bytes());
        put(&mut bytes, level * 24 + 20, &next.to_le_bytes());
    }
    put(&mut bytes, 72, &(RESOURCE_RVA + 88).to_le_bytes());
    put(&mut bytes, 76, &(data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

fn section_header(name: &[u8], rva: u32, raw: usize, place: usize, flags: u32) -> Vec<u8> {
    let mut bytes = vec![0; 40];
    put(&mut bytes, 0, name);
    put(&mut bytes, 8, &(raw as u32).to_le_bytes());
    put(&mut bytes, 12, &rva.to_le_bytes());
    put(&mut bytes, 16, &(raw as u32).to_le_bytes());
    put(&mut bytes, 20, &(place as u32).to_le_bytes());
    put(&mut bytes, 36, &flags.to_le_bytes());
    bytes
}

/// Where the import table lies in the code section.
const IMPORTS: usize = 0x1000;

/// The import table of files named `imports`, for a section that begins at `rva`; each asks for one function by its number.
fn import_table(imports: &[&str], rva: u32) -> Vec<u8> {
    let names = (imports.len() + 1) * 20;
    let thunks = names + imports.iter().map(|name| name.len() + 1).sum::<usize>();
    let thunks = thunks.next_multiple_of(8);
    let mut bytes = vec![0; thunks + imports.len() * 16];
    let mut at = names;
    for (i, name) in imports.iter().enumerate() {
        let thunk = thunks + i * 16;
        for (field, place) in [(0, thunk), (12, at), (16, thunk)] {
            put(&mut bytes, i * 20 + field, &(rva + (IMPORTS + place) as u32).to_le_bytes());
        }
        put(&mut bytes, at, name.as_bytes());
        put(&mut bytes, thunk, &0x8000_0000_0000_0001u64.to_le_bytes());
        at += name.len() + 1;
    }
    bytes
}

/// A 64-bit PE file named `name` with this version, for `machine` (0x8664, 0xaa64), with a right checksum.
pub fn driver(name: &str, version: &str, machine: u16) -> Vec<u8> {
    program(name, version, machine, &[])
}

/// The same, importing from the files `imports`.
pub fn program(name: &str, version: &str, machine: u16, imports: &[&str]) -> Vec<u8> {
    assemble(name, version, machine, imports, resource_section(VERSION, &version_resource(name, version)))
}

/// A 64-bit PE file for amd64 whose only resource is of this type: what wcp.dll is to those who look for the base of manifests.
pub fn resource_file(name: &str, kind: u32, data: &[u8]) -> Vec<u8> {
    assemble(name, "", 0x8664, &[], resource_section(kind, data))
}

fn assemble(name: &str, version: &str, machine: u16, imports: &[&str], mut resources: Vec<u8>) -> Vec<u8> {
    let mut text = vec![0xcc; 16 * 1024];
    // Different versions differ in their bodies, not only in their resources.
    version.bytes().chain(name.bytes()).enumerate().for_each(|(i, byte)| text[i] = byte);
    resources.resize(resources.len().next_multiple_of(FILE_ALIGN), 0);
    let headers = 1024;
    let mut bytes = vec![0; headers];
    put(&mut bytes, 0, b"MZ");
    put(&mut bytes, 0x3c, &0x80u32.to_le_bytes());
    put(&mut bytes, 0x80, b"PE\0\0");
    put(&mut bytes, 0x84, &machine.to_le_bytes());
    put(&mut bytes, 0x86, &2u16.to_le_bytes());
    put(&mut bytes, 0x88, &0x6500_0000u32.to_le_bytes());
    put(&mut bytes, 0x94, &240u16.to_le_bytes());
    put(&mut bytes, 0x96, &0x22u16.to_le_bytes());
    let optional = 0x98;
    put(&mut bytes, optional, &0x20bu16.to_le_bytes());
    let resource_size = (resources.len() as u32).next_multiple_of(0x1000);
    for (at, value) in [
        (4, text.len() as u32),
        (16, 0x1000),
        (20, 0x1000),
        (32, 0x1000),
        (36, FILE_ALIGN as u32),
        (40, 10),
        (48, 10),
        (56, 0x8000 + resource_size),
        (60, headers as u32),
        (108, 16),
    ] {
        put(&mut bytes, optional + at, &value.to_le_bytes());
    }
    put(&mut bytes, optional + 24, &0x1_4000_0000u64.to_le_bytes());
    put(&mut bytes, optional + 68, &1u16.to_le_bytes());
    // The resource section lies ahead of the code, so that its place does not depend on the code's length.
    put(&mut bytes, optional + 112 + 16, &RESOURCE_RVA.to_le_bytes());
    put(&mut bytes, optional + 112 + 20, &(resources.len() as u32).to_le_bytes());
    let table = optional + 240;
    let code_rva = RESOURCE_RVA + resource_size;
    if !imports.is_empty() {
        let import_table = import_table(imports, code_rva);
        put(&mut text, IMPORTS, &import_table);
        put(&mut bytes, optional + 112 + 8, &(code_rva + IMPORTS as u32).to_le_bytes());
        put(&mut bytes, optional + 112 + 12, &(import_table.len() as u32).to_le_bytes());
    }
    put(&mut bytes, table, &section_header(b".rsrc", RESOURCE_RVA, resources.len(), headers, 0x4000_0040));
    let place = headers + resources.len();
    put(&mut bytes, table + 40, &section_header(b".text", code_rva, text.len(), place, 0x6000_0020));
    put(&mut bytes, optional + 16, &code_rva.to_le_bytes());
    put(&mut bytes, optional + 20, &code_rva.to_le_bytes());
    bytes.extend(resources);
    bytes.extend(text);
    let sum = crate::pe_checksum(&bytes, optional + 64);
    put(&mut bytes, optional + 64, &sum.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::{driver, program, resource_file};
    use crate::PeInfo;

    #[test]
    fn the_base_of_manifests_is_found_in_a_program_file() {
        let text = b"<assembly/>".repeat(900);
        assert_eq!(crate::base_manifest(&resource_file("wcp.dll", 614, &text)), Some(&text[..]));
        assert_eq!(crate::base_manifest(&driver("wcp.dll", "10.0.1.2", 0x8664)), None);
    }

    #[test]
    fn a_driver_says_what_it_is() {
        let info = PeInfo::parse(&driver("ACPI.sys", "10.0.17763.7558", 0x8664)).unwrap();
        assert_eq!(info.file_version.as_deref(), Some("10.0.17763.7558"));
        assert_eq!(info.original_name.as_deref(), Some("ACPI.sys"));
        assert!(info.checksum_right && info.machine == 0x8664);
        let imports = ["ntoskrnl.exe", "HAL.dll", "WMILIB.SYS"];
        let importing = program("ACPI.sys", "10.0.17763.7558", 0x8664, &imports);
        assert!(PeInfo::parse(&importing).unwrap().checksum_right);
        assert_eq!(crate::pe_imports(&importing), imports);
        let mut broken = driver("ACPI.sys", "10.0.17763.7558", 0x8664);
        broken.truncate(9000);
        assert!(PeInfo::parse(&broken).is_err());
        assert!(PeInfo::parse(&[0; 9000]).is_err());
    }
}
