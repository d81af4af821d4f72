//! `baseline`: what a golden image is set up like, and what differs from it.

use super::identity::say_of;
use super::output::Output;
use super::{CLEAN, FINDINGS, Image, look, say, say_json};
use clap::Subcommand;
use serde_json::json;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_baseline::{Baseline, Level, Policy, baseline, compare};

/// `vmrescue baseline ...`
#[derive(Debug, Subcommand)]
pub(super) enum BaselineCommand {
    /// Write what an image is set up like: boot configuration, services, drivers, packages, security settings
    Create {
        #[command(flatten)]
        image: Image,
        /// File to write
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Hold an image against a baseline; exit 1 when something that matters differs
    Compare {
        #[command(flatten)]
        image: Image,
        /// The baseline
        golden: PathBuf,
        /// What matters: a TOML file with rules (area, name, level = fail, note or ignore)
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
}

pub(super) fn run(command: BaselineCommand) -> Result<u8> {
    match command {
        BaselineCommand::Create { image, out, output } => create(&image, &out, output),
        BaselineCommand::Compare { image, golden, policy } => against(&image, &golden, policy.as_deref()),
    }
}

fn of(image: &Image) -> Result<Baseline> {
    let (_, machine, _) = look::open(image)?;
    baseline(&machine, machine.installation(image.windows)?)
}

fn create(image: &Image, out: &Path, output: Output) -> Result<u8> {
    let rules = output.rules(image)?;
    rules.check(out)?;
    let found = of(image)?;
    let text = serde_json::to_string_pretty(&found)
        .map_err(|e| Error::invalid(Layer::Cli, "the baseline cannot be written").caused_by(e))?;
    rules.write(out, (text + "\n").as_bytes())?;
    if image.json {
        say_json("baseline-created", json!({"file": out}))?;
    } else {
        let counts: Vec<String> =
            found.areas.iter().map(|(area, values)| format!("{area} {}", values.len())).collect();
        say(&format!("{}: {}", out.display(), counts.join(", ")))?;
    }
    Ok(CLEAN)
}

fn against(image: &Image, golden: &Path, policy: Option<&Path>) -> Result<u8> {
    let golden = Baseline::read(golden)?;
    let policy = policy.map(Policy::read).transpose()?.unwrap_or_default();
    let list = compare(&golden, &of(image)?, &policy);
    let failed = list.iter().filter(|difference| difference.level == Level::Fail).count();
    if image.json {
        say_of(image, "baseline", json!({"differences": list, "failed": failed}))?;
    } else {
        for d in &list {
            let word = if d.level == Level::Fail { "differs" } else { "note" };
            let (was, is) = (d.golden.as_deref().unwrap_or("-"), d.here.as_deref().unwrap_or("-"));
            let reason = if d.reason.is_empty() { String::new() } else { format!("  ({})", d.reason) };
            say(&format!("{word:<8} {:<9} {}: {was} -> {is}{reason}", d.area, d.name))?;
        }
        say(&format!("{} differences, {failed} that matter", list.len()))?;
    }
    Ok(if failed == 0 { CLEAN } else { FINDINGS })
}
