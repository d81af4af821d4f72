//! Bars on a terminal, for work that takes longer than a quarter of a second.

use super::stop::{self, Doing};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use vmrescue_base::progress::Progress;

/// Draws one bar for each phase.
pub(super) struct Bars {
    current: Mutex<Option<(ProgressBar, Instant)>>,
}

impl Bars {
    pub(super) fn new() -> Bars {
        Bars { current: Mutex::new(None) }
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, total: Option<u64>) {
        match what {
            "writing the journal" | "writing the image" => stop::doing(Doing::Publishing),
            "converting" | "copying the disk" => stop::doing(Doing::Copying),
            _ => {}
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template =
            if total.is_some() { "{msg:28} {bar:30} {percent:>3}%  {eta}" } else { "{msg:28} {spinner}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_string());
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((bar, Instant::now()));
    }

    fn advance(&self, amount: u64) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((bar, begun)) = current.as_ref() {
            let quiet = std::env::var_os("NO_COLOR").is_some() || !std::io::stderr().is_terminal();
            if bar.is_hidden() && !quiet && begun.elapsed() > Duration::from_millis(250) {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            bar.inc(amount);
        }
    }

    fn end(&self) {
        if let Some((bar, _)) = self.current.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
        stop::doing(Doing::Planning);
    }

    fn cancelled(&self) -> bool {
        stop::is_asked()
    }
}
