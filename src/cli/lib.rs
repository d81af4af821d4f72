//! The command line: the only room that knows clap, indicatif, the terminal and the environment.

mod baseline;
mod batch;
mod bcd;
mod change;
mod check;
mod collect;
mod demo;
mod diagnose;
mod diff;
mod disk;
mod drivers;
mod events;
mod files;
mod format;
mod get;
mod help;
mod history;
mod identity;
mod inspect;
mod keys;
mod look;
mod mount;
mod next;
mod output;
mod partition;
mod progress;
mod registry;
mod scripts;
mod serve;
mod settings;
mod shadow;
mod stat;
mod state;
mod stop;
mod timeline;
mod times;
mod tree;
mod updates;
mod watch;
mod worker;

use clap::{Args, FromArgMatches, Parser, Subcommand};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use vmrescue_base::error::{Error, ErrorKind, Result};
use vmrescue_base::text::size;

/// Done and clean.
const CLEAN: u8 = 0;
/// Findings or differences.
const FINDINGS: u8 = 1;
/// Error or bad usage.
const ERROR: u8 = 2;
/// Refused for safety.
const REFUSED: u8 = 3;

/// Opens the disk of a Windows machine that no longer boots, and makes it boot again: offline, safely, with undo.
#[derive(Debug, Parser)]
#[command(name = "vmrescue", version, max_term_width = 100)]
#[command(
    after_help = "IMAGE is a raw file, VHD, VHDX or a host disk. Guest paths: C:\\Windows\\..., esp:\\EFI\\..., #3:\\...\n\
    Exit codes: 0 done and clean, 1 findings or differences, 2 error, 3 refused for safety, 4 some images of a batch failed."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The image and how it is opened.
#[derive(Debug, Args)]
struct Image {
    /// Raw file, VHD, VHDX or host disk
    image: PathBuf,
    /// One JSON document on standard output, and nothing else
    #[arg(long)]
    json: bool,
    /// Which Windows installation, when the disk has several
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Parent of a differencing disk, nearest first; may be repeated
    #[arg(long, value_name = "FILE")]
    parent: Vec<PathBuf>,
    /// Follow the paths that a disk names out of its own folder
    #[arg(long)]
    follow_paths: bool,
    /// With the sha256 of the image in the output; for `get`: of every file that is copied out
    #[arg(long)]
    hash: bool,
    /// Search the whole disk for volumes that no partition names, and show them as partitions of their own; only for looking
    #[arg(long)]
    scan: bool,
    /// Key of a BitLocker volume: a .BEK file, or a folder of such files; may be repeated
    #[arg(long, value_name = "FILE")]
    recovery_key: Vec<PathBuf>,
    /// Recovery password of a BitLocker volume: the 48 digits, or @FILE; may be repeated
    #[arg(long, value_name = "TEXT")]
    recovery_password: Vec<keys::Hidden>,
    /// Recovery passwords of many volumes: the text files that Windows saves, exports as CSV, LDIF or JSON, a folder of such
    /// files, - for standard input; identifiers in them choose the one for a volume; may be repeated
    #[arg(long, value_name = "FILE|DIR|-")]
    recovery_keys: Vec<PathBuf>,
    /// File with the password of a BitLocker volume, in UTF-8; may be repeated
    #[arg(long, value_name = "FILE")]
    password_file: Vec<PathBuf>,
    // A struct of their own for these would hide from clap whether an image was named at all.
    #[arg(skip)]
    keys: keys::Once,
}

impl Image {
    /// What opens BitLocker volumes; every locked volume tries all of it.
    fn keys(&self) -> Result<vmrescue_crypt::Keys> {
        self.keys.keys(&self.recovery_key, &self.recovery_password, &self.recovery_keys, &self.password_file)
    }

