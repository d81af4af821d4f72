//! Several repairs as one operation, each on a ground of its own: one that cannot be made does not stop the others.

use super::change::Change;
use super::ending::Missing;
use super::run::{Options, Outcome, Target, publish, run_changes, tried};
use std::path::Path;
use vmrescue_base::error::{Error, ErrorKind, Result};
use vmrescue_base::progress::Progress;
use vmrescue_windows::Machine;

/// A repair with its own name.
#[derive(Debug, Clone)]
pub struct FixPlan {
    /// What it is called: the script.
    pub name: String,
    /// What it changes.
    pub changes: Vec<Change>,
}

/// What several repairs would do.
#[derive(Debug, Clone, Default)]
pub struct FixPlans {
    /// Those that can be planned.
    pub plans: Vec<FixPlan>,
    /// Those that cannot, and why.
    pub missing: Vec<Missing>,
}

impl FixPlans {
    /// Their changes, each once. What lies below the file systems comes first: it is planned on the disk as it is.
    pub fn changes(&self) -> Vec<Change> {
        joined(&self.plans.iter().collect::<Vec<_>>())
    }
}

fn joined(plans: &[&FixPlan]) -> Vec<Change> {
    let mut all: Vec<&Change> = Vec::new();
    for change in plans.iter().flat_map(|plan| &plan.changes) {
        if !all.contains(&change) {
            all.push(change);
        }
    }
    let below = |change: &&Change| {
        !matches!(
            change,
            Change::DiskWrite { .. }
                | Change::FileSystemRepair { .. }
                | Change::ReplayLog { .. }
                | Change::DiscardLog { .. }
                | Change::DiscardHibernation { .. }
        )
    };
    all.sort_by_key(below);
    all.into_iter().cloned().collect()
}

/// Runs the repairs that `planned` makes of the disk, as one operation. Each is staged on what the ones before it made; one that fails
/// there is left out and comes back with its reason.
///
/// # Errors
/// As [`run_changes`], but for errors of a single repair.
pub fn run_fixes(
    path: &Path,
    title: &str,
    planned: impl FnOnce(&Machine) -> Result<FixPlans>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<(Outcome, Vec<Missing>)> {
    let mut plans = FixPlans::default();
    if options.target != Target::InPlace {
        let one = |machine: &Machine| {
            plans = planned(machine)?;
            Ok(plans.changes())
        };
        let outcome = run_changes(path, title, one, options, progress)?;
        return Ok((outcome, plans.missing));
    }
    let all = |machine: &Machine| {
        plans = planned(machine)?;
        Ok(plans.changes())
    };
    let first = tried(path, all, options, progress);
    let failed = match first {
        Ok((staged, changes)) => {
            return Ok((publish(staged, title, changes, options, progress)?, plans.missing));
        }
        Err(e) => e,
    };
    // Not one of them is to blame for these.
    if plans.plans.is_empty()
        || matches!(failed.kind(), ErrorKind::Interrupted | ErrorKind::Io | ErrorKind::Busy)
    {
        return Err(failed);
    }
    let (kept, missing) = one_by_one(path, &plans, failed, options, progress)?;
    let changes = joined(&kept);
    let mut all = plans.missing.clone();
    all.extend(missing);
    if changes.is_empty() {
        return Ok((Outcome::none(), all));
    }
    let (staged, changes) = tried(path, |_| Ok(changes), options, progress)?;
    Ok((publish(staged, title, changes, options, progress)?, all))
}

/// The repairs that can be made together, and the others with their reasons.
fn one_by_one<'p>(
    path: &Path,
    plans: &'p FixPlans,
    failed: Error,
    options: &Options,
    progress: &dyn Progress,
) -> Result<(Vec<&'p FixPlan>, Vec<Missing>)> {
    if let [only] = plans.plans.as_slice() {
        return Ok((Vec::new(), vec![Missing::of(&only.name, &failed)]));
    }
    let (mut kept, mut missing) = (Vec::new(), Vec::new());
    for plan in &plans.plans {
        kept.push(plan);
        let changes = joined(&kept);
        match tried(path, |_| Ok(changes), options, progress) {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::Io | ErrorKind::Busy) => {
                return Err(e);
            }
            Err(e) => {
                kept.pop();
                missing.push(Missing::of(&plan.name, &e));
            }
        }
    }
    Ok((kept, missing))
}
