//! Repairs as data: scripts are planned into [`Change`]s, staged, verified by readers that share no code with our
//! writers, and published as one operation.
//!
//! Missing: loops and conditions in scripts, BCD steps, sources beyond the component store.

mod bare;
mod change;
mod coverage;
mod first_boot;
mod key_path;
mod rebuild_boot;
mod run;
mod script;
mod sectors;
mod stage;
mod verify;

pub use bare::{read_hive, replace_hive, run_on_hive};
pub use change::Change;
pub use coverage::{Coverage, coverage};
pub use key_path::{KeyPath, key_path};
pub use rebuild_boot::{rebuild_boot, store_bytes, store_changes};
pub use run::{Gate, Options, Outcome, Target, open_staged, run_changes, run_script};
pub use script::{Parameter, Script, Step, plan, registry_data, shipped};
pub use sectors::{copy_boot_code, plan_sectors, repair_boot_sector, repair_gpt, set_active, set_type};
pub use verify::Verdict;
