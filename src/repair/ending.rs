//! How a change ends, as a value: done, nothing needed, or could not, which are three things.

use serde::Serialize;
use std::fmt;
use vmrescue_base::error::Error;

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Written and verified.
    Done,
    /// A plan, which would change something.
    WouldChange,
    /// Everything that was asked for is as it should be.
    NothingNeeded,
    /// Something had to be changed, and nothing of it could be.
    CouldNot,
    /// The user said no.
    NotWanted,
}

impl Ending {
    /// The ending of a plan or of its execution.
    pub fn of(changes: usize, missing: usize, dry_run: bool) -> Ending {
        match (changes, missing, dry_run) {
            (0, 0, _) => Ending::NothingNeeded,
            (0, _, _) => Ending::CouldNot,
            (_, _, true) => Ending::WouldChange,
            (_, _, false) => Ending::Done,
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Ending::Done => "done",
            Ending::WouldChange => "would change",
            Ending::NothingNeeded => "no changes needed: there is nothing to do",
            Ending::CouldNot => "nothing could be repaired",
            Ending::NotWanted => "nothing was written",
        }
    }
}

/// Something that could not be repaired: what it is, why, and where what is missing can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What: a fix, a file, a hive.
    pub what: String,
    /// Why it could not be.
    pub why: String,
    /// What is missing, and where to get it.
    pub get: Option<String>,
}

impl Missing {
    /// What an error kept from being repaired.
    pub fn of(what: impl Into<String>, error: &Error) -> Missing {
        Missing { what: what.into(), why: error.to_string(), get: error.advice_text().map(str::to_string) }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        match &self.get {
            Some(get) => write!(f, "\n    {get}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_done_is_not_nothing_needed() {
        assert_eq!(Ending::of(0, 0, false), Ending::NothingNeeded);
        assert_eq!(Ending::of(0, 2, false), Ending::CouldNot);
        assert_eq!(Ending::of(0, 2, true), Ending::CouldNot);
        assert_eq!(Ending::of(3, 2, false), Ending::Done);
        assert_eq!(Ending::of(3, 0, true), Ending::WouldChange);
    }
}
