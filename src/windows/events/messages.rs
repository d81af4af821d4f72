//! The texts of events, from the message tables of the providers' files on the disk.
//!
//! Which files: `SYSTEM\...\Services\EventLog\<log>\<provider>` (`EventMessageFile`, `ParameterMessageFile`) for classic providers,
//! `SOFTWARE\Microsoft\Windows\CurrentVersion\WINEVT\Publishers` (`MessageFileName`, `ParameterFileName`) for those with a manifest. The table is the
//! resource `RT_MESSAGETABLE` (MESSAGE_RESOURCE_DATA of the Windows SDK) of the file itself or of its `.mui` file: English when it is there,
//! else the first language of `System32`. Inserts are put in as FormatMessage does, without their print formats.
//!
//! The number of a message: qualifiers and number for classic providers; 0xB0000000 | version << 16 | number for manifests, as
//! the message compiler gives them. Manifests that number otherwise are not understood; their events keep their parameters.

use super::Event;
use crate::pe::message_table;
use crate::services::expand_image_path;
use crate::{Installation, Machine};
use std::collections::HashMap;
use std::sync::Arc;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at};
use vmrescue_base::error::Result;
use vmrescue_base::text::{until_nul, utf16le_lossy};
use vmrescue_fs::{FileSystem, NodeKind, read_file, resolve};
use vmrescue_registry::{Hive, Key};

/// Largest file that is searched for messages.
const MAX_FILE: u64 = 64 << 20;
/// Most blocks of one table.
const MAX_BLOCKS: u32 = 1 << 16;
/// Longest text that is made of one message.
const MAX_TEXT: usize = 32 << 10;
/// Most tables that are kept.
const MAX_TABLES: usize = 512;

/// Where the texts of a provider are.
#[derive(Debug, Default, Clone)]
struct Provider {
    messages: Vec<String>,
    parameters: Vec<String>,
}

/// Finds texts of events; keeps the tables that it has read.
pub struct Messages {
    fs: Arc<dyn FileSystem>,
    languages: Vec<String>,
    providers: HashMap<String, Provider>,
    tables: HashMap<String, Option<Arc<Vec<u8>>>>,
}

impl Messages {
    /// For an installation. What the registry does not tell is not found later: never an error of its own.
    ///
    /// # Errors
    /// Of the volume.
    pub fn open(machine: &Machine, installation: &Installation) -> Result<Messages> {
        let fs = machine.file_system(installation.volume)?;
        let mut providers = HashMap::new();
        if let Ok(hive) = machine.hive(installation, "SOFTWARE") {
            manifests(&hive, &mut providers);
        }
        if let Ok(hive) = machine.hive(installation, "SYSTEM") {
            classic(&hive, installation.control_sets.current.max(1), &mut providers);
        }
        let mut languages = Vec::new();
        if let Ok(Some(system)) = resolve(&*fs, &["Windows", "System32"]) {
            let entries = fs.read_dir(system).unwrap_or_default();
            let folders =
                entries.into_iter().filter(|entry| entry.kind == NodeKind::Directory).map(|entry| entry.name);
            languages = folders.filter(|name| is_language(name)).collect();
        }
        languages.sort_by_key(|name| (!name.eq_ignore_ascii_case("en-US"), name.to_lowercase()));
        Ok(Messages { fs, languages, providers, tables: HashMap::new() })
    }

    /// Gives the event its message, when its text is on the disk.
    pub fn fill(&mut self, event: &mut Event) {
        if event.message.is_none() {
            event.message = self.text(event);
        }
    }

    /// The text of an event.
    pub fn text(&mut self, event: &Event) -> Option<String> {
        let provider = self.providers.get(&event.provider.to_lowercase())?.clone();
        let classic = event.qualifiers.map(|qualifiers| u32::from(qualifiers) << 16 | event.id);
        let manifest = 0xB000_0000 | u32::from(event.version) << 16 | event.id;
        let numbers = classic.into_iter().chain([manifest, event.id]);
        let template = numbers
            .flat_map(|number| provider.messages.iter().map(move |file| (file, number)))
            .find_map(|(file, number)| self.message(file, number))?;
        let values: Vec<String> = event
            .data
            .iter()
            .filter(|datum| datum.name != "Binary")
            .map(|datum| self.parameters(&datum.value, &provider))
            .collect();
        let text = insert(&template, &values);
        Some(self.parameters(text.trim(), &provider))
    }

