//! Files that commands make for the user: one way for all of them, which spares the image ([`OutputRules`]).

use super::{Image, stop};
use clap::Args;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, ErrorKind, Result};
use vmrescue_block::OutputRules;
use vmrescue_image::{self as image, OpenOptions};
use vmrescue_transaction::state_dir_of;

/// What may happen to files that are there.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct Output {
    /// Replace files that are there (never the image, its parents or its history)
    #[arg(long)]
    force: bool,
}

impl Output {
    /// For commands that open no image; what they read is protected by the caller.
    pub(super) fn plain(self) -> OutputRules {
        stop::clean_up();
        OutputRules::new(self.force)
    }

    /// What may be made of an image.
    ///
    /// # Errors
    /// Of the host and of the chain of parents.
    pub(super) fn rules(self, image: &Image) -> Result<OutputRules> {
        stop::clean_up();
        let options = OpenOptions { parents: image.parent.clone(), follow_paths: image.follow_paths };
        let parents = match image::parents(&image.image, &options) {
            Ok(parents) => parents,
            // A parent that is not there cannot be written over; what is no container has none.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Damaged) => Vec::new(),
            Err(e) => return Err(e),
        };
        let rules = of_chain(OutputRules::new(self.force), &image.image, &parents)?;
        // A hive's logs are part of it.
        [".LOG", ".LOG1", ".LOG2", ".log", ".log1", ".log2"].iter().try_fold(rules, |rules, suffix| {
            let mut name = image.image.as_os_str().to_os_string();
            name.push(suffix);
            rules.protect(Path::new(&name), "this is a log of the hive")
        })
    }
}

/// Spares an image and its parents, named or found, with what is kept beside them.
fn of_chain(rules: OutputRules, image: &Path, parents: &[PathBuf]) -> Result<OutputRules> {
    let rules = rules.of_image(image)?;
    let rules = parents.iter().try_fold(rules, |rules, parent| rules.of_parent(parent))?;
    std::iter::once(image).chain(parents.iter().map(PathBuf::as_path)).try_fold(rules, |rules, file| {
        rules.protect_folder(&state_dir_of(file, None), "this folder holds the history of an image")
    })
}

/// The files of a batch, in its own folder: made again with every run, and as private as the most private of its images.
///
/// # Errors
/// Of the host.
pub(super) fn of_batch<'a>(images: impl Iterator<Item = &'a Path>) -> Result<OutputRules> {
    stop::clean_up();
    let mut rules = OutputRules::new(true);
    for image in images {
        match of_chain(rules.clone(), image, &[]) {
            Ok(with) => rules = with,
            // An image that is not there cannot be written over.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(rules)
}

/// An error of writing to the file at `path`, for writers that speak of [`std::io::Error`].
pub(super) fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |e| Error::io("cannot be written", path, e)
}
