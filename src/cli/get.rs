//! `get`: files and trees out of the image. One file comes whole or not at all; a tree goes on after every failure and
//! ends with what is missing.

use super::identity::say_of;
use super::output::{self, Output};
use super::progress::Bars;
use super::times::times_json;
use super::{CLEAN, FINDINGS, Image, look, say, say_error, size};
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{OutputFile, OutputRules};
use vmrescue_fs::security::Descriptor;
use vmrescue_fs::{FileSystem, Metadata, NodeId, NodeKind, StreamInfo};
use vmrescue_salvage::{CopiedFile, Event, How, Missing, Options, Outcome, copy_stream, copy_tree};

/// Lines about what is missing that are printed; the report has all.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(flatten)]
    image: Image,
    /// Guest path
    path: String,
    /// File or folder of this machine
    out: PathBuf,
    /// Whole trees; goes on after every failure, lists what is missing and then exits with 1
    #[arg(short, long)]
    recursive: bool,
    /// With -r: only files whose name fits the pattern (* and ?), or whose whole path does when it has a backslash; may be
    /// repeated
    #[arg(long, value_name = "PATTERN", requires = "recursive")]
    include: Vec<String>,
    /// With -r: leave out files and directories that fit the pattern; may be repeated
    #[arg(long, value_name = "PATTERN", requires = "recursive")]
    exclude: Vec<String>,
    /// With -r: leave alone files that are there with the same length and time
    #[arg(long, requires = "recursive")]
    resume: bool,
    /// With -r: copy named streams too, as files NAME#STREAM
    #[arg(long, requires = "recursive")]
    streams: bool,
    /// With -r from a root directory: also files that no directory leads to, into the folder `orphans`
    #[arg(long, requires = "recursive")]
    orphans: bool,
    /// With -r: also the file system's own files, such as $MFT
    #[arg(long, requires = "recursive")]
    metafiles: bool,
    /// With -r: write what is missing, renamed and left out to this file, as JSON
    #[arg(long, value_name = "FILE", requires = "recursive")]
    report: Option<PathBuf>,
    /// With -r: write one line of JSON for each file to this file: attributes, times, streams, security, sha256 with --hash
    #[arg(long, value_name = "FILE", requires = "recursive")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn get(args: &Get) -> Result<u8> {
    let (_, machine, _) = look::open(&args.image)?;
    let rules = args.output.rules(&args.image)?;
    let (fs, node, parsed) = look::reading(&machine, &args.path)?;
    if fs.metadata(node)?.kind == NodeKind::Directory {
        if !args.recursive {
            return Err(Error::invalid(Layer::Cli, "this is a directory")
                .in_file(&args.path)
                .advice("add -r to copy the whole tree"));
        }
        return tree(args, &*fs, (node, &parsed.to_string()), &rules);
    }
    let target = if args.out.is_dir() { args.out.join(parsed.file_name()) } else { args.out.clone() };
    file(args, &*fs, (node, &parsed.stream), &target, &rules)
}

/// One stream, whole.
fn file(
    args: &Get,
    fs: &dyn FileSystem,
    (node, stream): (NodeId, &str),
    target: &Path,
    rules: &OutputRules,
) -> Result<u8> {
    let streams = fs.streams(node)?;
    let found = streams.iter().find(|info| info.name == stream).ok_or_else(|| {
        Error::not_found(Layer::FileSystem, format!("{} has no stream {stream:?}", args.path))
    })?;
    let mut out = rules.create(target)?;
    let bars = Bars::new();
    let copied = copy_stream(fs, (node, stream, found.size_bytes), &mut out, args.image.hash, &bars)?;
    if let Some(why) = copied.why {
        if copied.got_bytes == 0 || !args.recursive {
            let more = format!("{} of {} bytes can be read", copied.got_bytes, found.size_bytes);
            let why = why.context(format!("{}: {more}", args.path));
            return Err(if copied.got_bytes == 0 {
                why
            } else {
                why.advice("add -r to copy what can be read")
            });
        }
        for range in &copied.unread {
            say_error(&format!(
                "not read: bytes {:#x} to {:#x}; they are zero in the copy",
                range.start, range.end
            ));
        }
        out.finish()?;
        say_error(&format!("{} of {} bytes were copied: {why}", copied.got_bytes, found.size_bytes));
        return Ok(FINDINGS);
    }
    if let Some(sum) = copied.sha256 {
        say(&format!("{sum}  {}", target.display()))?;
    }
    out.finish()?;
    Ok(CLEAN)
}

fn tree(args: &Get, fs: &dyn FileSystem, from: (NodeId, &str), rules: &OutputRules) -> Result<u8> {
    let options = Options {
        hash: args.image.hash,
        streams: args.streams,
        resume: args.resume,
        orphans: args.orphans,
        internal: args.metafiles,
        include: args.include.clone(),
        exclude: args.exclude.clone(),
    };
    let report = args.report.as_deref().map(|path| rules.create(path)).transpose()?;
    let mut manifest = args.manifest.as_deref().map(|path| rules.create(path)).transpose()?;
    let mut shown = 0;
    let outcome = copy_tree(fs, from, (&args.out, rules), &options, &Bars::new(), &mut |event| {
        if let Event::Missing(missing) = &event {
            shown += 1;
            if shown <= SHOWN {
                say_error(&format!("missing: {}", line_of(missing)));
            }
        }
        if let Event::Copied(CopiedFile { sha256: Some(sum), target, .. }) = &event
            && !args.image.json
        {
            say(&format!("{sum}  {}", target.display()))?;
        }
        match &mut manifest {
            Some(file) => record(fs, file, &event),
            None => Ok(()),
        }
    })?;
    manifest.map_or(Ok(()), OutputFile::finish)?;
    let document = json_of(&outcome);
    if let (Some(mut file), Some(path)) = (report, &args.report) {
        let text = serde_json::to_string_pretty(&document)
            .map_err(|e| Error::invalid(Layer::Cli, "the report cannot be written as JSON").caused_by(e))?;
        writeln!(file, "{text}").map_err(output::failed(path))?;
        file.finish()?;
    }
    if args.image.json {
        say_of(&args.image, "get", document)?;
    } else {
        say_outcome(&outcome, args)?;
    }
    Ok(if outcome.missing.is_empty() { CLEAN } else { FINDINGS })
}

