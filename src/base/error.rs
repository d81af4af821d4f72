//! The one error type of the library, and the defect that a lenient reader notes instead of failing.
//!
//! Every error names the layer it comes from, and where it can the offset in hex, what was expected and what was
//! found, and what to do next. An error is made at the place that knows the facts and only gains context on its
//! way up (`at`, `in_file`, `advice`); nobody parses its text.

use std::fmt;
use std::path::{Path, PathBuf};

/// Result of everything in this library.
pub type Result<T> = std::result::Result<T, Error>;

/// The part of the stack that an error or a defect belongs to. An offset is counted from the start of that layer:
/// of the host file for the containers, of the virtual disk for partition tables, of the volume for file systems,
/// of the hive file for the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Layer {
    /// A file or device of the machine that the tool runs on.
    Host,
    /// A block device in the library: range checks, overlay, cache.
    Block,
    /// Which container a file is.
    Image,
    /// The VHD container.
    Vhd,
    /// The VHDX container.
    Vhdx,
    /// MBR partition table.
    Mbr,
    /// GUID partition table.
    Gpt,
    /// A BitLocker volume.
    BitLocker,
    /// Any file system, where the kind is not known.
    FileSystem,
    /// NTFS.
    Ntfs,
    /// FAT12, FAT16, FAT32.
    Fat,
    /// The shadow copies of a volume.
    Shadow,
    /// A registry hive.
    Hive,
    /// A boot configuration store.
    Bcd,
    /// A portable executable.
    Pe,
    /// A packed file, a delta, a cabinet: what updates and the component store keep files in.
    Payload,
    /// An event log.
    EventLog,
    /// The Windows installation as a whole.
    Windows,
    /// Journal, publish, undo.
    Transaction,
    /// A repair script.
    Script,
    /// The independent second reader.
    Verify,
    /// Many images at once.
    Batch,
    /// The command line.
    Cli,
}

impl Layer {
    /// The word that stands in messages and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Host => "host",
            Layer::Block => "block",
            Layer::Image => "image",
            Layer::Vhd => "vhd",
            Layer::Vhdx => "vhdx",
            Layer::Mbr => "mbr",
            Layer::Gpt => "gpt",
            Layer::BitLocker => "bitlocker",
            Layer::FileSystem => "file-system",
            Layer::Ntfs => "ntfs",
            Layer::Fat => "fat",
            Layer::Shadow => "shadow-copy",
            Layer::Hive => "hive",
            Layer::Bcd => "bcd",
            Layer::Pe => "pe",
            Layer::Payload => "payload",
            Layer::EventLog => "event-log",
            Layer::Windows => "windows",
            Layer::Transaction => "transaction",
            Layer::Script => "script",
            Layer::Verify => "verify",
            Layer::Batch => "batch",
            Layer::Cli => "cli",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What kind of failure it is: decides the exit code and what a caller may do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused or failed.
    Io,
    /// A structure on the disk is not what its specification says.
    Damaged,
    /// Well-formed, but this version of the tool cannot do it.
    Unsupported,
    /// What was asked for is not there.
    NotFound,
    /// What should be made is there already.
    AlreadyExists,
    /// The request itself makes no sense: a bad path, a range outside the disk, a bad argument.
    Invalid,
    /// No room left on the volume, in the hive or on the host.
    NoSpace,
    /// A bound of `limits.rs` was reached.
    Limit,
    /// It could be done but would be dangerous: in use, hibernated, encrypted, changed since, ambiguous. Exit code 3.
    Refused,
    /// Somebody else holds it now: a refusal (exit code 3) that goes away by itself.
    Busy,
    /// The second reader sees something else than the first. Nothing was published.
    Disagreement,
    /// The user asked to stop.
    Interrupted,
}

impl ErrorKind {
    /// The word that stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Io => "io",
            ErrorKind::Damaged => "damaged",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::NotFound => "not-found",
            ErrorKind::AlreadyExists => "already-exists",
            ErrorKind::Invalid => "invalid",
            ErrorKind::NoSpace => "no-space",
            ErrorKind::Limit => "limit",
            ErrorKind::Refused => "refused",
            ErrorKind::Busy => "busy",
            ErrorKind::Disagreement => "disagreement",
            ErrorKind::Interrupted => "interrupted",
        }
    }
}

/// An error with its layer, place, advice and cause.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    layer: Layer,
    message: String,
    offset: Option<u64>,
    expected: Option<String>,
    found: Option<String>,
    file: Option<PathBuf>,
    /// The file is what the message speaks of: `cannot open FILE`, not `cannot open in FILE`.
    object: bool,
    advice: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `cannot be read` as `cannot read`, `the journal cannot be written` as `cannot write the journal`: what is said of a file in the
