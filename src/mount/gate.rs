//! The gate between changes and publishing: any number of changes are inside at the same time, or one publisher.
//!
//! Unlike a read-write lock it can be asked without waiting, and a thread that is inside may go in again, so that a door can
//! hand a change to another thread instead of waiting, and then run it by the same functions as ever.

use super::tree::lock;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

thread_local! {
    /// How often this thread is inside. Of one session: no thread works for two.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

#[derive(Default)]
struct State {
    inside: usize,
    shut: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

/// Inside, until dropped, and by the same thread.
pub(super) struct Inside<'g>(&'g Gate, PhantomData<*const ()>);

/// Alone, until dropped.
pub(super) struct Shut<'g>(&'g Gate);

impl Gate {
    fn enter_as(&self, again: bool, mut state: MutexGuard<'_, State>) -> Inside<'_> {
        if !again {
            state.inside += 1;
        }
        INSIDE.set(INSIDE.get() + 1);
        Inside(self, PhantomData)
    }

    /// Goes in, when nobody publishes.
    pub(super) fn enter(&self) -> Inside<'_> {
        let mut state = lock(&self.state);
        let again = INSIDE.get() > 0;
        while state.shut && !again {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.enter_as(again, state)
    }

    /// The same; `None` instead of waiting.
    pub(super) fn try_enter(&self) -> Option<Inside<'_>> {
        let state = lock(&self.state);
        let again = INSIDE.get() > 0;
        (again || !state.shut).then(|| self.enter_as(again, state))
    }

    /// Waits until nobody is inside, and keeps everybody out.
    pub(super) fn shut(&self) -> Shut<'_> {
        let mut state = lock(&self.state);
        while state.shut {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.shut = true;
        while state.inside > 0 {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Shut(self)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get().saturating_sub(1));
        if INSIDE.get() == 0 {
            lock(&self.0.state).inside -= 1;
            self.0.moved.notify_all();
        }
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).shut = false;
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    #[test]
    fn a_publisher_is_alone_and_nobody_waits_for_itself() {
        let gate = Arc::new(Gate::default());
        let published = Arc::new(AtomicBool::new(false));
        let inside = gate.enter();
        let publisher = {
            let (gate, published) = (Arc::clone(&gate), Arc::clone(&published));
            std::thread::spawn(move || {
                let _alone = gate.shut();
                published.store(true, Ordering::SeqCst);
            })
        };
        // Once somebody waits to publish others stay out, and who is inside goes in again.
        let another = Arc::clone(&gate);
        let refused = std::thread::spawn(move || {
            while another.try_enter().is_some() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        refused.join().unwrap();
        drop(gate.enter());
        assert!(gate.try_enter().is_some() && !published.load(Ordering::SeqCst));
        drop(inside);
        publisher.join().unwrap();
        assert!(published.load(Ordering::SeqCst) && gate.try_enter().is_some());
    }
}
