//! What differs between two runs, by image.

use super::state::{Entry, State};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// An image that is not the same in both runs.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Difference {
    /// The image.
    pub image: PathBuf,
    /// Outcome in the first run; nothing when it was not in it.
    pub was: Option<&'static str>,
    /// Outcome in the second run.
    pub is: Option<&'static str>,
    /// Rules that only the second run found.
    pub appeared: Vec<String>,
    /// Rules that only the first run found.
    pub gone: Vec<String>,
}

/// All images whose outcome or findings differ, by path.
pub fn diff(first: &State, second: &State) -> Vec<Difference> {
    let mut images: BTreeMap<PathBuf, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
    for entry in first.all() {
        let image = entry.image.clone();
        images.entry(image).or_default().0 = Some(entry);
    }
    for entry in second.all() {
        let image = entry.image.clone();
        images.entry(image).or_default().1 = Some(entry);
    }
    images.into_iter().filter_map(|(image, (was, is))| difference(image, was.as_ref(), is.as_ref())).collect()
}

fn difference(image: PathBuf, was: Option<&Entry>, is: Option<&Entry>) -> Option<Difference> {
    let empty = Vec::new();
    let old = was.map_or(&empty, |entry| &entry.rules);
    let new = is.map_or(&empty, |entry| &entry.rules);
    let only = |from: &[String], other: &[String]| -> Vec<String> {
        from.iter().filter(|rule| !other.contains(rule)).cloned().collect()
    };
    let found = Difference {
        image,
        was: was.map(|entry| entry.outcome.words()),
        is: is.map(|entry| entry.outcome.words()),
        appeared: only(new, old),
        gone: only(old, new),
    };
    let same = found.was == found.is && found.appeared.is_empty() && found.gone.is_empty();
    (!same).then_some(found)
}
