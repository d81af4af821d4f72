//! Commands that are printed for the user to run: with the real path and every option that they need, quoted for the shell.

use super::Image;
use vmrescue_diagnose::Fix;

/// The words that open an image.
#[derive(Debug, Clone)]
pub(super) struct Words {
    image: String,
    options: Vec<String>,
}

/// A word as the shell of this system takes it.
pub(super) fn shell(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@+\\".contains(c);
    // A backslash is plain for the shells of Windows only.
    let safe = |c: char| plain(c) && (cfg!(windows) || c != '\\');
    if !word.is_empty() && word.chars().all(safe) {
        word.to_string()
    } else if cfg!(windows) {
        format!("\"{}\"", word.replace('"', "\\\""))
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl Words {
    /// For documentation: any image.
    pub(super) fn example() -> Words {
        Words { image: "IMAGE".into(), options: Vec::new() }
    }

    /// Of an image as the user named it; `windows` chooses an installation where the user did not.
    pub(super) fn of(image: &Image, windows: Option<usize>) -> Words {
        let mut options = Vec::new();
        let mut add = |name: &str, value: &str| options.push(format!("{name} {}", shell(value)));
        if let Some(number) = image.windows.or(windows) {
            add("--windows", &number.to_string());
        }
        for parent in &image.parent {
            add("--parent", &parent.to_string_lossy());
        }
        for key in &image.recovery_key {
            add("--recovery-key", &key.to_string_lossy());
        }
        for file in &image.recovery_keys {
            add("--recovery-keys", &file.to_string_lossy());
        }
        for file in &image.password_file {
            add("--password-file", &file.to_string_lossy());
        }
        for secret in &image.recovery_password {
            // A key is a secret, the file that holds it is none.
            add("--recovery-password", secret.file().unwrap_or("@FILE"));
        }
        if image.follow_paths {
            options.push("--follow-paths".into());
        }
        Words { image: shell(&image.image.to_string_lossy()), options }
    }

    /// Of an image without what opens it: for commands that look at the file only.
    pub(super) fn plain(image: &Image) -> Words {
        Words { image: shell(&image.image.to_string_lossy()), options: Vec::new() }
    }

    /// `vmrescue COMMAND IMAGE ...` with more words, which are quoted.
    pub(super) fn command(&self, command: &str, more: &[&str]) -> String {
        let mut words = vec!["vmrescue".to_string(), command.to_string(), self.image.clone()];
        words.extend(more.iter().map(|word| shell(word)));
        words.extend(self.options.iter().cloned());
        words.join(" ")
    }

    /// The command that applies a fix.
    pub(super) fn fix(&self, fix: &Fix) -> String {
        let sets: Vec<String> =
            fix.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut words = vec![fix.script.as_str()];
        for set in &sets {
            words.extend(["--set", set.as_str()]);
        }
        self.command("repair", &words)
    }

    /// A text with the image's own path where documentation says IMAGE.
    pub(super) fn filled(&self, text: &str) -> String {
        if self.options.is_empty() && self.image == "IMAGE" {
            return text.to_string();
        }
        let with = std::iter::once(self.image.clone()).chain(self.options.iter().cloned());
        text.replace("IMAGE", &with.collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(shell("/a/b.vhdx"), "/a/b.vhdx");
        assert_eq!(shell("/a b/it's.vhdx"), r"'/a b/it'\''s.vhdx'");
        assert_eq!(shell(r"path=C:\x"), r"'path=C:\x'");
        assert_eq!(shell(""), "''");
        let words = Words { image: shell("/a b.vhdx"), options: vec!["--windows 2".into()] };
        assert_eq!(words.command("repair", &[]), "vmrescue repair '/a b.vhdx' --windows 2");
        assert_eq!(
            words.filled("vmrescue check IMAGE --repair"),
            "vmrescue check '/a b.vhdx' --windows 2 --repair"
        );
    }
}