    /// `%%1234` stands for a message of the parameter file, or of the system.
    fn parameters(&mut self, text: &str, provider: &Provider) -> String {
        if !text.contains("%%") {
            return text.to_string();
        }
        let system = vec![r"%SystemRoot%\System32\kernel32.dll".to_string()];
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("%%") {
            out.push_str(before);
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let (number, next) = after.split_at(digits);
            let found = number.parse().ok().and_then(|number: u32| {
                provider.parameters.iter().chain(&system).find_map(|file| self.message(file, number))
            });
            match found {
                Some(message) => out.push_str(insert(&message, &[]).trim()),
                None => {
                    out.push_str("%%");
                    out.push_str(number);
                }
            }
            rest = next;
            if out.len() > MAX_TEXT {
                break;
            }
        }
        out.push_str(rest);
        out
    }

    /// A message of a file as the registry names it.
    fn message(&mut self, file: &str, number: u32) -> Option<String> {
        let components = components(file)?;
        let path = components.join("\\").to_lowercase();
        if !self.tables.contains_key(&path) && self.tables.len() < MAX_TABLES {
            let table = self.load(&components).map(Arc::new);
            self.tables.insert(path.clone(), table);
        }
        let table = self.tables.get(&path)?.clone()?;
        lookup(&table, number)
    }

    /// The table of a file, in the first language that has one; then of the file itself.
    fn load(&self, components: &[String]) -> Option<Vec<u8>> {
        let (name, folder) = components.split_last()?;
        let mui = self.languages.iter().map(|language| {
            folder.iter().cloned().chain([language.clone(), format!("{name}.mui")]).collect::<Vec<_>>()
        });
        mui.chain([components.to_vec()]).find_map(|path| {
            let node = resolve(&*self.fs, &path).ok()??;
            let small = self.fs.metadata(node).ok()?.size_bytes <= MAX_FILE;
            let bytes = small.then(|| read_file(&*self.fs, node, "").ok())??;
            message_table(&bytes).map(<[u8]>::to_vec)
        })
    }
}

/// `en-US`, `zh-Hant-TW`.
fn is_language(name: &str) -> bool {
    let mut parts = name.split('-');
    let letters = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric());
    let first = parts.next().is_some_and(|part| matches!(part.len(), 2 | 3) && letters(part));
    let rest: Vec<&str> = parts.collect();
    first && !rest.is_empty() && rest.iter().all(|part| (2..=8).contains(&part.len()) && letters(part))
}

/// Components of a file that the registry names.
fn components(file: &str) -> Option<Vec<String>> {
    let file = file.trim().trim_matches('"');
    if !file.contains('\\') && !file.is_empty() {
        return Some(["Windows", "System32", file].map(String::from).to_vec());
    }
    let lower = file.to_ascii_lowercase();
    match lower.strip_prefix(r"%programfiles%\") {
        Some(rest) => {
            let rest = file.get(file.len() - rest.len()..)?;
            Some(["Program Files"].into_iter().chain(rest.split('\\')).map(String::from).collect())
        }
        None => expand_image_path(file, "", false),
    }
}

fn text_of(key: &Key<'_>, name: &str) -> Option<String> {
    key.value(name).ok()??.as_string().filter(|text| !text.is_empty())
}

fn files(text: Option<String>) -> Vec<String> {
    text.map(|text| text.split(';').map(str::to_string).filter(|file| !file.trim().is_empty()).collect())
        .unwrap_or_default()
}

fn add(all: &mut HashMap<String, Provider>, name: &str, messages: Vec<String>, parameters: Vec<String>) {
    let provider = all.entry(name.to_lowercase()).or_default();
    provider.messages.extend(messages);
    provider.parameters.extend(parameters);
}

fn manifests(hive: &Hive, all: &mut HashMap<String, Provider>) {
    let Ok(Some(publishers)) = hive.key(r"Microsoft\Windows\CurrentVersion\WINEVT\Publishers") else {
        return;
    };
    for key in publishers.subkeys_lenient().0 {
        if let Some(name) = text_of(&key, "") {
            add(
                all,
                &name,
                files(text_of(&key, "MessageFileName")),
                files(text_of(&key, "ParameterFileName")),
            );
        }
    }
}

fn classic(hive: &Hive, set: u32, all: &mut HashMap<String, Provider>) {
    let Ok(Some(logs)) = hive.key(&format!(r"ControlSet{set:03}\Services\EventLog")) else { return };
    for log in logs.subkeys_lenient().0 {
        for key in log.subkeys_lenient().0 {
            let (messages, parameters) =
                (files(text_of(&key, "EventMessageFile")), files(text_of(&key, "ParameterMessageFile")));
            add(all, &key.name(), messages, parameters);
        }
    }
}

