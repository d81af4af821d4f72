//! Keys of BitLocker volumes on the command line; none of them comes into the history of an image or into a message.

use clap::Args;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_batch::KeyWords;
use vmrescue_crypt::Keys;
use zeroize::Zeroizing;

/// Largest file with passwords.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Largest file with recovery passwords: an export of a million.
const MAX_KEYS_BYTES: u64 = 512 << 20;
/// Stands where a secret stood.
const HIDDEN: &str = "(not kept)";

/// A word that no message shows.
#[derive(Clone)]
pub(super) struct Hidden(String);

impl Hidden {
    /// The name of the file that holds it, with its sign, when it is in one: that is no secret.
    pub(super) fn file(&self) -> Option<&str> {
        self.0.starts_with('@').then_some(self.0.as_str())
    }
}

impl std::str::FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Hidden, Self::Err> {
        Ok(Hidden(text.to_string()))
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Keys, read once: stretching a password takes a moment, and a command opens its image several times.
#[derive(Debug, Clone, Default)]
pub(super) struct Once(OnceLock<Keys>);

impl Once {
    /// The keys that the options name.
    ///
    /// # Errors
    /// Of the host; for what is no key or no recovery password.
    pub(super) fn keys(
        &self,
        keys: &[PathBuf],
        passwords: &[Hidden],
        texts: &[PathBuf],
        files: &[PathBuf],
    ) -> Result<Keys> {
        if let Some(keys) = self.0.get() {
            return Ok(keys.clone());
        }
        let keys = read(keys, passwords, texts, files)?;
        Ok(self.0.get_or_init(|| keys).clone())
    }
}

/// What opens the BitLocker volumes of many images; the same options as those of one image.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct KeyArgs {
    /// Key of BitLocker volumes: a .BEK file, or a folder of such files; may be repeated
    #[arg(long, value_name = "FILE")]
    recovery_key: Vec<PathBuf>,
    /// Recovery password of a BitLocker volume: the 48 digits, or @FILE; may be repeated
    #[arg(long, value_name = "TEXT")]
    recovery_password: Vec<Hidden>,
    /// Recovery passwords of many volumes: the text files that Windows saves, exports as CSV, LDIF or JSON, a folder of such
    /// files, - for standard input; identifiers in them choose the one for a volume; may be repeated
    #[arg(long, value_name = "FILE|DIR|-")]
    recovery_keys: Vec<PathBuf>,
    /// File with the password of BitLocker volumes, in UTF-8; may be repeated
    #[arg(long, value_name = "FILE")]
    password_file: Vec<PathBuf>,
}

/// A secret in a file, or on standard input for `-`; the end of the last line is the editor's, everything else its own.
///
/// # Errors
/// Of the host.
pub(super) fn secret_in(file: &str) -> Result<Zeroizing<String>> {
    let text = text_of(Path::new(file))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Zeroizing::new(text.strip_suffix('\r').unwrap_or(text).to_string()))
}

/// The recovery passwords in a file, or in the files of a folder, of which some may have none.
fn with_texts(keys: Keys, path: &Path) -> Result<Keys> {
    let failed = |e| Error::io("cannot read the recovery passwords", path, e);
    if path == Path::new("-") || !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return keys
            .with_recovery_text(&bytes_of(path)?, &path.display().to_string())
            .map_err(|e| e.in_file(path));
    }
    let entries =
        std::fs::read_dir(path).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    let (mut keys, mut wrong, mut right) = (keys, None, 0);
    for entry in entries {
        let file = entry.path();
        if !entry.file_type().map_err(failed)?.is_file() {
            continue;
        }
        let text = bytes_of(&file)?;
        match keys.clone().with_recovery_text(&text, &file.display().to_string()) {
            Ok(more) => (keys, right) = (more, right + 1),
            // Other files may lie there, too; when no file has a key the first reason is told.
            Err(e) => wrong = wrong.or(Some(e.in_file(file))),
        }
    }
    match wrong {
        _ if right > 0 => Ok(keys),
        Some(e) => Err(e),
        None => {
            Err(Error::not_found(Layer::Cli, "the folder has no files with recovery passwords").in_file(path))
        }
    }
}

/// A file with recovery passwords, whatever its encoding.
fn bytes_of(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |e| Error::io("cannot read the recovery passwords", path, e);
    let mut bytes = Zeroizing::new(Vec::new());
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_KEYS_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_KEYS_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() as u64 > MAX_KEYS_BYTES {
        return Err(Error::limit(Layer::Cli, "size of a file with recovery passwords")
            .expected(format!("at most {MAX_KEYS_BYTES} bytes"))
            .in_file(path));
    }
    Ok(bytes)
}

fn text_of(path: &Path) -> Result<Zeroizing<String>> {
    let failed = |e| Error::io("a password cannot be read", path, e);
    if path == Path::new("-") {
        let mut text = Zeroizing::new(String::new());
        std::io::stdin().lock().take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
        return Ok(Zeroizing::new(text.trim_start_matches('\u{feff}').to_string()));
    }
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(Error::limit(Layer::Cli, "size of a file with passwords").in_file(path));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
    Ok(Zeroizing::new(text.trim_start_matches('\u{feff}').to_string()))
}

fn read(
    files: &[PathBuf],
    passwords: &[Hidden],
    texts: &[PathBuf],
    password_files: &[PathBuf],
) -> Result<Keys> {
    let mut keys = Keys::none();
    for path in files {
        keys = keys.with_external_key_path(path)?;
    }
    for Hidden(text) in passwords {
        let Some(file) = text.strip_prefix('@') else {
            keys = keys.with_recovery_password(text)?;
            continue;
        };
        keys = with_texts(keys, Path::new(file))?;
    }
    for path in texts {
        keys = with_texts(keys, path)?;
    }
    for path in password_files {
        keys = keys.with_passphrase(&secret_in(&path.to_string_lossy())?);
    }
    for text in &super::worker::secrets().recovery_passwords {
        keys = keys.with_recovery_password(text)?;
    }
    Ok(keys)
}

