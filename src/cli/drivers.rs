//! `vmrescue drivers IMAGE`: services and drivers, what the boot needs first.

use super::identity::{say_of, tell};
use super::settings::Settings;
use super::{CLEAN, Changing, Image, change, look, say};
use clap::{Args, Subcommand};
use serde_json::json;
use vmrescue_base::error::Result;
use vmrescue_windows::{
    BootFile, Driver, DriverOptions, DriverReport, FilterPlace, Origin, Tie, Verdict, driver_report,
};

/// What `drivers` shows.
#[derive(Debug, Args)]
pub(super) struct DriversArgs {
    #[command(flatten)]
    image: Option<Image>,
    /// Another control set than the one of the next start
    #[arg(long, value_name = "N")]
    control_set: Option<u32>,
    /// Healthy services and drivers that start on demand, too
    #[arg(long)]
    all: bool,
    /// Only what the boot loader needs before the disk can be read
    #[arg(long)]
    boot: bool,
    /// Only filters of device classes and devices
    #[arg(long)]
    filters: bool,
    #[command(subcommand)]
    command: Option<DriversCommand>,
}

/// `vmrescue drivers ...`
#[derive(Debug, Subcommand)]
enum DriversCommand {
    /// Put a driver back to a healthy version of the component store
    Restore {
        #[command(flatten)]
        image: Image,
        /// File name or name of the service
        name: String,
        #[command(flatten)]
        using: change::Using,
        #[command(flatten)]
        changing: Changing,
    },
    /// Do not start a driver any more
    Disable {
        #[command(flatten)]
        image: Image,
        /// Name of the service
        name: String,
        #[command(flatten)]
        using: change::Using,
        #[command(flatten)]
        changing: Changing,
    },
}

impl DriversArgs {
    /// With `--hash` all drivers are hashed, looked for in the catalogs, and held against all copies in the store.
    fn hash(&self) -> bool {
        self.image.as_ref().is_some_and(|image| image.hash)
    }
}

pub(super) fn run(args: DriversArgs) -> Result<u8> {
    let (image, script, name, using, changing) = match args.command {
        Some(DriversCommand::Restore { image, name, using, changing }) => {
            (image, "restore-driver", name, using, changing)
        }
        Some(DriversCommand::Disable { image, name, using, changing }) => {
            (image, "disable-driver", name, using, changing)
        }
        None => {
            let image = args.image.as_ref().ok_or_else(super::no_image)?;
            return show(image, &args);
        }
    };
    let (names, set) = ([script.to_string()], Settings::of("name", &name));
    change::repair(&image, &names, &set, &using, &changing)
}

fn show(image: &Image, args: &DriversArgs) -> Result<u8> {
    tell(image)?;
    let (_, machine, _) = look::open(image)?;
    let installation = machine.installation(image.windows)?;
    let options = DriverOptions { control_set: args.control_set, hash: image.hash };
    // The loader's walk, for the control set that is asked for.
    let mut asked = installation.clone();
    asked.control_sets.default = args.control_set.unwrap_or(asked.control_sets.default);
    let chain = vmrescue_boot::walk(&machine, &asked)?;
    let mut report = driver_report(&machine, installation, options, &chain.wanted())?;
    for unread in &chain.unread {
        let note = format!("could not be read: {unread}");
        if !report.notes.contains(&note) {
            report.notes.insert(0, note);
        }
    }
    if image.json {
        say_of(image, "drivers", json!(report))?;
        return Ok(CLEAN);
    }
    let roles =
        if report.roles.is_empty() { String::new() } else { format!(" ({})", report.roles.join(", ")) };
    say(&format!("{}, control set {}{roles}", installation.path, report.control_set))?;
    if !args.filters {
        say_boot(&report, args)?;
    }
    if !args.boot {
        if !args.filters {
            say_services(&report, args)?;
        }
        say_filters(&report, args)?;
    }
    if !args.boot && !args.filters {
        say_other_sets(&report)?;
    }
    report.notes.iter().try_for_each(|note| say(&format!("note: {note}")))?;
    Ok(CLEAN)
}

/// A text cut to so many characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    text.chars().take(width.saturating_sub(1)).chain(['~']).collect()
}

fn say_boot(report: &DriverReport, args: &DriversArgs) -> Result<()> {
    let bad = report.boot_files.iter().filter(|file| file.verdict == Verdict::Bad).count();
    let check = report.boot_files.iter().filter(|file| file.verdict == Verdict::Check).count();
    let count = report.boot_files.len();
    say(&format!("\nNeeded before the disk can be read: {count} files, {bad} bad, {check} to check"))?;
    say(&format!("{:<6} {:<28} {:<18} {:>9}  {}", "", "file", "version", "bytes", "why"))?;
    for file in &report.boot_files {
        let facts = file.facts.as_ref();
        let version = facts.and_then(|facts| facts.version.as_deref()).unwrap_or("-");
        let size = facts.and_then(|facts| facts.size).map_or("-".into(), |size| size.to_string());
        let name = file.path.rsplit('\\').next().unwrap_or_default();
        say(&format!(
            "{:<6} {:<28} {:<18} {size:>9}  {}",
            file.verdict.name(),
            cut(name, 28),
            cut(version, 18),
            cut(&file.reason.text(), 40)
        ))?;
        if file.verdict != Verdict::Ok || args.hash() {
            say_details(file)?;
        }
    }
    Ok(())
}

