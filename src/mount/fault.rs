//! Why an operation on a mounted tree failed, in the words that every operating system has a number for.

use vmrescue_base::error::{Error, ErrorKind};

/// The reason of a failure, without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No such name.
    NotFound,
    /// The name is taken.
    Exists,
    /// A directory was needed.
    NotDirectory,
    /// A file was needed.
    IsDirectory,
    /// The directory has names in it.
    NotEmpty,
    /// The request makes no sense, or the name cannot be one on Windows.
    Invalid,
    /// A name longer than NTFS has.
    NameTooLong,
    /// Nothing can be written here.
    ReadOnly,
    /// The volume is full.
    NoSpace,
    /// From one volume to another.
    CrossVolume,
    /// A bound of the file system.
    TooLarge,
    /// No such extended attribute.
    NoAttribute,
    /// Larger than the caller's buffer, or than an attribute may be.
    Range,
    /// The file system does not allow it.
    Denied,
    /// This file system cannot do it.
    Unsupported,
    /// In use.
    Busy,
    /// Damage, or the host failed.
    Failed,
}

/// A failure; with the library's own error where there is one to tell about.
#[derive(Debug)]
pub struct Fault {
    /// Why.
    pub reason: Reason,
    /// The details.
    pub error: Option<Error>,
}

impl Fault {
    /// True when somebody should be told: damage and failures of the host, not the daily questions for names.
    pub fn is_worth_telling(&self) -> bool {
        self.reason == Reason::Failed && self.error.is_some()
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Fault {
        Fault { reason, error: None }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let reason = match error.kind() {
            ErrorKind::NotFound => Reason::NotFound,
            ErrorKind::AlreadyExists => Reason::Exists,
            ErrorKind::Invalid => Reason::Invalid,
            ErrorKind::NoSpace => Reason::NoSpace,
            ErrorKind::Unsupported => Reason::Unsupported,
            ErrorKind::Limit => Reason::TooLarge,
            ErrorKind::Refused => Reason::Denied,
            ErrorKind::Busy => Reason::Busy,
            _ => Reason::Failed,
        };
        Fault { reason, error: Some(error) }
    }
}

/// Result of everything on a mounted tree.
pub type Answer<T> = Result<T, Fault>;
