//! How long work tells how far it is, without knowing about terminals.
//!
//! The library calls these methods; `cli/` draws bars from them, batch counts, tests use [`Silent`].

/// Receives the progress of one piece of work. All methods may be called from any thread.
pub trait Progress: Sync {
    /// A new phase begins; `total` in the unit of the phase (bytes unless the text says otherwise), if known.
    fn begin(&self, what: &str, total: Option<u64>);
    /// `amount` more of the phase is done.
    fn advance(&self, amount: u64);
    /// The phase is over.
    fn end(&self);
    /// True when the user wants to stop; long loops ask and return an error of kind `Interrupted`.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _amount: u64) {}
    fn end(&self) {}
}