impl KeyArgs {
    /// All keys.
    ///
    /// # Errors
    /// As [`Once::keys`].
    pub(super) fn keys(&self) -> Result<Keys> {
        read(&self.recovery_key, &self.recovery_password, &self.recovery_keys, &self.password_file)
    }

    /// The same options for a process that this one starts: names of files as words, passwords apart from them.
    pub(super) fn words(&self) -> KeyWords {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let (files, passwords): (Vec<&Hidden>, Vec<&Hidden>) =
            self.recovery_password.iter().partition(|text| text.0.starts_with('@'));
        let mut words = Vec::new();
        words.extend(self.recovery_key.iter().flat_map(|p| ["--recovery-key".into(), path(p)]));
        words.extend(files.iter().flat_map(|t| ["--recovery-password".into(), t.0.clone()]));
        words.extend(self.recovery_keys.iter().flat_map(|p| ["--recovery-keys".into(), path(p)]));
        words.extend(self.password_file.iter().flat_map(|p| ["--password-file".into(), path(p)]));
        let recovery_passwords = passwords.iter().map(|text| text.0.clone()).collect();
        KeyWords { words, recovery_passwords }
    }
}

/// The words of this process; what is no Unicode is shown with U+FFFD.
pub(super) fn words() -> impl Iterator<Item = String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned())
}

/// Names of parameters whose values are left out of what is kept, besides `password`.
static SECRET: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The value of this parameter stands in nothing that is kept.
pub(super) fn hide(name: &str) {
    SECRET.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_string());
}

/// `name=value` with the value left out when the parameter is secret.
fn assignment(word: &str) -> String {
    match word.split_once('=') {
        Some((name, _))
            if name.eq_ignore_ascii_case("password")
                || SECRET.lock().unwrap_or_else(PoisonError::into_inner).contains(name) =>
        {
            format!("{name}={HIDDEN}")
        }
        _ => word.to_string(),
    }
}

/// True for a key of SAM or SECURITY, and for a file of theirs.
fn names_secrets(word: &str) -> bool {
    let is = |part: Option<&str>, names: &[&str]| {
        part.is_some_and(|part| names.iter().any(|name| part.eq_ignore_ascii_case(name)))
    };
    let mut parts = word.split(['\\', '/']).filter(|part| !part.is_empty());
    let (first, second) = (parts.next(), parts.next());
    let secret = &["SAM", "SECURITY"];
    is(word.rsplit(['\\', '/']).next(), secret)
        || (is(first, &["HKLM", "HKEY_LOCAL_MACHINE"]) && is(second, secret))
}

/// The words of a command without recovery passwords, secret parameters and data of SAM and SECURITY: what may be kept.
pub(super) fn without_secrets(words: impl Iterator<Item = String>) -> Vec<String> {
    let words: Vec<String> = words.collect();
    let is_reg = words.iter().take(2).any(|word| word == "reg");
    let secret_data = is_reg && words.iter().any(|word| names_secrets(word));
    let mut kept: Vec<String> = Vec::new();
    for word in words {
        let is_file = |text: &str| text.starts_with('@');
        let after = |option: &str| kept.last().is_some_and(|last| last == option);
        let is_type = |last: &String| vmrescue_registry::DataType::from_name(last).is_some();
        let next = if let Some(text) = word.strip_prefix("--recovery-password=") {
            if is_file(text) { word } else { format!("--recovery-password={HIDDEN}") }
        } else if after("--recovery-password") {
            if is_file(&word) { word } else { HIDDEN.into() }
        } else if let Some(text) = word.strip_prefix("--set=") {
            format!("--set={}", assignment(text))
        } else if after("--set") {
            assignment(&word)
        } else if secret_data && kept.last().is_some_and(is_type) {
            HIDDEN.into()
        } else {
            word
        };
        kept.push(next);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_parameters_and_data_do_not_come_into_the_history() {
        let kept = |line: &str| without_secrets(line.split(' ').map(String::from)).join(" ");
        assert_eq!(
            kept("repair d enable-admin --set user=a --set password=b --set=password=c"),
            "repair d enable-admin --set user=a --set password=(not kept) --set=password=(not kept)"
        );
        hide("token");
        assert_eq!(
            kept("repair d x --set token=b --set-file password=f"),
            "repair d x --set token=(not kept) --set-file password=f"
        );
        for place in [r"d hklm\SAM\SAM\Domains", r"d HKEY_LOCAL_MACHINE\security\Policy", "/tmp/SAM Domains"]
        {
            assert_eq!(
                kept(&format!("reg set {place} V REG_BINARY 0011 --yes")),
                format!("reg set {place} V REG_BINARY (not kept) --yes")
            );
        }
        let open = r"reg set d HKLM\SOFTWARE\SAM2 V REG_SZ text --yes";
        assert_eq!(kept(open), open);
    }

    #[test]
    fn recovery_passwords_do_not_come_into_the_history() {
        let words = [
            "repair",
            "--recovery-password",
            "1-2",
            "--recovery-password=3",
            "--recovery-password",
            "@f",
            "x",
        ];
        let kept = without_secrets(words.map(String::from).into_iter());
        let hidden = format!("--recovery-password={HIDDEN}");
        assert_eq!(
            kept,
            ["repair", "--recovery-password", HIDDEN, &hidden, "--recovery-password", "@f", "x"]
        );
    }
}
