//! Deltas of the kinds PA30 and PA31: what turns one version of a file into another, or nothing into a file.
//!
//! `bits` reads streams, `codes` the codes of the body, `patch` runs it, `pe` rewrites the source of a program file first.
//! Only what the delta's own hash, or one from elsewhere, confirms is more than a guess: a wrong source gives wrong bytes without a word.
//!
//! Missing: the address transforms of program files whose sections moved, managed files, BsDiff bodies, the call filter, PA19.

mod bits;
mod codes;
pub(crate) mod pack;
mod patch;
mod pe;

use bits::Stream;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use vmrescue_base::bytes::{slice_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::hex;

/// Numbers that Windows gives to hash algorithms.
const MD5: u64 = 0x8003;
const SHA1: u64 = 0x8004;
const SHA256: u64 = 0x800c;
/// The size limit of Windows is not asked for: says nothing about the body.
const FLAG_IGNORE_SIZE: u64 = 0x20000;
/// Stands in every PA31 that was seen, for raw and for program files; the body is read as without it.
const FLAG_PA31: u64 = 0x1000_0000;
/// What is asked for by program files; see `pe`.
const FLAGS_I386: u64 = 0xe1fe;
const FLAGS_AMD64: u64 = 0xe63e;
/// Longest hash, and longest header of PA31.
const MAX_HASH_BYTES: usize = 64;

fn damaged(what: &str) -> Error {
    Error::damaged(Layer::Payload, format!("delta: {what}"))
}

/// What kind of file a delta is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// Bytes.
    Raw,
    /// A program file for i386.
    I386,
    /// A program file for amd64.
    Amd64,
    /// Another: IA64, ARM, managed code.
    Other(u64),
}

impl FileType {
    /// In words.
    pub fn name(self) -> String {
        match self {
            FileType::Raw => "raw".into(),
            FileType::I386 => "program file for i386".into(),
            FileType::Amd64 => "program file for amd64".into(),
            FileType::Other(number) => format!("file type {number:#x}"),
        }
    }
}

/// A hash that a delta names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetHash {
    /// The delta does not say.
    None,
    /// SHA-1 of the target.
    Sha1(Vec<u8>),
    /// SHA-256 of the target.
    Sha256(Vec<u8>),
    /// Another algorithm, by its number in Windows; 0x8003 is MD5.
    Other(u64),
}

impl TargetHash {
    /// Whether `bytes` have it; `None` when it cannot be told.
    pub fn fits(&self, bytes: &[u8]) -> Option<bool> {
        match self {
            TargetHash::None | TargetHash::Other(_) => None,
            TargetHash::Sha1(hash) => Some(hash[..] == Sha1::digest(bytes)[..]),
            TargetHash::Sha256(hash) => Some(hash[..] == Sha256::digest(bytes)[..]),
        }
    }

    /// In words.
    pub fn name(&self) -> String {
        match self {
            TargetHash::None => "none".into(),
            TargetHash::Sha1(hash) => format!("SHA-1 {}", hex(hash)),
            TargetHash::Sha256(hash) => format!("SHA-256 {}", hex(hash)),
            TargetHash::Other(MD5) => "MD5".into(),
            TargetHash::Other(number) => format!("algorithm {number:#x}"),
        }
    }
}

/// What a delta says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `PA30` or `PA31`.
    pub format: &'static str,
    /// Time of the target, as a FILETIME.
    pub time: u64,
    /// What kind of file it is for.
    pub file_type: FileType,
    /// Flags as they stand.
    pub flags: u64,
    /// Length of the target.
    pub target_size: u64,
    /// Hash of the target.
    pub target_hash: TargetHash,
    /// SHA-256 of the source, which some packers of PA31 write.
    pub source_sha256: Option<[u8; 32]>,
}

struct Parts<'a> {
    header: Header,
    preprocess: (&'a [u8], u64),
    patch: (&'a [u8], u64),
}

/// What was made of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The bytes.
    pub data: Vec<u8>,
    /// The delta's own hash of the target was there, and fits.
    pub confirmed: bool,
    /// Why the bytes may be wrong though nothing failed.
    pub doubt: Option<String>,
}

/// What a delta says of itself.
///
/// # Errors
/// `Damaged`, and `Unsupported` for what is no PA30 or PA31.
pub fn header(delta: &[u8]) -> Result<Header> {
    parts(delta).map(|parts| parts.header)
}

fn parts(delta: &[u8]) -> Result<Parts<'_>> {
    let format = match slice_at(delta, 0, 4) {
        Some(b"PA30") => "PA30",
        Some(b"PA31") => "PA31",
        Some(b"PA19") => {
            return Err(Error::unsupported(Layer::Payload, "a delta of the old format PA19"));
        }
        found => {
            return Err(damaged("another head")
                .at(0)
                .expected("PA30 or PA31")
                .found(hex(found.unwrap_or_default())));
        }
    };
    let time = u64_at(delta, 4).ok_or_else(|| damaged("it is cut off").at(delta.len() as u64))?;
    let mut stream = Stream::open(&delta[12..], 12)?;
    let header = if format == "PA31" {
        let (bytes, at) = stream.buffer()?;
        let mut inner = Stream::open(bytes, at)?;
        let mut header = read_header(&mut inner, format, time)?;
        header.source_sha256 = source_hash(inner);
        header
    } else {
        read_header(&mut stream, format, time)?
    };
    let (preprocess, patch) = (stream.buffer()?, stream.buffer()?);
    if stream.left() > 0 {
        return Err(damaged("there is more behind the body").at(stream.at()));
    }
    Ok(Parts { header, preprocess, patch })
}