fn line_of(missing: &Missing) -> String {
    match (missing.size_bytes, missing.got_bytes) {
        (Some(size), got) if got > 0 => {
            format!("{}: {got} of {size} bytes were copied: {}", missing.path, missing.why)
        }
        _ => format!("{}: {}", missing.path, missing.why),
    }
}

fn say_outcome(outcome: &Outcome, args: &Get) -> Result<()> {
    let count =
        |number: u64, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    let mut parts = vec![
        count(outcome.files, "file", "files"),
        count(outcome.folders, "folder", "folders"),
        size(outcome.bytes),
    ];
    if outcome.hard_links > 0 {
        parts.push(count(outcome.hard_links, "hard link", "hard links"));
    }
    if outcome.kept > 0 {
        parts.push(format!("{} already there", outcome.kept));
    }
    say(&format!("copied: {}", parts.join(", ")))?;
    let mut left = Vec::new();
    if !outcome.links.is_empty() {
        left.push(count(outcome.links.len() as u64, "link", "links"));
    }
    if outcome.streams_left_out > 0 {
        let streams = count(outcome.streams_left_out, "named stream", "named streams");
        left.push(format!("{streams} (copy them with --streams)"));
    }
    if !left.is_empty() {
        say(&format!("left out: {}", left.join(", ")))?;
    }
    if !outcome.renamed.is_empty() {
        let names = count(outcome.renamed.len() as u64, "name", "names");
        say(&format!("renamed: {names} that this machine cannot have{}", see(args)))?;
    }
    if outcome.times_not_set > 0 {
        say(&format!("times not set: {}", count(outcome.times_not_set, "file", "files")))?;
    }
    if !outcome.missing.is_empty() {
        let missing = count(outcome.missing.len() as u64, "file or directory", "files and directories");
        let more = if outcome.missing.len() > SHOWN { see(args) } else { String::new() };
        say_error(&format!("{missing} could not be copied whole{more}"));
    }
    Ok(())
}

fn see(args: &Get) -> String {
    match &args.report {
        Some(path) => format!("; {} lists all", path.display()),
        None => "; --report FILE lists all".into(),
    }
}

fn json_of(outcome: &Outcome) -> Value {
    let missing: Vec<Value> = outcome
        .missing
        .iter()
        .map(|missing| {
            let ranges: Vec<Value> = missing
                .unread
                .iter()
                .map(|range| json!({"offset": range.start, "length": range.end - range.start}))
                .collect();
            json!({"path": missing.path, "reason": missing.why.to_string(), "size": missing.size_bytes,
                "copied_bytes": missing.got_bytes, "unread": ranges, "target": missing.target.as_ref().map(|path| path.display().to_string())})
        })
        .collect();
    let links: Vec<Value> = outcome
        .links
        .iter()
        .map(|link| json!({"path": link.path, "target": link.target, "tag": link.tag.map(|tag| format!("{tag:#x}"))}))
        .collect();
    let renamed: Vec<Value> = outcome
        .renamed
        .iter()
        .map(|(path, target)| json!({"path": path, "target": target.display().to_string()}))
        .collect();
    json!({
        "files": outcome.files, "folders": outcome.folders, "bytes": outcome.bytes,
        "hard_links": outcome.hard_links, "already_there": outcome.kept, "missing": missing, "links": links,
        "renamed": renamed, "streams_left_out": outcome.streams_left_out, "times_not_set": outcome.times_not_set,
    })
}

/// A line of the manifest.
fn record(fs: &dyn FileSystem, file: &mut OutputFile, event: &Event<'_>) -> Result<()> {
    let line = match event {
        Event::Missing(_) => return Ok(()),
        Event::Folder { path, target, metadata } => line_json(fs, (path, target, "directory"), metadata, &[]),
        Event::Copied(copied) => {
            let kind = match copied.how {
                How::Copied => "file",
                How::Linked => "hard-link",
                How::Kept => "already-there",
            };
            let mut line = line_json(fs, (copied.path, copied.target, kind), copied.metadata, copied.streams);
            line["size"] = json!(copied.size_bytes);
            line["sha256"] = json!(copied.sha256);
            line
        }
    };
    let path = file.path().to_path_buf();
    writeln!(file, "{line}").map_err(output::failed(&path))
}

fn line_json(
    fs: &dyn FileSystem,
    (path, target, kind): (&str, &Path, &str),
    metadata: &Metadata,
    streams: &[StreamInfo],
) -> Value {
    let (security, problem) =
        match fs.security(metadata.id).and_then(|raw| raw.map(|raw| Descriptor::parse(&raw)).transpose()) {
            Ok(found) => (found.map(|descriptor| descriptor.sddl()), None),
            Err(e) => (None, Some(e.to_string())),
        };
    let streams: Vec<Value> = streams
        .iter()
        .filter(|stream| !stream.name.is_empty())
        .map(|stream| json!({"name": stream.name, "size": stream.size_bytes}))
        .collect();
    json!({"path": path, "target": target.display().to_string(), "kind": kind, "attributes": metadata.attributes.0, "links": metadata.links,
        "times": times_json(metadata.times), "streams": streams, "security": security, "security_error": problem})
}