fn say_details(file: &BootFile) -> Result<()> {
    for problem in &file.problems {
        say(&format!("       ! {problem}"))?;
    }
    say(&format!("         {}", file.path))?;
    let Some(facts) = &file.facts else { return Ok(()) };
    if let Some(sha256) = &facts.sha256 {
        say(&format!("         sha256 {sha256}"))?;
    }
    if let Some(hash) = &facts.authenticode_sha256 {
        say(&format!("         authenticode {hash}, {}", facts.signature.text()))?;
    }
    facts.store.as_ref().map_or(Ok(()), say_origin)
}

fn say_origin(origin: &Origin) -> Result<()> {
    let tie = match origin.tie {
        Tie::HardLink => "one file with",
        Tie::SameContent => "same content as",
        Tie::Differs => "differs from",
        Tie::NotInStore => return say("         the component store has no file of this name"),
    };
    say(&format!("         {tie} {}", origin.component.as_deref().unwrap_or("-")))?;
    for version in &origin.versions {
        let state = match (&version.problem, &version.pe) {
            (Some(problem), _) => problem.clone(),
            (None, Some(_)) => "whole".into(),
            (None, None) => "a PE file".into(),
        };
        let mark = if version.winner { "wins" } else { "" };
        let number = version.component_version.map(|part| part.to_string()).join(".");
        say(&format!("           store {number:<18} {mark:<5} {:>9} bytes, {state}", version.size))?;
    }
    Ok(())
}

fn is_shown(driver: &Driver, args: &DriversArgs) -> bool {
    // Most services start on demand, and most of those have nothing to say.
    args.all || driver.service.start != Some(3) || driver.has_problem()
}

fn say_services(report: &DriverReport, args: &DriversArgs) -> Result<()> {
    say("\nServices and drivers")?;
    say(&format!("{:<9} {:>4} {:<24} {:<18} {}", "start", "turn", "name", "version", "file"))?;
    let shown: Vec<&Driver> = report.services.iter().filter(|driver| is_shown(driver, args)).collect();
    for driver in &shown {
        let service = &driver.service;
        let turn = driver.load_order.map_or(String::new(), |turn| turn.to_string());
        let file = service.file.as_deref().unwrap_or(&service.image_path);
        let version = service.version.as_deref().unwrap_or("-");
        say(&format!(
            "{:<9} {turn:>4} {:<24} {:<18} {file}",
            service.start_name(),
            cut(&service.name, 24),
            cut(version, 18)
        ))?;
        let mut problems = service.problem.iter().chain(&driver.dependency_problems);
        problems.try_for_each(|problem| say(&format!("               ! {problem}")))?;
        if args.hash()
            && let Some(facts) = driver.image.as_ref().filter(|facts| facts.sha256.is_some())
        {
            say(&format!("               {}", facts.signature.text()))?;
        }
    }
    let hidden = report.services.len() - shown.len();
    if hidden > 0 {
        say(&format!("({hidden} more start on demand: --all)"))?;
    }
    Ok(())
}

fn say_filters(report: &DriverReport, args: &DriversArgs) -> Result<()> {
    let shown: Vec<_> = report
        .filters
        .iter()
        .filter(|f| args.filters || args.all || f.problem.is_some() || (f.boot && f.device.is_none()))
        .collect();
    if shown.is_empty() {
        return say("\nNo filters");
    }
    say("\nFilters")?;
    for filter in shown {
        let place = if filter.place == FilterPlace::Upper { "upper" } else { "lower" };
        let of = filter.device.as_deref().unwrap_or(if filter.class_name.is_empty() {
            &filter.class
        } else {
            &filter.class_name
        });
        let mark = match &filter.problem {
            Some(problem) if filter.boot => format!("! {problem}: 0x7B when the device is the boot disk's"),
            Some(problem) => format!("! {problem}"),
            None => String::new(),
        };
        say(&format!("{place:<6} {:<24} of {:<30} {mark}", cut(&filter.driver, 24), cut(of, 60)))?;
    }
    Ok(())
}

fn say_other_sets(report: &DriverReport) -> Result<()> {
    for set in &report.other_control_sets {
        let roles = if set.roles.is_empty() { String::new() } else { format!(" ({})", set.roles.join(", ")) };
        say(&format!(
            "\nControl set {}{roles}: {} services, {} other than here",
            set.number,
            set.services,
            set.differences.len()
        ))?;
        let start = |start: Option<u32>| start.map_or("-".to_string(), |start| start.to_string());
        for difference in set.differences.iter().take(20) {
            let path = if difference.image_path_differs { ", another file" } else { "" };
            say(&format!(
                "  {:<24} start {} here, {} there{path}",
                cut(&difference.name, 24),
                start(difference.start),
                start(difference.other_start)
            ))?;
        }
    }
    Ok(())
}
