//! Repairs as data: scripts are planned into [`Change`]s, staged, verified by readers that share no code with our
//! writers, and published as one operation.

mod account;
mod bare;
mod boot_record;
mod change;
mod content;
mod coverage;
mod ending;
mod file_system;
mod first_boot;
mod fixes;
mod hive_content;
mod hive_cure;
mod key_path;
mod packages;
mod plan;
mod postcondition;
mod rebuild_boot;
mod run;
mod script;
mod second_fat;
mod second_hive;
mod sectors;
mod shadow_copies;
mod source;
mod stage;
mod system_partition;
mod verify;
#[cfg(test)]
mod verify_tests;
mod volumes;

pub use bare::{Rebuilt, apply as apply_to_hive, read_hive, replace_hive, run_on_hive};
pub use boot_record::write_boot_record;
pub use change::{Change, Detail, Secrets, words_in};
pub use content::Content;
pub use coverage::{Coverage, coverage, coverage_page};
pub use ending::{Ending, Missing};
pub use file_system::{Making, format_volume, repair_file_system, repair_file_systems};
pub use fixes::{FixPlan, FixPlans, run_fixes};
pub use hive_cure::{Cured, copy_of_hive, cure_hive};
pub use key_path::{KeyPath, key_path, plain_root};
pub use packages::Package;
pub use plan::{Context, Planned, plan, plan_on_disk, plan_with, registry_data};
pub use rebuild_boot::{rebuild_boot, store_bytes, store_changes};
pub use run::{Gate, Options, Outcome, Target, open_staged, run_changes, run_script};
pub use script::{
    Action, BcdCondition, Condition, Loop, Parameter, ParameterCondition, ParameterType, RegistryCondition,
    Script, Step, shipped,
};
pub use sectors::{
    clear_attributes, copy_boot_code, plan_sectors, repair_boot_sector, repair_gpt, restore_partitions,
    set_active, set_type,
};
pub use source::{Donor, Source};
pub use system_partition::repair_system_partition;
pub use verify::Verdict;
pub use volumes::{Discard, with_unfinished};
