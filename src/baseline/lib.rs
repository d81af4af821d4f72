//! What a machine is set up like, as data: taken from a golden image, held against others, judged by a policy.
//!
//! Missing: files and their hashes beyond drivers, local policy, scheduled tasks.

mod compare;
mod facts;
mod policy;

pub use compare::{Difference, compare};
pub use facts::{Baseline, baseline};
pub use policy::{Level, Policy, Rule};