/// The text of a number in a table: blocks of numbers in a row, each entry with its length.
fn lookup(table: &[u8], number: u32) -> Option<String> {
    let count = u32_at(table, 0)?.min(MAX_BLOCKS) as usize;
    for block in (0..count).map(|i| 4 + i * 12) {
        let (low, high) = (u32_at(table, block)?, u32_at(table, block + 4)?);
        if !(low..=high).contains(&number) {
            continue;
        }
        let mut at = u32_at(table, block + 8)? as usize;
        for _ in low..number {
            at = at.checked_add(usize::from(u16_at(table, at)?).max(4))?;
        }
        let (length, flags) = (usize::from(u16_at(table, at)?), u16_at(table, at + 2)?);
        let bytes = slice_at(table, at + 4, length.checked_sub(4)?)?;
        // Flag 1 is UTF-16; the other texts are of the system's code page, of which the lower half is ASCII.
        let text = if flags & 1 != 0 {
            utf16le_lossy(bytes)
        } else {
            bytes.iter().map(|byte| char::from(*byte)).collect()
        };
        return Some(until_nul(&text).to_string());
    }
    None
}

/// A template with its values, as FormatMessage does it: `%1`, `%1!s!`, `%n`, `%%`, `%0` ends. `%%` in front of digits stays.
fn insert(template: &str, values: &[String]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if out.len() > MAX_TEXT {
            return out;
        }
        let digits = after.bytes().take_while(u8::is_ascii_digit).take(2).count();
        if digits > 0 {
            let (number, mut next) = after.split_at(digits);
            if number == "0" {
                return out;
            }
            if let Some((_, behind)) = next.strip_prefix('!').and_then(|format| format.split_once('!')) {
                next = behind;
            }
            match number.parse::<usize>().ok().and_then(|n| values.get(n.checked_sub(1)?)) {
                Some(value) => out.push_str(value),
                None => {
                    out.push('%');
                    out.push_str(number);
                }
            }
            rest = next;
            continue;
        }
        let mut chars = after.chars();
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => {}
            Some('t') => out.push('\t'),
            Some('b') => out.push(' '),
            Some('%') if chars.as_str().starts_with(|c: char| c.is_ascii_digit()) => out.push_str("%%"),
            Some(c) => out.push(c),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table of one block.
    fn table(first: u32, texts: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [1, first, first + texts.len() as u32 - 1, 16] {
            bytes.extend(number.to_le_bytes());
        }
        for text in texts {
            let text = vmrescue_base::text::utf16le_bytes(&format!("{text}\0"));
            bytes.extend((text.len() as u16 + 4).to_le_bytes());
            bytes.extend(1u16.to_le_bytes());
            bytes.extend(text);
        }
        bytes
    }

    #[test]
    fn a_table_gives_its_texts() {
        let table = table(0xC000_1B58, &["zero", "The %1 service%nended: %2!s!%0 not this", "two"]);
        assert_eq!(lookup(&table, 0xC000_1B58).as_deref(), Some("zero"));
        assert_eq!(lookup(&table, 0xC000_1B5A).as_deref(), Some("two"));
        assert_eq!(lookup(&table, 0xC000_1B5B), None);
        let values = ["Spooler".to_string(), "%%2".to_string()];
        let text = insert(&lookup(&table, 0xC000_1B59).unwrap(), &values);
        assert_eq!(text, "The Spooler service\nended: %%2");
        assert_eq!(insert("100%% of %3, %%31", &values), "100% of %3, %%31");
        assert_eq!(insert("end %", &[]), "end ");
    }

    #[test]
    fn files_of_the_registry_are_found() {
        let joined = |file: &str| components(file).map(|parts| parts.join("\\"));
        assert_eq!(
            joined(r"%SystemRoot%\System32\netevent.dll").as_deref(),
            Some(r"Windows\System32\netevent.dll")
        );
        assert_eq!(joined("netevent.dll").as_deref(), Some(r"Windows\System32\netevent.dll"));
        assert_eq!(joined(r"%ProgramFiles%\A\b.dll").as_deref(), Some(r"Program Files\A\b.dll"));
        assert!(
            is_language("en-US")
                && is_language("zh-Hant-TW")
                && !is_language("drivers")
                && !is_language("config-x-y!")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn damaged_tables_and_templates_are_read_without_panic(
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12), number in any::<u32>(),
            text in "(%|%%|!|n|[0-9]|\\PC){0,40}",
        ) {
            let mut bytes = table(5, &["a", "b", "c"]);
            for (at, value) in hits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            drop(lookup(&bytes, 6));
            drop(lookup(&bytes, number));
            prop_assert!(message_table(&bytes).is_none());
            insert(&text, &["%1%%2".to_string()]);
        }
    }
}
