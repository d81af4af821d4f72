//! `vmrescue files ...`: the exact bytes of system files: what they should be, whether they are, what a payload holds.

use super::identity::{say_of, tell};
use super::output::{self, Output};
use super::{CLEAN, FINDINGS, Image, look, say};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_PAYLOAD_BYTES;
use vmrescue_base::text::hex;
use vmrescue_boot::Part;
use vmrescue_fs::NodeKind;
use vmrescue_payload::cab::Cabinet;
use vmrescue_payload::psf::{self, PsfFile, is_psf};
use vmrescue_payload::{Decoded, Form, decode, delta};
use vmrescue_windows::{FileState, Installation, Machine, base_manifest, exact_files, explain_file};

/// What `files` is asked for.
#[derive(Debug, Subcommand)]
pub(super) enum FilesCommand {
    /// What a system file should be, what it is, and where its exact bytes can come from
    Explain {
        #[command(flatten)]
        image: Image,
        /// Guest path
        path: String,
    },
    /// Whether system files are exactly what the installed build expects; exit 1 when some are not
    Verify(VerifyArgs),
    /// The files of an update package: a cabinet (.cab, .msu of the older form) or an express storage (.psf)
    List {
        /// The package
        package: PathBuf,
        /// Index of an express storage, when it does not lie inside
        #[arg(long, value_name = "FILE")]
        index: Option<PathBuf>,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Unpack a payload of the component store or of an update: DCS, DCN, DCM, DCD, PA30, PA31
    Decode(DecodeArgs),
}

/// `vmrescue files verify IMAGE`
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    image: Image,
    /// Guest paths; without any, what the start needs
    paths: Vec<String>,
    /// What the start needs, in addition to the paths
    #[arg(long)]
    boot: bool,
    /// All of System32 and its folder of drivers
    #[arg(long, conflicts_with = "paths")]
    all: bool,
}

/// `vmrescue files decode PAYLOAD OUT`
#[derive(Debug, Args)]
pub(super) struct DecodeArgs {
    /// Packed file or delta; or a package that has it, with --member
    payload: PathBuf,
    /// New file of this machine
    out: PathBuf,
    /// What the delta was made against: another version of the file; for a manifest its base, or the wcp.dll that has it
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// File of a cabinet or express storage, by its name there
    #[arg(long, value_name = "NAME")]
    member: Option<String>,
    /// Index of an express storage, when it does not lie inside
    #[arg(long, value_name = "FILE", requires = "member")]
    index: Option<PathBuf>,
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
        FilesCommand::Explain { image, path } => explain(&image, &path),
        FilesCommand::Verify(args) => verify(&args),
        FilesCommand::List { package, index, json } => list(&package, index.as_deref(), json),
        FilesCommand::Decode(args) => decode_file(&args),
    }
}

/// Which files `verify` looks at.
fn wanted(args: &VerifyArgs, machine: &Machine, installation: &Installation) -> Result<Vec<String>> {
    let mut paths = args.paths.clone();
    if args.all {
        let fs = machine.file_system(installation.volume)?;
        for folder in ["System32", r"System32\drivers"] {
            let parts: Vec<&str> = folder.split('\\').collect();
            let mut at = installation.root;
            for part in parts {
                at = fs.lookup(at, part)?.ok_or_else(|| {
                    Error::not_found(Layer::Windows, "the installation has no such folder").found(folder)
                })?;
            }
            let files = fs.read_dir(at)?.into_iter().filter(|entry| entry.kind == NodeKind::File);
            paths.extend(files.map(|entry| format!(r"{}\{folder}\{}", installation.path, entry.name)));
        }
    } else if args.boot || paths.is_empty() {
        let chain = vmrescue_boot::walk(machine, installation)?;
        let files = chain.links.iter().filter(|link| link.is_file() && link.part != Part::SystemHive);
        paths.extend(files.map(|link| link.place.clone()));
    }
    let mut seen = BTreeSet::new();
    paths.retain(|path| seen.insert(path.to_lowercase()));
    Ok(paths)
}

fn verify(args: &VerifyArgs) -> Result<u8> {
    let image = &args.image;
    tell(image)?;
    let (_, machine, _) = look::open(image)?;
    let installation = machine.installation(image.windows)?;
    let report = exact_files(&machine, installation, &wanted(args, &machine, installation)?)?;
    let count = |state: FileState| report.files.iter().filter(|file| file.state == state).count();
    let bad = report.files.len() - count(FileState::Exact) - count(FileState::Unknown);
    if image.json {
        say_of(image, "files-verify", json!(report))?;
        return Ok(if bad > 0 { FINDINGS } else { CLEAN });
    }
    let states = [
        FileState::Exact,
        FileState::OtherVersion,
        FileState::Unsigned,
        FileState::Broken,
        FileState::Unknown,
    ];
    for state in states {
        for file in report.files.iter().filter(|file| file.state == state) {
            say(&format!("{:<13} {}", state.name(), file.path))?;
            if state != FileState::Exact {
                say(&format!("              {}", file.why))?;
            }
        }
    }
    let counts: Vec<String> =
        states.iter().map(|state| format!("{} {}", count(*state), state.name().to_lowercase())).collect();
    say(&format!("{} files: {}", report.files.len(), counts.join(", ")))?;
    for path in &report.catalogs_lost {
        say(&format!("the catalog store lost the catalog of {path}: only servicing\\Packages has it"))?;
    }
    report
        .catalogs_unreadable
        .iter()
        .try_for_each(|name| say(&format!("the catalog {name} cannot be read")))?;
    report.notes.iter().try_for_each(|note| say(&format!("note: {note}")))?;
    Ok(if bad > 0 { FINDINGS } else { CLEAN })
}