/// passive voice, with the file behind it. `None` for other messages.
fn active(what: &str) -> Option<String> {
    const VERBS: [(&str, &str); 22] = [
        ("read from the medium", "read the medium"),
        ("read", "read"),
        ("written", "write"),
        ("made durable", "flush"),
        ("made private", "set the permissions of"),
        ("made absolute", "resolve"),
        ("made", "create"),
        ("opened for writing", "open for writing:"),
        ("opened", "open"),
        ("looked at", "access"),
        ("looked up", "access"),
        ("looked for", "search for"),
        ("removed", "remove"),
        ("renamed", "rename"),
        ("named", "rename"),
        ("locked", "lock"),
        ("mounted on", "mount on"),
        ("mounted", "mount"),
        ("unmounted", "unmount"),
        ("found", "find"),
        ("listened on", "listen on"),
        ("started once more", "restart"),
    ];
    if what.starts_with("cannot open") || what.starts_with("cannot make") || what.starts_with("cannot read") {
        return Some(what.to_string());
    }
    let (subject, done) = what.split_once("cannot be ")?;
    let (_, verb) = VERBS.iter().find(|(passive, _)| *passive == done)?;
    let subject = subject.trim();
    // The file stands behind: "cannot read the job FILE".
    Some(if subject.is_empty() { format!("cannot {verb}") } else { format!("cannot {verb} {subject}") })
}

