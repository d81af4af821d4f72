//! What a batch shows while it runs: on a terminal a line for each running image and a total with the time left, elsewhere plain lines.

use super::{agreed, batch, say_error};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use vmrescue_base::error::Result;
use vmrescue_batch::{Entry, State, Watch};

/// Most changes of the canaries that are shown.
const SHOWN: usize = 40;

/// The lines of one batch.
pub(super) struct Lines<'a> {
    bars: Option<MultiProgress>,
    total: ProgressBar,
    running: Mutex<BTreeMap<PathBuf, ProgressBar>>,
    yes: bool,
    state: &'a State,
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl<'a> Lines<'a> {
    pub(super) fn new(images: usize, yes: bool, state: &'a State) -> Lines<'a> {
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let total = ProgressBar::with_draw_target(Some(images as u64), ProgressDrawTarget::hidden());
        total.set_style(style("{bar:30} {pos}/{len} images, {elapsed} so far, {eta} left"));
        let bars = terminal.then(|| {
            let bars = MultiProgress::new();
            bars.add(total.clone());
            bars
        });
        Lines { bars, total, running: Mutex::new(BTreeMap::new()), yes, state }
    }

    /// Takes the bars away.
    pub(super) fn finish(&self) {
        self.total.finish_and_clear();
    }

    fn tell(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let _shown = bars.println(text);
            }
            None => say_error(text),
        }
    }

    /// What the scripts changed on the images of a wave, the same change on several images once.
    fn show_changes(&self, entries: &[Entry]) -> Result<()> {
        let mut changes: BTreeMap<String, usize> = BTreeMap::new();
        for entry in entries {
            let document = self.state.document(&entry.image)?;
            for change in document["plan"].as_array().into_iter().flatten().filter_map(|text| text.as_str()) {
                *changes.entry(change.to_string()).or_default() += 1;
            }
        }
        self.tell("changed so far:");
        for (change, count) in changes.iter().take(SHOWN) {
            self.tell(&format!("  {count:>4} x  {change}"));
        }
        if changes.is_empty() {
            self.tell("  nothing");
        } else if changes.len() > SHOWN {
            self.tell(&format!("  and {} other changes: see the reports", changes.len() - SHOWN));
        }
        Ok(())
    }
}

impl Watch for Lines<'_> {
    fn begun(&self, image: &Path) {
        let Some(bars) = &self.bars else { return };
        let bar = bars.insert_before(&self.total, ProgressBar::new_spinner());
        bar.set_style(style("{spinner} {elapsed:>4}  {msg}"));
        bar.set_message(image.display().to_string());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(image.to_path_buf(), bar);
    }

    fn ended(&self, entry: &Entry, done: usize, total: usize) {
        let bar = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&entry.image);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        self.tell(&format!("{done}/{total}  {}", batch::line(entry)));
        self.total.set_length(total as u64);
        self.total.set_position(done as u64);
    }

    fn wave(&self, entries: &[Entry], canary: bool, left: usize) -> Result<bool> {
        if !canary {
            return Ok(true);
        }
        self.show_changes(entries)?;
        let question = format!("{} canaries went well; go on with {left} images?", entries.len());
        match &self.bars {
            Some(bars) => bars.suspend(|| agreed(self.yes, &question)),
            None => agreed(self.yes, &question),
        }
    }
}