fn explain(image: &Image, path: &str) -> Result<u8> {
    tell(image)?;
    let (_, machine, _) = look::open(image)?;
    let installation = machine.installation(image.windows)?;
    let found = explain_file(&machine, installation, path)?;
    if image.json {
        say_of(image, "files-explain", json!(found))?;
        return Ok(CLEAN);
    }
    let file = &found.file;
    let line = |name: &str, text: &str| say(&format!("  {name:<14} {text}"));
    say(&format!("{}: {}, {}", file.path, file.state.name(), file.why))?;
    found
        .names
        .iter()
        .filter(|name| !name.eq_ignore_ascii_case(path))
        .try_for_each(|name| line("also", name))?;
    line("component", file.component.as_deref().unwrap_or("none in the store has such a file"))?;
    if let (Some(winner), Some(by)) = (&file.winner, file.winner_by) {
        line("wins", &format!("{winner}, by {by}"))?;
    }
    line("manifest", file.manifest.text())?;
    if let Some(hash) = &found.manifest_sha256 {
        let registered = match &found.manifest_registered {
            Some(said) if said == hash => "as the registry has it",
            Some(_) => "NOT as the registry has it",
            None => "the registry has none",
        };
        line("", &format!("sha256 {hash}, {registered}"))?;
    }
    line("expected", file.expected_sha256.as_deref().unwrap_or("not known"))?;
    line("sha256", file.sha256.as_deref().unwrap_or("-"))?;
    if let Some(hash) = &file.authenticode_sha256 {
        line("authenticode", hash)?;
    }
    line("signature", &file.signature.text())?;
    if file.state != FileState::Exact && file.expected.is_some() {
        line("exact bytes", found.source.as_deref().unwrap_or("the guest has no way to make them"))?;
    }
    found.tried.iter().try_for_each(|tried| line("  tried", &format!("{}: {}", tried.place, tried.why)))?;
    found.unknown.iter().try_for_each(|text| line("not known", text))?;
    Ok(CLEAN)
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
    let mut payload = read(&args.payload)?;
    if let Some(member) = &args.member {
        payload = member_of(&payload, args.index.as_deref(), member).map_err(|e| e.in_file(&args.payload))?;
    }
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

/// The files of an express storage.
fn storage(psf: &[u8], index: Option<&Path>) -> Result<Vec<PsfFile>> {
    let index = match index {
        Some(path) => read(path)?,
        None => psf::own_index(psf)?,
    };
    psf::files(&index)
}

fn member_of(package: &[u8], index: Option<&Path>, name: &str) -> Result<Vec<u8>> {
    let missing = || Error::not_found(Layer::Payload, "the package has no such file").found(name);
    if is_psf(package) {
        let files = storage(package, index)?;
        let own = files.iter().find(|own| own.name.eq_ignore_ascii_case(name)).ok_or_else(missing)?;
        let (offset, length) = own.place();
        let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
        let stored = range.and_then(|(at, length)| vmrescue_base::bytes::slice_at(package, at, length));
        let stored = stored.ok_or_else(|| {
            Error::damaged(Layer::Payload, "the file lies behind the end").at(offset).found(name)
        })?;
        return own.decode(stored, MAX_PAYLOAD_BYTES);
    }
    let mut found = None;
    Cabinet::open(package)?.extract(
        MAX_PAYLOAD_BYTES,
        &|own| own.name.eq_ignore_ascii_case(name),
        &mut |_, bytes| {
            found = Some(bytes.to_vec());
            Ok(())
        },
    )?;
    found.ok_or_else(missing)
}

fn list(package: &Path, index: Option<&Path>, json: bool) -> Result<u8> {
    let bytes = read(package)?;
    let files: Vec<(String, u64, Option<String>)> = if is_psf(&bytes) {
        let files = storage(&bytes, index).map_err(|e| e.in_file(package))?;
        files.into_iter().map(|own| (own.name, own.size, Some(hex(&own.sha256)))).collect()
    } else {
        let cabinet = Cabinet::open(&bytes).map_err(|e| e.in_file(package))?;
        cabinet.files().iter().map(|own| (own.name.clone(), own.size, None)).collect()
    };
    if json {
        let files: Vec<Value> = files
            .iter()
            .map(|(name, size, sha256)| json!({"name": name, "size": size, "sha256": sha256}))
            .collect();
        super::say_json("files-list", json!({"package": package, "files": files}))?;
    } else {
        files.iter().try_for_each(|(name, size, _)| say(&format!("{size:>12}  {name}")))?;
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
