//! `vmrescue collect`: what support people ask for, as one archive with a manifest.

use super::output::Output;
use super::{CLEAN, FINDINGS, Image, identity, look, say, size};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_collect::{Profile, Sink, Taken, files};

/// How much is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Much {
    /// Support bundle: logs, hives, boot stores, update and setup logs, small dumps
    Support,
    /// Only what tells why it does not boot
    Boot,
    /// Also all event logs and the hives with secrets (SAM, SECURITY)
    All,
}

/// `vmrescue collect ...`
#[derive(Debug, Args)]
#[command(
    after_help = "The archive has files/ (from the disk, by volume), vmrescue/ (what this program says of it: info, inspect, diagnose, \
    drivers, updates, events) and manifest.json: size, sha256, times and source of every file, the version of the tool, the identity of the \
    image. The same disk gives the same archive. Exit code 1: some files could not be read whole; the manifest says which."
)]
pub(super) struct CollectArgs {
    #[command(flatten)]
    image: Image,
    /// A new archive (FILE.zip), or a new or empty folder
    #[arg(short, long, value_name = "OUT", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    /// How much is taken
    #[arg(long, value_enum, default_value_t = Much::Support)]
    profile: Much,
    /// Only list what would be taken
    #[arg(long)]
    dry_run: bool,
    /// Also MEMORY.DMP and other dumps of whole memory: large, and with secrets
    #[arg(long)]
    include_memory: bool,
}

/// What this program says of the image: name in the archive, and the words of the command.
const DOCUMENTS: [(&str, &[&str]); 6] = [
    ("info.json", &["info"]),
    ("inspect.json", &["inspect"]),
    ("diagnose.json", &["diagnose"]),
    ("drivers.json", &["drivers"]),
    ("updates.json", &["updates"]),
    ("events.jsonl", &["events", "--group"]),
];

pub(super) fn collect(args: &CollectArgs) -> Result<u8> {
    let image = &args.image;
    let (_, machine, _) = look::open(image)?;
    let profile = match args.profile {
        Much::Boot => Profile::Boot,
        Much::Support => Profile::Support,
        Much::All => Profile::All,
    };
    let list = files(&machine, profile, args.include_memory)?;
    if args.dry_run {
        let total: u64 = list.iter().map(|file| file.size_bytes).sum();
        if image.json {
            let files: Vec<Value> = list
                .iter()
                .map(|file| json!({"path": file.path, "name": file.name, "size": file.size_bytes}))
                .collect();
            identity::say_of(image, "collect-plan", json!({"files": files, "bytes": total}))?;
        } else {
            list.iter().try_for_each(|file| say(&format!("{:>14}  {}", file.size_bytes, file.path)))?;
            say(&format!("{} files, {}; nothing was written", list.len(), size(total)))?;
        }
        return Ok(CLEAN);
    }
    let out = args
        .out
        .as_ref()
        .ok_or_else(|| Error::invalid(Layer::Cli, "no archive was named").advice("add -o FILE.zip"))?;
    // The archive is made under its name when it is whole.
    let mut sink = Sink::create(out, &args.output.rules(image)?)?;
    let documents: Vec<(&str, std::result::Result<Vec<u8>, String>)> =
        DOCUMENTS.iter().map(|(name, words)| (*name, document(image, words))).collect();
    let identity = identity::image(image)?;
    let mut taken: Vec<Taken> = Vec::new();
    let mut failed: Vec<Value> = Vec::new();
    for (name, content) in documents {
        match content {
            Ok(bytes) => taken.push(sink.add(&format!("vmrescue/{name}"), &bytes)?),
            Err(why) => failed.push(json!({"name": format!("vmrescue/{name}"), "error": why})),
        }
    }
    for file in &list {
        let fs = machine.file_system(file.volume)?;
        taken.push(sink.copy(&*fs, file)?);
    }
    failed.extend(
        taken.iter().filter_map(|file| Some(json!({"name": file.name, "error": file.error.as_ref()?}))),
    );
    let manifest = json!({
        "schema": "vmrescue.collection/1", "tool": identity::tool(), "image": identity,
        "profile": format!("{:?}", args.profile).to_lowercase(), "memory": args.include_memory, "files": taken, "failed": failed,
    });
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|e| Error::invalid(Layer::Cli, "the manifest cannot be written").caused_by(e))?;
    sink.add("manifest.json", (text + "\n").as_bytes())?;
    sink.finish()?;
    let bytes: u64 = taken.iter().map(|file| file.size).sum();
    if image.json {
        let counts = json!({"out": out, "files": taken.len(), "bytes": bytes, "failed": failed});
        identity::say_of(image, "collected", counts)?;
    } else {
        say(&format!("{}: {} files, {}", out.display(), taken.len(), size(bytes)))?;
        for file in &failed {
            say(&format!(
                "  not whole: {}: {}",
                file["name"].as_str().unwrap_or("?"),
                file["error"].as_str().unwrap_or("?")
            ))?;
        }
    }
    Ok(if failed.is_empty() { CLEAN } else { FINDINGS })
}

/// What a command of this program says of the image, from a process of its own: a crash there costs one document.
fn document(image: &Image, words: &[&str]) -> std::result::Result<Vec<u8>, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program cannot be found: {e}"))?;
    let mut command = Command::new(program);
    command.arg(words[0]).arg(&image.image).args(&words[1..]).arg("--json");
    for parent in &image.parent {
        command.arg("--parent").arg(parent);
    }
    if image.follow_paths {
        command.arg("--follow-paths");
    }
    if let Some(number) = image.windows {
        command.arg("--windows").arg(number.to_string());
    }
    let output = command.output().map_err(|e| format!("this program cannot be started: {e}"))?;
    // Exit code 1 is what findings give.
    match output.status.code() {
        Some(0 | 1) => Ok(output.stdout),
        code => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last =
                said.lines().rev().find(|line| line.starts_with("error") || line.starts_with("refused"));
            Err(format!(
                "exit code {}: {}",
                code.map_or("none".into(), |c| c.to_string()),
                last.unwrap_or("no message")
            ))
        }
    }
}
