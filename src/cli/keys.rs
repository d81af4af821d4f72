//! Keys of BitLocker volumes on the command line; none of them comes into the history of an image or into a message.

use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_crypt::Keys;
use zeroize::Zeroizing;

/// Largest file with passwords.
const MAX_FILE_BYTES: u64 = 1 << 20;
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
    pub(super) fn keys(&self, keys: &[PathBuf], passwords: &[Hidden], files: &[PathBuf]) -> Result<Keys> {
        if let Some(keys) = self.0.get() {
            return Ok(keys.clone());
        }
        let keys = read(keys, passwords, files)?;
        Ok(self.0.get_or_init(|| keys).clone())
    }
}

/// What opens the BitLocker volumes of many images; the same options as those of one image.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct KeyArgs {
    /// Key of BitLocker volumes: a .BEK file, or a folder of such files; may be repeated
    #[arg(long, value_name = "FILE")]
    recovery_key: Vec<PathBuf>,
    /// Recovery password of a BitLocker volume: the 48 digits, or @FILE with one a line; may be repeated
    #[arg(long, value_name = "TEXT")]
    recovery_password: Vec<Hidden>,
    /// File with the password of BitLocker volumes, in UTF-8; may be repeated
    #[arg(long, value_name = "FILE")]
    password_file: Vec<PathBuf>,
}

fn text_of(path: &Path) -> Result<Zeroizing<String>> {
    let failed = |e| Error::io("a password cannot be read", path, e);
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(Error::limit(Layer::Cli, "size of a file with passwords").in_file(path));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
    Ok(Zeroizing::new(text.trim_start_matches('\u{feff}').to_string()))
}

fn read(files: &[PathBuf], passwords: &[Hidden], password_files: &[PathBuf]) -> Result<Keys> {
    let mut keys = Keys::none();
    for path in files {
        keys = keys.with_external_key_path(path)?;
    }
    for Hidden(text) in passwords {
        let Some(file) = text.strip_prefix('@') else {
            keys = keys.with_recovery_password(text)?;
            continue;
        };
        let lines = text_of(Path::new(file))?;
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            keys = keys.with_recovery_password(line).map_err(|e| e.in_file(file))?;
        }
    }
    for path in password_files {
        let text = text_of(path)?;
        // The end of the line is the editor's, everything else is the password's.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        keys = keys.with_passphrase(text.strip_suffix('\r').unwrap_or(text));
    }
    Ok(keys)
}

impl KeyArgs {
    /// All keys.
    ///
    /// # Errors
    /// As [`Once::keys`].
    pub(super) fn keys(&self) -> Result<Keys> {
        read(&self.recovery_key, &self.recovery_password, &self.password_file)
    }

    /// The same options as words of a command, for a process that this one starts.
    pub(super) fn words(&self) -> Vec<String> {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut words = Vec::new();
        words.extend(self.recovery_key.iter().flat_map(|p| ["--recovery-key".into(), path(p)]));
        words.extend(self.recovery_password.iter().flat_map(|t| ["--recovery-password".into(), t.0.clone()]));
        words.extend(self.password_file.iter().flat_map(|p| ["--password-file".into(), path(p)]));
        words
    }
}

/// The words of this process; what is no Unicode is shown with U+FFFD.
pub(super) fn words() -> impl Iterator<Item = String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned())
}

/// The words of a command without recovery passwords: what may be kept.
pub(super) fn without_secrets(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for word in words {
        let is_file = |text: &str| text.starts_with('@');
        let follows = kept.last().is_some_and(|last| last == "--recovery-password");
        match word.strip_prefix("--recovery-password=") {
            Some(text) if !is_file(text) => kept.push(format!("--recovery-password={HIDDEN}")),
            _ if follows && !is_file(&word) => kept.push(HIDDEN.into()),
            _ => kept.push(word),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

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