/// What may follow in the header of PA31: three numbers of unknown meaning and the hash of the source. Anything else says nothing.
fn source_hash(mut stream: Stream<'_>) -> Option<[u8; 32]> {
    let mut read = || -> Result<&[u8]> {
        for _ in 0..3 {
            stream.number()?;
        }
        stream.buffer().map(|(hash, _)| hash)
    };
    // Not an error: the place is known from two packers only, and nothing is proved by it.
    let hash = read().ok()?;
    if stream.left() == 0 { hash.try_into().ok() } else { None }
}

fn read_header(stream: &mut Stream<'_>, format: &'static str, time: u64) -> Result<Header> {
    let _allowed = stream.number()?; // the file types that the packer might have chosen
    let file_type = match stream.number()? {
        1 => FileType::Raw,
        2 => FileType::I386,
        8 => FileType::Amd64,
        other => FileType::Other(other),
    };
    let (flags, target_size, algorithm) = (stream.number()?, stream.number()?, stream.number()?);
    let (hash, at) = stream.buffer()?;
    if hash.len() > MAX_HASH_BYTES {
        return Err(damaged("the hash is too long").at(at).found(hash.len()));
    }
    let target_hash = match (algorithm, hash.len()) {
        (0, _) | (_, 0) => TargetHash::None,
        (SHA1, 20) => TargetHash::Sha1(hash.to_vec()),
        (SHA256, 32) => TargetHash::Sha256(hash.to_vec()),
        (SHA1 | SHA256, length) => {
            return Err(damaged("the hash has a wrong length").at(at).found(length));
        }
        (other, _) => TargetHash::Other(other),
    };
    Ok(Header { format, time, file_type, flags, target_size, target_hash, source_sha256: None })
}

/// Applies a delta to its source (empty for one against nothing), for a target of at most `limit` bytes.
///
/// # Errors
/// `Damaged` for a broken delta or a result that does not have the delta's own hash; `Unsupported` by name; `Limit`.
pub fn apply(delta: &[u8], source: &[u8], limit: u64) -> Result<Applied> {
    let Parts { header, preprocess, patch } = parts(delta)?;
    if header.target_size > limit {
        return Err(Error::limit(Layer::Payload, "delta: the target would be too large")
            .at(12)
            .expected(format!("at most {limit:#x} bytes"))
            .found(format!("{:#x}", header.target_size)));
    }
    // Every byte of a target takes at least a bit of the body, or part of a copy: what cannot be is refused before anything is allocated.
    let size =
        usize::try_from(header.target_size).map_err(|_| damaged("the target does not fit into memory"))?;
    if size > 0 && patch.0.is_empty() {
        return Err(damaged("it has no body").at(patch.1));
    }
    let any = FLAG_IGNORE_SIZE | if header.format == "PA31" { FLAG_PA31 } else { 0 };
    let known = match header.file_type {
        FileType::Raw => any,
        FileType::I386 => FLAGS_I386 | any,
        FileType::Amd64 => FLAGS_AMD64 | any,
        FileType::Other(_) => {
            return Err(Error::unsupported(
                Layer::Payload,
                format!("a delta for {}", header.file_type.name()),
            )
            .at(12)
            .expected("raw, i386 or amd64"));
        }
    };
    if header.flags & !known != 0 {
        return Err(Error::unsupported(Layer::Payload, "flags of a delta")
            .at(12)
            .expected(format!("none but {known:#x}"))
            .found(format!("{:#x}", header.flags)));
    }
    if let Some(wanted) = header.source_sha256
        && wanted[..] != Sha256::digest(source)[..]
    {
        return Err(Error::invalid(
            Layer::Payload,
            "the source is not the one that the delta was made against",
        )
        .expected(format!("SHA-256 {}", hex(&wanted))));
    }
    let mut source = source.to_vec();
    let is_program = header.file_type != FileType::Raw;
    if is_program {
        pe::rewrite(&mut source, preprocess)?;
    }
    let data = patch::apply(patch.0, patch.1, source, size)?;
    let fits = header.target_hash.fits(&data);
    if fits == Some(false) {
        let error = if is_program {
            Error::unsupported(
                Layer::Payload,
                "the delta's own hash does not fit: a wrong source, or a program file whose sections moved",
            )
        } else {
            damaged("the result does not have the delta's own hash: a wrong source, or damage")
        };
        return Err(error.expected(header.target_hash.name()));
    }
    let doubt = match (fits, is_program) {
        (Some(_), _) => None,
        (None, true) => Some(
            "the delta does not say what must come out, and addresses of a program file whose sections moved are not rewritten"
                .to_string(),
        ),
        (None, false) => Some("the delta does not say what must come out".to_string()),
    };
    Ok(Applied { data, confirmed: fits == Some(true), doubt })
}