    /// The same options for another file.
    fn with_file(&self, file: &std::path::Path) -> Image {
        Image {
            image: file.to_path_buf(),
            json: self.json,
            windows: self.windows,
            parent: Vec::new(),
            follow_paths: self.follow_paths,
            hash: self.hash,
            scan: self.scan,
            recovery_key: self.recovery_key.clone(),
            recovery_password: self.recovery_password.clone(),
            recovery_keys: self.recovery_keys.clone(),
            password_file: self.password_file.clone(),
            keys: self.keys.clone(),
        }
    }
}

/// How a change is made.
#[derive(Debug, Args)]
struct Changing {
    /// Show the plan, try and verify it in memory, write nothing; exit 1 when it would change something
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Refuse what a second, independent reader cannot verify
    #[arg(long)]
    strict: bool,
    /// Folder for journals and history, instead of beside the image
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where the result goes: in-place, child:FILE (a new differencing disk) or new:FILE (a new image)
    #[arg(long = "to", value_name = "TARGET", default_value = "in-place", hide_default_value = true)]
    target: String,
    /// Discard $LogFile of a volume when it cannot be replayed (its unfinished changes are lost)
    #[arg(long)]
    discard_log: bool,
    /// Discard the hibernation image of Windows (unsaved work in it is lost)
    #[arg(long)]
    discard_hibernation: bool,
}