impl Error {
    /// An error of `kind` in `layer`; `message` says what was being done or what is wrong, without a final stop.
    pub fn new(kind: ErrorKind, layer: Layer, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            layer,
            message: message.into(),
            offset: None,
            expected: None,
            found: None,
            file: None,
            object: false,
            advice: None,
            source: None,
        }))
    }

    /// A structure on the disk is not what its specification says.
    pub fn damaged(layer: Layer, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Damaged, layer, message)
    }

    /// Well-formed, but not supported.
    pub fn unsupported(layer: Layer, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, layer, message)
    }

    /// What was asked for is not there.
    pub fn not_found(layer: Layer, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::NotFound, layer, message)
    }

    /// The request makes no sense.
    pub fn invalid(layer: Layer, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, layer, message)
    }

    /// Refused for safety (exit code 3); give `advice` with it.
    pub fn refused(layer: Layer, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Refused, layer, message)
    }

    /// Held by somebody else now; give `advice` with it.
    pub fn busy(layer: Layer, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Busy, layer, message)
    }

    /// A bound of `limits.rs` was reached.
    pub fn limit(layer: Layer, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Limit, layer, message)
    }

    /// No room left.
    pub fn no_space(layer: Layer, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::NoSpace, layer, message)
    }

    /// An operating system error on `file` while doing `what`.
    pub fn io(what: impl Into<String>, file: impl AsRef<Path>, source: std::io::Error) -> Error {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            std::io::ErrorKind::StorageFull => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        let what = what.into();
        let active = active(&what);
        let mut error =
            Error::new(kind, Layer::Host, active.clone().unwrap_or(what)).in_file(file).caused_by(source);
        error.0.object = active.is_some();
        error
    }

    /// Adds the offset, in bytes from the start of the layer. The innermost offset wins.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Error {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Adds what the specification wants to see.
    #[must_use]
    pub fn expected(mut self, what: impl fmt::Display) -> Error {
        self.0.expected = Some(what.to_string());
        self
    }

    /// Adds what is there instead.
    #[must_use]
    pub fn found(mut self, what: impl fmt::Display) -> Error {
        self.0.found = Some(what.to_string());
        self
    }

    /// Adds the host file or guest path; the innermost wins.
    #[must_use]
    pub fn in_file(mut self, path: impl AsRef<Path>) -> Error {
        self.0.file.get_or_insert_with(|| path.as_ref().to_path_buf());
        self
    }

    /// Adds what the user can do next; the innermost wins.
    #[must_use]
    pub fn advice(mut self, what: impl Into<String>) -> Error {
        self.0.advice.get_or_insert_with(|| what.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// Puts words in front of the message: `while reading X: ...`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Error {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The layer it comes from.
    pub fn layer(&self) -> Layer {
        self.0.layer
    }

    /// The offset in its layer, if known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// What the user can do next, if anything.
    pub fn advice_text(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// The file it happened in, if known.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The message alone, without layer, place and cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl Error {
    /// What is wrong, without the layer and the offset: for a [`Defect`], which has both.
    pub fn detail(&self) -> String {
        Text { error: self, layer: Some(self.0.layer), offset: self.0.offset }.to_string()
    }
}

/// An error as text, less what stands ahead of it already.
struct Text<'a> {
    error: &'a Error,
    /// The layer that was named.
    layer: Option<Layer>,
    /// The offset that was named, in that layer.
    offset: Option<u64>,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.error.0;
        let same_layer = self.layer == Some(e.layer);
        if !same_layer {
            write!(f, "{}: ", e.layer)?;
        }
        f.write_str(&e.message)?;
        if let Some(offset) = e.offset.filter(|offset| !(same_layer && self.offset == Some(*offset))) {
            write!(f, " at {offset:#x}")?;
        }
        match (&e.expected, &e.found) {
            (Some(expected), Some(found)) => write!(f, " (expected {expected}, found {found})")?,
            (Some(expected), None) => write!(f, " (expected {expected})")?,
            (None, Some(found)) => write!(f, " (found {found})")?,
            (None, None) => {}
        }
        if let Some(file) = &e.file {
            write!(f, "{} {}", if e.object { "" } else { " in" }, file.display())?;
        }
        match e.source.as_deref().map(|source| (source, source.downcast_ref::<Error>())) {
            None => Ok(()),
            Some((_, Some(error))) => {
                let offset = e.offset.or(self.offset.filter(|_| same_layer));
                write!(f, ": {}", Text { error, layer: Some(e.layer), offset })
            }
            Some((source, None)) => write!(f, ": {source}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Text { error: self, layer: None, offset: None })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

/// How bad a defect is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Odd but harmless.
    Note,
    /// Wrong; reading still gives the right answer.
    Warning,
    /// Something cannot be read, or could be read wrongly.
    Error,
}

impl Severity {
    /// The word that stands in messages and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Something that a lenient reader or a checker found wrong. Data, not failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// Stable name, `layer-what`, such as `ntfs-bitmap-mismatch`; listed in docs.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The layer it is in.
    pub layer: Layer,
    /// Offset in bytes in that layer, if it has one place.
    pub offset: Option<u64>,
    /// What was expected and what was found, as a sentence for people.
    pub detail: String,
}

impl Defect {
    /// A defect; see the fields.
    pub fn new(
        code: &'static str,
        severity: Severity,
        layer: Layer,
        offset: impl Into<Option<u64>>,
        detail: impl Into<String>,
    ) -> Defect {
        Defect { code, severity, layer, offset: offset.into(), detail: detail.into() }
    }

    /// An error that a lenient reader or a checker goes on after.
    pub fn from_error(code: &'static str, severity: Severity, error: &Error) -> Defect {
        Defect::new(code, severity, error.layer(), error.offset(), error.detail())
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.layer, self.detail, self.code)?;
        if let Some(offset) = self.offset {
            write!(f, " at {offset:#x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_layer_offset_expectation_and_file() {
        let e = Error::damaged(Layer::Vhdx, "header signature")
            .at(0x10000)
            .expected("head")
            .found("abcd")
            .in_file("a.vhdx");
        assert_eq!(e.to_string(), "vhdx: header signature at 0x10000 (expected head, found abcd) in a.vhdx");
        assert_eq!(e.kind(), ErrorKind::Damaged);
    }

    #[test]
    fn layer_and_offset_are_said_once() {
        let inner = || Error::damaged(Layer::Hive, "a cell is too short").at(0x20).found(3);
        let defect = Defect::from_error("hive-cells-bad", Severity::Error, &inner());
        assert_eq!(defect.to_string(), "hive: a cell is too short (found 3) [hive-cells-bad] at 0x20");
        let outer = Error::damaged(Layer::Hive, "the list cannot be read").at(0x20).caused_by(inner());
        assert_eq!(outer.to_string(), "hive: the list cannot be read at 0x20: a cell is too short (found 3)");
        let other = Error::damaged(Layer::Bcd, "no store").at(0x20).caused_by(inner());
        assert_eq!(other.to_string(), "bcd: no store at 0x20: hive: a cell is too short at 0x20 (found 3)");
    }

    #[test]
    fn the_innermost_place_wins() {
        let e = Error::damaged(Layer::Ntfs, "run list").at(4).at(8).in_file("inner").in_file("outer");
        assert_eq!(e.offset(), Some(4));
        assert_eq!(e.file(), Some(Path::new("inner")));
    }
}
