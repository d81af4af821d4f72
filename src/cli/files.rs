//! `vmrescue files ...`: the bytes of system files: what a payload holds.

use super::output::{self, Output};
use super::{CLEAN, say};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_PAYLOAD_BYTES;
use vmrescue_base::text::hex;
use vmrescue_payload::{Decoded, Form, decode, delta};
use vmrescue_windows::base_manifest;

/// What `files` is asked for.
#[derive(Debug, Subcommand)]
pub(super) enum FilesCommand {
    /// Unpack a payload of the component store or of an update: DCS, DCN, DCM, DCD, PA30, PA31
    Decode(DecodeArgs),
}

/// `vmrescue files decode PAYLOAD OUT`
#[derive(Debug, Args)]
pub(super) struct DecodeArgs {
    /// Packed file or delta
    payload: PathBuf,
    /// New file of this machine
    out: PathBuf,
    /// What the delta was made against: another version of the file; for a manifest its base, or the wcp.dll that has it
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Write only what has this SHA-256
    #[arg(long, value_name = "SHA256")]
    expect: Option<String>,
    #[command(flatten)]
    output: Output,
    /// One JSON document on standard output, and nothing else
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: FilesCommand) -> Result<u8> {
    match command {
        FilesCommand::Decode(args) => decode_file(&args),
    }
}

/// A file of the host, whole.
fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |e| Error::io("cannot be read", path, e);
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_PAYLOAD_BYTES {
        return Err(Error::limit(Layer::Payload, "the file is too large")
            .expected(format!("at most {MAX_PAYLOAD_BYTES:#x} bytes"))
            .found(format!("{size:#x}"))
            .in_file(path));
    }
    std::fs::read(path).map_err(failed)
}

fn decode_file(args: &DecodeArgs) -> Result<u8> {
    let mut rules = args.output.plain().protect(&args.payload, "this is the payload")?;
    let payload = read(&args.payload)?;
    let base = match &args.base {
        Some(path) => {
            rules = rules.protect(path, "this is the source of the delta")?;
            let bytes = read(path)?;
            // A manifest's base is kept in wcp.dll.
            let inside =
                if vmrescue_payload::form(&payload) == Form::Dcm { base_manifest(&bytes) } else { None };
            Some(inside.map_or_else(|| bytes.clone(), <[u8]>::to_vec))
        }
        None => None,
    };
    let found = decode(&payload, base.as_deref(), MAX_PAYLOAD_BYTES).map_err(|e| e.in_file(&args.payload))?;
    let sha256 = hex(&Sha256::digest(&found.data));
    if let Some(wanted) = &args.expect
        && !wanted.eq_ignore_ascii_case(&sha256)
    {
        return Err(Error::damaged(
            Layer::Payload,
            "what came out is not what was expected; nothing was written",
        )
        .expected(wanted)
        .found(&sha256)
        .in_file(&args.payload));
    }
    rules.create(&args.out).and_then(|mut file| {
        std::io::Write::write_all(&mut file, &found.data).map_err(output::failed(&args.out))?;
        file.finish()
    })?;
    let proven = args.expect.is_some();
    if args.json {
        super::say_json("files-decode", document(args, &found, &sha256, proven))?;
    } else {
        let doubt = if proven { None } else { found.doubt.as_deref() };
        say(&format!("{}: {}, {} bytes", args.payload.display(), words(&found), found.data.len()))?;
        say(&format!("sha256 {sha256}  {}", args.out.display()))?;
        if proven {
            say("it has the hash that was expected")?;
        } else if found.confirmed {
            say("the hash in the delta itself fits")?;
        }
        doubt.map_or(Ok(()), |doubt| say(&format!("not proven: {doubt}")))?;
    }
    Ok(CLEAN)
}

fn words(found: &Decoded) -> String {
    match &found.header {
        Some(header) => format!("{}, {} ({})", found.form.name(), header.format, header.file_type.name()),
        None => found.form.name().to_string(),
    }
}

fn document(args: &DecodeArgs, found: &Decoded, sha256: &str, proven: bool) -> Value {
    let header = |header: &delta::Header| {
        json!({"format": header.format, "file_type": header.file_type.name(), "flags": format!("{:#x}", header.flags),
            "target_size": header.target_size, "target_hash": header.target_hash.name(),
            "source_sha256": header.source_sha256.map(|hash| hex(&hash))})
    };
    json!({"payload": args.payload, "form": found.form.name(), "delta": found.header.as_ref().map(header),
        "out": args.out, "size": found.data.len(), "sha256": sha256,
        "expected": proven, "confirmed_by_delta": found.confirmed,
        "doubt": if proven { None } else { found.doubt.clone() }})
}
