//! What was asked for and could not be read, as a value that reaches the user: not seen is not absent.
//!
//! Where a reader goes on after an error, the error goes through [`Unseen`], the only way here from a `Result` to an `Option`.

use serde::Serialize;
use std::cell::RefCell;
use std::fmt;
use vmrescue_base::error::{Error, ErrorKind, Result};

/// Most that are kept; a damaged hive would give thousands.
const MOST: usize = 64;

/// How much depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Whether the machine starts cannot be told without it: the container, SYSTEM, its services, the boot store.
    Critical,
    /// Something else was not looked at.
    Partial,
}

/// Something that was asked for and could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// What it is, in words: `services and drivers`.
    pub what: String,
    /// Where it is: a key, a guest path, a file of the host.
    #[serde(rename = "where")]
    pub place: String,
    /// Why it could not be read.
    pub why: String,
    /// How much depends on it.
    pub weight: Weight,
    /// What the user can do next.
    pub advice: Option<String>,
}

impl Unread {
    /// Something that could not be read, for this reason.
    pub fn new(what: &str, place: impl Into<String>, why: impl Into<String>, weight: Weight) -> Unread {
        Unread { what: what.into(), place: place.into(), why: why.into(), weight, advice: None }
    }

    /// Something that could not be read because of an error, which may give advice.
    pub fn of(what: &str, place: impl Into<String>, weight: Weight, error: &Error) -> Unread {
        let advice = error.advice_text().map(str::to_string);
        Unread { advice, ..Unread::new(what, place, error.to_string(), weight) }
    }

    /// With what the user can do next.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Unread {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            return write!(f, "{}: {}", self.what, self.why);
        }
        write!(f, "{} ({}): {}", self.what, self.place, self.why)
    }
}

/// What could not be read in the course of a look.
#[derive(Debug, Clone, Default)]
pub struct Unseen(RefCell<Vec<Unread>>);

impl Unseen {
    /// Adds one, if it is new and there is room.
    pub fn note(&self, unread: Unread) {
        let mut all = self.0.borrow_mut();
        if all.contains(&unread) {
            return;
        }
        if all.len() < MOST {
            all.push(unread);
        } else if let Some(last) = all.last_mut() {
            // What decides the verdict is never pushed out by what does not.
            last.weight = last.weight.min(unread.weight);
        }
    }

    /// The value, or `None` and a note of why not.
    pub fn seen<T>(
        &self,
        what: &str,
        place: impl Into<String>,
        weight: Weight,
        result: Result<T>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(e) => {
                self.note(Unread::of(what, place, weight, &e));
                None
            }
        }
    }

    /// As [`Unseen::seen`]; what does not exist is no reason for a note.
    pub fn found<T>(
        &self,
        what: &str,
        place: impl Into<String>,
        weight: Weight,
        result: Result<T>,
    ) -> Option<T> {
        match result {
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            other => self.seen(what, place, weight, other),
        }
    }

    /// All of them, the critical ones first.
    pub fn list(&self) -> Vec<Unread> {
        let mut all = self.0.borrow().clone();
        all.sort_by_key(|unread| unread.weight);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmrescue_base::error::Layer;

    #[test]
    fn an_error_becomes_a_note_and_absence_does_not() {
        let unseen = Unseen::default();
        let damaged = || Error::damaged(Layer::Hive, "x").advice("restore it");
        assert_eq!(unseen.found("services", "SYSTEM", Weight::Critical, Ok(7)), Some(7));
        let none: Option<u8> =
            unseen.found("services", "SYSTEM", Weight::Critical, Err(Error::not_found(Layer::Hive, "x")));
        assert_eq!((none, unseen.list().len()), (None, 0));
        for _ in 0..2 {
            assert_eq!(unseen.found::<u8>("services", "SYSTEM", Weight::Critical, Err(damaged())), None);
        }
        let list = unseen.list();
        assert_eq!(list.len(), 1, "told once");
        assert_eq!(list[0].to_string(), "services (SYSTEM): hive: x");
        assert_eq!(list[0].advice.as_deref(), Some("restore it"));
    }

    #[test]
    fn what_decides_comes_first_and_is_never_pushed_out() {
        let unseen = Unseen::default();
        for number in 0..MOST + 5 {
            unseen.note(Unread::new("file", number.to_string(), "x", Weight::Partial));
        }
        unseen.note(Unread::new("services", "SYSTEM", "x", Weight::Critical));
        let list = unseen.list();
        assert_eq!((list.len(), list[0].weight), (MOST, Weight::Critical));
    }
}
