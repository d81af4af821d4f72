//! Changes that come while an operation is published: they wait in a thread of their own, so that the threads that answer the
//! kernel go on answering readers.

use crate::gate::Inside;
use crate::session::Session;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use vmrescue_base::error::{Error, Result};

type Work = Box<dyn FnOnce() + Send>;

/// The way to the thread; it ends when this is dropped and everything is done.
pub(super) struct Later {
    queue: Sender<Work>,
    waiting: Arc<AtomicUsize>,
}

impl Later {
    /// Starts the thread.
    ///
    /// # Errors
    /// Of the host.
    pub(super) fn start() -> Result<(Later, JoinHandle<()>)> {
        let (queue, works) = channel::<Work>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("mount-later".into())
            .spawn(move || {
                for work in works {
                    work();
                    count.fetch_sub(1, Ordering::SeqCst);
                }
            })
            .map_err(|e| Error::io("no thread", "the mount", e))?;
        Ok((Later { queue, waiting }, thread))
    }

    /// Leave to run a change at once: nobody publishes, and will not before this is dropped; nothing came before.
    pub(super) fn go<'s>(&self, session: &'s Session) -> Option<Inside<'s>> {
        if self.waiting.load(Ordering::SeqCst) == 0 { session.try_enter() } else { None }
    }

    /// Runs a change: at once when it may go, else later, in the order in which they came. Each
    /// request has a caller that waits, or is one of the kernel's few dozens in the background: so the queue is bounded.
    pub(super) fn run(&self, session: &Session, work: impl FnOnce() + Send + 'static) {
        if let Some(_inside) = self.go(session) {
            return work();
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // Nobody listens only when the thread has died; the request then ends with an error by itself.
        drop(self.queue.send(Box::new(work)));
    }
}
