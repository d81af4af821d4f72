//! The overview of the commands by what one wants to do, completions for shells, and the pages of the manual.
//!
//! All three are made from the commands themselves. Missing: completion of paths inside the image.

use super::{CLEAN, Cli, say};
use clap::{Args, CommandFactory, ValueEnum};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::OutputRules;

/// The commands by task, in the order of need. A test holds that every command stands here once.
const GROUPS: [(&str, &[&str]); 7] = [
    (
        "What is wrong",
        &["diagnose", "info", "inspect", "check", "drivers", "updates", "events", "timeline", "files"],
    ),
    ("Make it boot again", &["repair", "scripts", "reg", "bcd", "partition"]),
    (
        "Files",
        &[
            "ls", "cat", "get", "stat", "find", "diff", "shadow", "put", "cp", "mv", "rm", "mkdir", "mount",
            "serve",
        ],
    ),
    ("The way back", &["history", "undo", "redo", "recover"]),
    ("Many machines", &["batch", "baseline", "collect"]),
    ("Virtual disks", &["disk"]),
    ("The program", &["demo", "completions", "man", "help"]),
];

/// Columns before the text of a command.
const NAME_COLUMNS: usize = 12;
/// Columns of a line where the terminal does not say.
const LINE_COLUMNS: usize = 100;

/// The command with its overview by task.
pub(super) fn command() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    let overview = overview(&command);
    Cli::command().version(VERSION).help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{overview}\nOptions:\n{{options}}\n\n{{after-help}}"
    ))
}

/// "0.1.0 (1a2b3c4d5e6f)": the release, and the commit where it was built from a repository.
const VERSION: &str = env!("VMRESCUE_VERSION");

fn overview(command: &clap::Command) -> String {
    let columns =
        console::Term::stdout().size_checked().map_or(LINE_COLUMNS, |(_, columns)| usize::from(columns));
    let columns = columns.clamp(40, LINE_COLUMNS);
    let mut text = String::new();
    for (title, names) in GROUPS {
        let _infallible = writeln!(text, "{title}:");
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            for (at, line) in folded(&about, columns.saturating_sub(NAME_COLUMNS + 2)).iter().enumerate() {
                let name = if at == 0 { name } else { "" };
                let _infallible = writeln!(text, "  {name:<NAME_COLUMNS$}{line}");
            }
        }
        text.push('\n');
    }
    text.pop();
    text
}

/// A text in lines of at most so many characters, as far as its words allow.
fn folded(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.chars().count() > columns {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// `vmrescue completions`
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// A shell that completions can be made for.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "that is what it is called")]
enum Shell {
    Bash,
    Zsh,
    Fish,
    #[value(name = "powershell")]
    PowerShell,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<u8> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::PowerShell => clap_complete::Shell::PowerShell,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vmrescue", &mut script);
    super::written(std::io::stdout().write_all(&script))?;
    Ok(CLEAN)
}

/// `vmrescue man`
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The folder that receives the pages; it is made when it is not there
    dir: PathBuf,
    #[command(flatten)]
    output: super::output::Output,
}

pub(super) fn man(args: &ManArgs) -> Result<u8> {
    let rules = args.output.plain();
    if !args.dir.is_dir() {
        rules.create_folder(&args.dir)?;
    }
    let mut command = Cli::command().version(VERSION);
    command.build();
    let count = pages(&command, "vmrescue", &args.dir, &rules)?;
    say(&format!(
        "{count} pages in {}; to read one: man {}",
        args.dir.display(),
        args.dir.join("vmrescue.1").display()
    ))?;
    Ok(CLEAN)
}

/// The page of a command and of those below it; how many there were.
fn pages(command: &clap::Command, name: &str, dir: &Path, rules: &OutputRules) -> Result<usize> {
    let mut page = Vec::new();
    let titled = command.clone().display_name(name.to_string());
    let rendered =
        clap_mangen::Man::new(titled).title(name).source(format!("vmrescue {VERSION}")).render(&mut page);
    rendered.map_err(|e| Error::invalid(Layer::Cli, "the page could not be made").found(e))?;
    rules.write(&dir.join(format!("{name}.1")), &page)?;
    let mut count = 1;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        count += pages(below, &format!("{name}-{}", below.get_name()), dir, rules)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_stands_in_one_group() {
        let mut command = Cli::command();
        command.build();
        let mut there: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        there.sort_unstable();
        listed.sort_unstable();
        assert_eq!(there, listed);
    }

    #[test]
    fn lines_are_folded_at_words() {
        assert_eq!(folded("one two three", 7), ["one two", "three"]);
        assert_eq!(folded("longerthanaline", 4), ["longerthanaline"]);
        assert_eq!(folded("", 4), [""]);
    }
}