impl Changing {
    /// What the user agrees to give up.
    fn discard(&self) -> vmrescue_repair::Discard {
        vmrescue_repair::Discard { log: self.discard_log, hibernation: self.discard_hibernation }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Container, partition table, volumes, installations
    Info {
        #[command(flatten)]
        image: Image,
    },
    /// Everything about the disk and its installations
    Inspect(inspect::InspectArgs),
    /// Why the machine does not boot, worst first, each with its fix
    Diagnose(diagnose::DiagnoseArgs),
    /// Check container, partition table, file systems, hives and boot store; or a hive file
    Check {
        #[command(flatten)]
        image: Image,
        /// Repair what has one right answer: NTFS and FAT volumes are repaired, hives are rewritten from what can be read
        #[arg(long)]
        repair: bool,
        /// Agree to take a hive as it lies whose last write was not finished and whose logs are gone
        #[arg(long, requires = "repair")]
        allow_unsafe: bool,
        #[command(flatten)]
        changing: Changing,
    },
    /// List a directory
    Ls {
        #[command(flatten)]
        image: Image,
        /// Guest path
        path: String,
    },
    /// Print a file or a stream
    Cat {
        #[command(flatten)]
        image: Image,
        /// Guest path, with :stream at the end for a named stream
        path: String,
    },
    /// Copy a file or a tree out of the image
    Get(get::Get),
    /// Everything known about a file
    Stat {
        #[command(flatten)]
        image: Image,
        /// Guest path
        path: String,
    },
    /// Files below a directory, by name, kind and size
    Find {
        #[command(flatten)]
        image: Image,
        /// Guest path
        path: String,
        /// Pattern with * and ?
        #[arg(long)]
        name: Option<String>,
        /// Only files (f), directories (d) or links (l)
        #[arg(long = "type", value_name = "KIND")]
        kind: Option<tree::WantedKind>,
        /// At least so many bytes
        #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
        min_size: u64,
    },
    /// What differs between two trees of the disk, such as C:@1\ and C:\
    Diff {
        #[command(flatten)]
        image: Image,
        /// Guest path of the older tree
        from: String,
        /// Guest path of the newer tree
        to: String,
        /// Compare the bytes of files whose size and time are the same, too
        #[arg(long)]
        content: bool,
    },
    /// Shadow copies of the volumes (Volume Shadow Copy Service)
    Shadow {
        #[command(subcommand)]
        command: shadow::ShadowCommand,
    },
    /// Services and drivers: what the boot needs first, load order, files, signatures, component store, filters
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Drivers(drivers::DriversArgs),
    /// The exact bytes of system files: what they should be, whether they are, what a payload holds
    Files {
        #[command(subcommand)]
        command: files::FilesCommand,
    },
    /// Packages with their states and KBs, what waits for the next start, the story of the last update
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Updates(updates::UpdatesArgs),
    /// Event logs: what matters for the boot, or any log by name, number, level and time
    Events(events::EventsArgs),
    /// Everything on the disk that has a time: files, registry keys, events
    Timeline(timeline::TimelineArgs),
    /// Collect a support bundle: one archive with a manifest
    Collect(collect::CollectArgs),
    /// Query and edit the registry
    Reg {
        #[command(subcommand)]
        command: registry::Reg,
    },
    /// Query and edit the boot configuration store
    Bcd {
        #[command(subcommand)]
        command: bcd::Bcd,
    },
    /// The partition table and boot sectors
    Partition {
        #[command(subcommand)]
        command: partition::PartitionCommand,
    },
    /// Repair with a script, or without one apply the safe fixes of `diagnose`
    Repair {
        #[command(flatten)]
        image: Image,
        /// Names of scripts, or files of your own
        scripts: Vec<String>,
        #[command(flatten)]
        set: settings::Settings,
        #[command(flatten)]
        using: change::Using,
        #[command(flatten)]
        changing: Changing,
    },
    /// Copy a file of the host into the image
    Put {
        #[command(flatten)]
        image: Image,
        /// File of the host
        file: PathBuf,
        /// Guest path
        path: String,
        /// A folder with everything below
        #[arg(short, long)]
        recursive: bool,
        /// Give what is put the security of this file of the guest, instead of what it inherits from its directory
        #[arg(long, value_name = "MODEL")]
        like: Option<String>,
        #[command(flatten)]
        changing: Changing,
    },
    /// Delete a file or an empty directory
    Rm {
        #[command(flatten)]
        image: Image,
        /// Guest path
        path: String,
        /// A directory with everything below
        #[arg(short, long)]
        recursive: bool,
        #[command(flatten)]
        changing: Changing,
    },
    /// Rename or move inside a volume
    Mv {
        #[command(flatten)]
        image: Image,
        /// Guest path
        from: String,
        /// Guest path
        to: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// Make a directory
    Mkdir {
        #[command(flatten)]
        image: Image,
        /// Guest path
        path: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// Copy a file inside the image
    Cp {
        #[command(flatten)]
        image: Image,
        /// Guest path
        from: String,
        /// Guest path
        to: String,
        /// A directory with everything below
        #[arg(short, long)]
        recursive: bool,
        #[command(flatten)]
        changing: Changing,
    },
    /// The scripts that ship with the program
    Scripts {
        /// Name of one, for its documentation
        name: Option<String>,
        /// Only those that help with this: a code, a KB, the id of a procedure, or a word
        #[arg(long = "for", value_name = "TEXT")]
        wanted: Option<String>,
        /// The documented offline repairs, and which script does each
        #[arg(long)]
        coverage: bool,
        /// The same as a page of Markdown
        #[arg(long, requires = "coverage")]
        markdown: bool,
        /// Folder with scripts of your own, on top of those that ship
        #[arg(long = "scripts", value_name = "DIR")]
        folder: Option<PathBuf>,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// What was done to an image
    History(history::HistoryArgs),
    /// Bring the image back to what it was, byte for byte
    Undo {
        #[command(flatten)]
        at: history::Where,
        /// Number of the operation; the latest that stands when absent
        id: Option<u32>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Even when the image was changed since
        #[arg(long)]
        force: bool,
    },
    /// Redo the last undone operation
    Redo {
        #[command(flatten)]
        at: history::Where,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Finish an operation that a crash interrupted, or give it up
    Recover(history::RecoverArgs),
    /// Show the volumes of a disk as directories, read-only or with `--write`
    Mount(mount::MountArgs),
    /// Give the decoded disk to other programs by the network block device protocol, read-only or with `--write`
    Serve(serve::ServeArgs),
    /// One command over many images: resumable, in parallel, with reports
    Batch(batch::BatchArgs),
    /// What a golden image is set up like, and what differs from it
    Baseline {
        #[command(subcommand)]
        command: baseline::BaselineCommand,
    },
    /// New disks, conversion, children, merging, compacting, resizing
    Disk {
        #[command(subcommand)]
        command: disk::DiskCommand,
    },
    /// Completions for a shell, on standard output
    Completions(help::CompletionsArgs),
    /// The pages of the manual, into a folder
    Man(help::ManArgs),
    /// Make a broken disk, diagnose it, repair it, prove it, undo it
    Demo {
        /// Folder for the disk; a temporary one when absent
        dir: Option<PathBuf>,
    },
}

fn no_image() -> Error {
    Error::invalid(vmrescue_base::Layer::Cli, "no image was named")
}

/// Runs the program on the arguments of the process.
pub fn main() -> ExitCode {
    let parsed = help::command().try_get_matches().and_then(|found| Cli::from_arg_matches(&found));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version go to standard output and are no error.
            let code = if e.use_stderr() { ERROR } else { CLEAN };
            let _written = e.print();
            return ExitCode::from(code);
        }
    };
    match worker::settle().and_then(|()| {
        stop::listen();
        run(cli.command)
    }) {
        Ok(code) => ExitCode::from(code),
        Err(e) => ExitCode::from(report(&e)),
    }
}

fn run(command: Command) -> Result<u8> {
    match command {
        Command::Completions(args) => help::completions(&args),
        Command::Man(args) => help::man(&args),
        Command::Info { image } => look::info(&image),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Diagnose(arguments) => diagnose::diagnose(&arguments),
        Command::Check { image, repair, allow_unsafe, changing } => {
            check::check(&image, repair, allow_unsafe, &changing)
        }
        Command::Ls { image, path } => look::ls(&image, &path),
        Command::Cat { image, path } => look::cat(&image, &path),
        Command::Get(args) => get::get(&args),
        Command::Stat { image, path } => stat::stat(&image, &path),
        Command::Find { image, path, name, kind, min_size } => {
            tree::find(&image, &path, &tree::Wanted { name, kind, min_size })
        }
        Command::Drivers(args) => drivers::run(args),
        Command::Files { command } => files::run(command),
        Command::Updates(args) => updates::run(args),
        Command::Events(args) => events::events(&args),
        Command::Timeline(args) => timeline::timeline(&args),
        Command::Collect(args) => collect::collect(&args),
        Command::Reg { command } => registry::reg(command),
        Command::Bcd { command } => bcd::bcd(command),
        Command::Partition { command } => partition::partition(command),
        Command::Repair { image, scripts, set, using, changing } => {
            change::repair(&image, &scripts, &set, &using, &changing)
        }
        Command::Put { image, file, path, recursive: true, like, changing } => {
            tree::put(&image, &file, &path, like.as_deref(), &changing)
        }
        Command::Put { image, file, path, like, changing, .. } => {
            change::put(&image, &file, &path, like.as_deref(), &changing)
        }
        Command::Rm { image, path, recursive: true, changing } => tree::rm(&image, &path, &changing),
        Command::Rm { image, path, changing, .. } => change::rm(&image, &path, &changing),
        Command::Mv { image, from, to, changing } => change::mv(&image, &from, &to, &changing),
        Command::Mkdir { image, path, changing } => change::mkdir(&image, &path, &changing),
        Command::Diff { image, from, to, content } => diff::diff(&image, &from, &to, content),
        Command::Shadow { command } => shadow::run(&command),
        Command::Cp { image, from, to, recursive: true, changing } => tree::cp(&image, &from, &to, &changing),
        Command::Cp { image, from, to, changing, .. } => change::cp(&image, &from, &to, &changing),
        Command::Scripts { name, wanted, coverage, markdown, folder, json } => {
            let all = scripts::known(folder.as_deref())?;
            let how = match (markdown, json) {
                (true, _) => scripts::Coverage::Markdown,
                (false, true) => scripts::Coverage::Json,
                (false, false) => scripts::Coverage::Text,
            };
            scripts::scripts(all, name.as_deref(), wanted.as_deref(), coverage.then_some(how), json)
        }
        Command::History(args) => history::run(&args),
        Command::Undo { at, id, yes, force } => history::undo(&at, id, yes, force),
        Command::Redo { at, yes } => history::redo(&at, yes),
        Command::Recover(args) => history::recover(&args),
        Command::Mount(args) => mount::mount(&args),
        Command::Serve(args) => serve::serve(&args),
        Command::Batch(args) => batch::batch(args),
        Command::Baseline { command } => baseline::run(command),
        Command::Disk { command } => disk::disk(command),
        Command::Demo { dir } => demo::demo(dir.as_deref()),
    }
}

/// Tells an error and what to do; the exit code.
fn report(e: &Error) -> u8 {
    if e.kind() == ErrorKind::Interrupted && e.message() == "broken pipe" {
        return CLEAN;
    }
    let refused = matches!(e.kind(), ErrorKind::Refused | ErrorKind::Busy | ErrorKind::Disagreement);
    if std::env::args_os().any(|word| word == "--json") {
        let _written = say_json("error", error_json(e));
    }
    say_error(&format!("{}: {e}", if refused { "refused" } else { "error" }));
    if let Some(advice) = e.advice_text() {
        say_error(&format!("       {advice}"));
    }
    if refused { REFUSED } else { ERROR }
}

fn error_json(e: &Error) -> serde_json::Value {
    serde_json::json!({"error": {
        "kind": e.kind().name(), "layer": e.layer().name(), "message": e.to_string(),
        "offset": e.offset().map(|offset| format!("{offset:#x}")), "file": e.file(), "advice": e.advice_text(),
    }})
}

/// A line on standard error; there is nobody to tell when that fails.
fn say_error(text: &str) {
    let _written = writeln!(std::io::stderr(), "{text}");
}

/// A line on standard output.
fn say(text: &str) -> Result<()> {
    written(writeln!(std::io::stdout(), "{text}"))
}

fn written(result: std::io::Result<()>) -> Result<()> {
    result.map_err(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe => {
            Error::new(ErrorKind::Interrupted, vmrescue_base::Layer::Cli, "broken pipe")
        }
        _ => Error::io("standard output cannot be written", "standard output", e),
    })
}

/// One JSON document with its schema.
fn say_json(schema: &str, mut document: serde_json::Value) -> Result<()> {
    if let Some(map) = document.as_object_mut() {
        map.shift_insert(0, "schema".into(), serde_json::json!(format!("vmrescue.{schema}/1")));
    }
    let text = serde_json::to_string_pretty(&document)
        .map_err(|e| Error::invalid(vmrescue_base::Layer::Cli, "JSON cannot be written").caused_by(e))?;
    say(&text)
}

/// Asks, unless `--yes`; off a terminal there is nobody to ask.
fn agreed(yes: bool, question: &str) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid(
            vmrescue_base::Layer::Cli,
            "not a terminal, so the question cannot be asked",
        )
        .advice("add --yes, or --dry-run to look"));
    }
    written(write!(std::io::stderr(), "{question} [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| Error::io("no answer", "standard input", e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// `name=value` words of an option as a map.
fn assignments(option: &str, words: &[String]) -> Result<BTreeMap<String, String>> {
    words
        .iter()
        .map(|word| {
            let pair = word.split_once('=').map(|(name, value)| (name.to_string(), value.to_string()));
            pair.ok_or_else(|| {
                // What was typed there may be a secret.
                Error::invalid(vmrescue_base::Layer::Cli, format!("{option} wants NAME=VALUE"))
                    .found(format!("{} characters without =", word.chars().count()))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
