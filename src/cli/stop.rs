//! Ctrl-C and SIGTERM: what the program was doing decides what it leaves, and it says so.
//!
//! Ahead of the first write it ends at once. While an image is being written it finishes; asked twice it ends at once, and
//! `recover` finishes the rest. Long copying stops by itself and removes what it made. A batch and a mount look at the flag.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static SET: OnceLock<bool> = OnceLock::new();
static DOING: AtomicU8 = AtomicU8::new(Doing::Planning as u8);

/// What the program is doing, as far as a request to stop has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Doing {
    /// Reading, planning, asking: nothing was written.
    Planning,
    /// Copying into a new file: it asks, stops and removes it.
    Copying,
    /// Writing journal and image, from the first byte until the program ends.
    Publishing,
    /// Giving a disk to other programs.
    Serving,
    /// Whoever is at work looks at the flag.
    Asking,
}

/// Notes what the program is doing now. Once an image is being written it stays with that.
pub(super) fn doing(what: Doing) {
    let kept = [Doing::Publishing as u8, Doing::Asking as u8];
    // Only a note for messages: that another thread comes between does no harm.
    if !kept.contains(&DOING.load(Ordering::SeqCst)) {
        DOING.store(what as u8, Ordering::SeqCst);
    }
}

fn asked() {
    let again = STOP.swap(true, Ordering::SeqCst);
    let now = DOING.load(Ordering::SeqCst);
    if now == Doing::Planning as u8 {
        super::say_error("interrupted; nothing was written to the image");
        leave();
    } else if now == Doing::Serving as u8 {
        super::say_error("interrupted; what clients flushed is in the image, the rest is not");
        leave();
    } else if !again && now == Doing::Publishing as u8 {
        super::say_error(
            "the image is being written: finishing. Once more stops at once, and leaves the image between two states until \
             `vmrescue recover IMAGE`",
        );
    } else if !again && now == Doing::Copying as u8 {
        super::say_error("stopping; the file that was being made is removed");
    } else if !again {
        super::say_error("finishing what is running; once more stops at once");
    } else if now == Doing::Publishing as u8 {
        super::say_error(
            "stopped at once: the image may be between two states; run `vmrescue recover IMAGE`",
        );
        leave();
    } else {
        super::say_error("stopped at once; what was begun is finished by the next run");
        leave();
    }
}

/// Listens to requests, from the start of the program on.
pub(super) fn listen() {
    SET.get_or_init(|| ctrlc::set_handler(asked).is_ok());
}

/// From here on files are made: the end of the program takes away those that are not whole.
pub(super) fn clean_up() {
    listen();
}

/// A flag that becomes true when the user asks to stop, for those who look at it.
pub(super) fn on_request() -> &'static AtomicBool {
    DOING.store(Doing::Asking as u8, Ordering::SeqCst);
    listen();
    &STOP
}

/// True when the user asked to stop.
pub(super) fn is_asked() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// The request was heard, and something else waits for one: the next counts as the first again.
pub(super) fn once_more() {
    STOP.store(false, Ordering::SeqCst);
}

/// A worker leaves the signal to the batch that began it: the terminal sends it to both.
pub(super) fn ignore() {
    SET.get_or_init(|| ctrlc::set_handler(|| {}).is_ok());
}

#[expect(clippy::exit, reason = "the user asked; every write is safe against a crash")]
fn leave() {
    vmrescue_block::remove_unfinished();
    std::process::exit(130);
}
