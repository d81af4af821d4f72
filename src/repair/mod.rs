//! Repairs as data: scripts are planned into [`Change`]s, staged, verified by readers that share no code with our
//! writers, and published as one operation.
//!
//! Missing: loops and conditions in scripts, BCD steps, sources beyond the component store.

mod bare;
mod change;
mod key_path;
mod run;
mod script;
mod stage;
mod verify;

pub use bare::{read_hive, replace_hive, run_on_hive};
pub use change::Change;
pub use key_path::{KeyPath, key_path};
pub use run::{Options, Outcome, Target, open_staged, run_changes, run_script};
pub use script::{Parameter, Script, Step, plan, registry_data, shipped};
pub use verify::Verdict;
