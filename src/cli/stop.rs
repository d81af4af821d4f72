//! Ctrl-C and SIGTERM: asked once, what is running is finished; asked twice, the program ends at once (and a crash loses nothing).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static SET: OnceLock<bool> = OnceLock::new();

/// A flag that becomes true when the user asks to stop.
pub(super) fn on_request() -> &'static AtomicBool {
    SET.get_or_init(|| {
        let asked = || {
            if STOP.swap(true, Ordering::SeqCst) {
                super::say_error("stopped at once; what was begun is finished by the next run");
                leave();
            }
            super::say_error("finishing what is running; once more stops at once");
        };
        ctrlc::set_handler(asked).is_ok()
    });
    &STOP
}

/// The request was heard, and something else waits for one: the next counts as the first again.
pub(super) fn once_more() {
    STOP.store(false, Ordering::SeqCst);
}

/// A worker leaves the signal to the batch that began it: the terminal sends it to both.
pub(super) fn ignore() {
    SET.get_or_init(|| ctrlc::set_handler(|| {}).is_ok());
}

#[expect(clippy::exit, reason = "the user asked twice; every write is safe against a crash")]
fn leave() {
    std::process::exit(130);
}
