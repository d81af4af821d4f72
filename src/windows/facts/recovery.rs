//! The recovery environment, as `ReAgent.xml` describes it, and whether its image is where it says.

use super::Source;
use serde::Serialize;
use vmrescue_base::guid::Guid;
use vmrescue_fs::{read_file, resolve};

/// Largest ReAgent.xml that is read; it has about 1 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The recovery environment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recovery {
    /// ReAgent.xml was found and read.
    pub described: bool,
    /// It is switched on.
    pub enabled: Option<bool>,
    /// Number of the partition that it names, when there is one that begins there.
    pub partition: Option<u32>,
    /// The partition's offset that it names, in bytes.
    pub offset: Option<u64>,
    /// The directory that it names.
    pub directory: Option<String>,
    /// `Winre.wim` is there; `None` when nothing is named or the volume cannot be read.
    pub image_present: Option<bool>,
    /// Build of its image.
    pub build: Option<String>,
    /// `Winre.wim` in `System32\Recovery`, where it lies while the environment is off.
    pub staged_image: Option<bool>,
    /// Its entry in the boot store.
    pub boot_entry: Option<String>,
}

fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(&format!("<{name} ")).nth(1)?.split('>').next()
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    tag.split(&format!("{name}=\"")).nth(1)?.split('"').next().map(String::from)
}

pub(super) fn read(source: &Source<'_>) -> Recovery {
    let folder = format!(r"{}\System32\Recovery", source.installation.path);
    let mut found = Recovery {
        staged_image: Some(source.node(&format!(r"{folder}\Winre.wim")).is_some()),
        ..Recovery::default()
    };
    let Some((fs, node)) = source.node(&format!(r"{folder}\ReAgent.xml")) else { return found };
    let place = format!(r"{folder}\ReAgent.xml");
    let Some(data) = source.seen(&place, fs.metadata(node)) else { return found };
    if data.size_bytes > MAX_FILE_BYTES {
        source.notes.add(format!("{place}: {} bytes are too many for a description", data.size_bytes));
        return found;
    }
    let Some(bytes) = source.seen(&place, read_file(&*fs, node, "")) else { return found };
    let text = match bytes.strip_prefix(&[0xff, 0xfe]) {
        Some(wide) => vmrescue_base::text::utf16le_lossy(wide),
        None => String::from_utf8_lossy(&bytes).into_owned(),
    };
    described(&mut found, &text);
    let place = found.offset.and_then(|offset| {
        source.machine.volumes.iter().position(|volume| offset != 0 && volume.range.start == offset)
    });
    if let Some(volume) = place.map(|place| &source.machine.volumes[place]) {
        found.partition = Some(volume.number);
        let directory = found.directory.clone().unwrap_or_default();
        let parts: Vec<&str> =
            directory.split('\\').filter(|part| !part.is_empty()).chain(["Winre.wim"]).collect();
        if volume.fs.is_none() {
            let why = volume.error.clone().unwrap_or_else(|| "it has no file system that is known".into());
            source.notes.add(format!("the recovery partition #{}: {why}", volume.number));
        }
        let place = format!("#{}:{directory}", volume.number);
        let image = volume.fs.as_ref().and_then(|fs| source.seen(&place, resolve(&**fs, &parts)));
        found.image_present = image.map(|node| node.is_some());
    } else if found.offset.is_some_and(|offset| offset != 0) {
        found.image_present = Some(false);
    }
    found
}

/// What the text says.
fn described(found: &mut Recovery, text: &str) {
    found.described = true;
    found.enabled =
        tag(text, "InstallState").and_then(|tag| attribute(tag, "state")).map(|state| state == "1");
    if let Some(location) = tag(text, "WinreLocation") {
        found.offset = attribute(location, "offset").and_then(|offset| offset.parse().ok());
        found.directory = attribute(location, "path").filter(|path| !path.is_empty());
    }
    found.build =
        tag(text, "OsBuildVersion").and_then(|tag| attribute(tag, "path")).filter(|path| !path.is_empty());
    let entry = tag(text, "WinreBCD").and_then(|tag| attribute(tag, "id"));
    found.boot_entry = entry.filter(|id| id.parse::<Guid>().is_ok_and(|id| !id.is_zero()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_read() {
        let text = r#"<?xml version='1.0'?><WindowsRE version="2.0">
          <WinreBCD id="{6f4b5d2e-0001-11ee-9c2f-00155d010203}"/>
          <WinreLocation path="\Recovery\WindowsRE" id="0" offset="1048576" guid="{a}"/>
          <InstallState state="1"/><OsBuildVersion path="17763.1.amd64fre.rs5"/></WindowsRE>"#;
        let mut found = Recovery::default();
        described(&mut found, text);
        assert_eq!((found.enabled, found.offset), (Some(true), Some(1_048_576)));
        assert_eq!(found.directory.as_deref(), Some(r"\Recovery\WindowsRE"));
        assert_eq!(found.build.as_deref(), Some("17763.1.amd64fre.rs5"));
        assert!(found.boot_entry.is_some());
        let mut off = Recovery::default();
        described(
            &mut off,
            r#"<WindowsRE><WinreBCD id="{00000000-0000-0000-0000-000000000000}"/><InstallState state="0"/>"#,
        );
        assert_eq!((off.enabled, off.boot_entry), (Some(false), None));
    }
}
