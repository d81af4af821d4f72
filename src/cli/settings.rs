//! Parameters of scripts: `--set`, and for secrets a file, standard input or a prompt that shows nothing.

use super::{assignments, keys, say_error, worker};
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_repair::{Script, Secrets};

/// `--set` and its relatives.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Settings {
    /// Parameter of a script; not for secrets, which everybody on this machine could read
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Parameter of a script that is in a file; - for standard input. The end of the last line is not part of it
    #[arg(long = "set-file", value_name = "NAME=FILE")]
    files: Vec<String>,
}

impl Settings {
    /// One value that is no secret.
    pub(super) fn of(name: &str, value: &str) -> Settings {
        Settings { set: vec![format!("{name}={value}")], files: Vec::new() }
    }

    /// The values as they were named, without asking for any.
    ///
    /// # Errors
    /// `Invalid` for words that are no assignments; of reading files.
    pub(super) fn named(&self) -> Result<BTreeMap<String, String>> {
        let mut given = assignments("--set", &self.set)?;
        for (name, file) in assignments("--set-file", &self.files)? {
            given.insert(name, keys::secret_in(&file)?.to_string());
        }
        Ok(given)
    }

    /// The values for `scripts`, and which of them are secret; secrets that are missing are asked for on a terminal.
    ///
    /// # Errors
    /// As [`Settings::named`]; of the terminal.
    pub(super) fn given(&self, scripts: &[Script]) -> Result<(BTreeMap<String, String>, Secrets)> {
        let mut given = self.named()?;
        given.extend(worker::secrets().set);
        let secret = names_of_secrets(scripts);
        self.warn(&secret)?;
        for script in scripts {
            for (name, parameter) in script.parameters.iter().filter(|(_, parameter)| parameter.secret) {
                let missing = parameter.default.is_none() && !given.contains_key(name);
                if missing && std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
                    given.insert(name.clone(), ask(&format!("{name} ({}): ", parameter.documentation))?);
                }
            }
        }
        let values = given.iter().filter(|(name, _)| secret.contains(*name)).map(|(_, value)| value.clone());
        let secrets = Secrets::new(values);
        Ok((given, secrets))
    }

    /// The words of the command can be read by others as long as it runs, and stay in the history of the shell.
    fn warn(&self, secret: &BTreeSet<String>) -> Result<()> {
        for name in assignments("--set", &self.set)?.keys().filter(|name| secret.contains(*name)) {
            say_error(&format!(
                "warning: --set {name}=... can be read by everybody on this machine and will go; use --set-file {name}=FILE, or leave it out to be asked"
            ));
        }
        Ok(())
    }
}

/// Parameters that are secret in any of `scripts`; their values are left out of the words of this command, too.
pub(super) fn names_of_secrets(scripts: &[Script]) -> BTreeSet<String> {
    let all = scripts.iter().flat_map(|script| script.parameters.iter());
    let names: BTreeSet<String> =
        all.filter(|(_, parameter)| parameter.secret).map(|(name, _)| name.clone()).collect();
    names.iter().for_each(|name| keys::hide(name));
    names
}

/// A line from the terminal, which does not show it.
fn ask(question: &str) -> Result<String> {
    let terminal = console::Term::stderr();
    let failed = |e| Error::io("no answer", "the terminal", e);
    terminal.write_str(question).map_err(failed)?;
    let answer = terminal.read_secure_line().map_err(failed)?;
    if answer.is_empty() {
        return Err(Error::invalid(Layer::Cli, "nothing was entered; nothing was written"));
    }
    Ok(answer)
}
