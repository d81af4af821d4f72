//! `vmrescue updates IMAGE`: packages, builds, what is pending, and the story of the last update.

use super::identity::{say_of, tell};
use super::settings::Settings;
use super::{CLEAN, Changing, Image, change, look, say};
use clap::{Args, Subcommand};
use serde_json::json;
use vmrescue_base::error::Result;
use vmrescue_windows::{Installation, Machine, Story, StoryLevel, Updates, update_story, updates};

/// What `updates` shows.
#[derive(Debug, Args)]
pub(super) struct UpdatesArgs {
    #[command(flatten)]
    image: Option<Image>,
    /// Everything that happened, sorted by time, instead of the packages
    #[arg(long)]
    story: bool,
    #[command(subcommand)]
    command: Option<UpdatesCommand>,
}

/// `vmrescue updates ...`
#[derive(Debug, Subcommand)]
enum UpdatesCommand {
    /// Set aside what an update left for the next start
    RevertPending {
        #[command(flatten)]
        image: Image,
        #[command(flatten)]
        changing: Changing,
    },
}

pub(super) fn run(args: UpdatesArgs) -> Result<u8> {
    match args.command {
        Some(UpdatesCommand::RevertPending { image, changing }) => revert(&image, &changing),
        None => {
            let image = args.image.as_ref().ok_or_else(super::no_image)?;
            show(image, args.story)
        }
    }
}

/// Reads everything; the event logs, which are large, only when they are wanted.
fn read(machine: &Machine, installation: &Installation, events: bool) -> Result<(Updates, Story)> {
    let found = updates(machine, installation)?;
    let story = update_story(machine, installation, &found, events)?;
    Ok((found, story))
}

/// Reverts, then tells what Windows will see.
fn revert(image: &Image, changing: &Changing) -> Result<u8> {
    let names = ["revert-pending-updates".to_string()];
    let code = change::repair(image, &names, &Settings::default(), &change::Using::default(), changing)?;
    if code == CLEAN && !image.json && !changing.dry_run && changing.target == "in-place" {
        let (_, machine, _) = look::open(image)?;
        let (_, story) = read(&machine, machine.installation(image.windows)?, false)?;
        say_next_start(&story)?;
    }
    Ok(code)
}

fn show(image: &Image, story_only: bool) -> Result<u8> {
    tell(image)?;
    let (_, machine, _) = look::open(image)?;
    let installation = machine.installation(image.windows)?;
    let (found, story) = read(&machine, installation, story_only || image.json)?;
    if image.json {
        let version =
            json!({"product": installation.product, "build": installation.build, "ubr": installation.ubr});
        let mut document = json!({"windows": version, "verdict": story.verdict, "pending": found.pending});
        document["next_start"] = json!(story.next_start);
        if !story_only {
            document["packages"] = json!(found.packages);
            document["builds"] = json!(found.builds);
            document["sessions"] = json!(found.sessions);
            document["windows_update"] = json!(found.agent);
        }
        document["story"] = json!(story);
        say_of(image, "updates", document)?;
        return Ok(CLEAN);
    }
    say(&look::describe(installation))?;
    story.verdict.iter().try_for_each(|line| say(&format!("  * {line}")))?;
    if story_only {
        say_lines(&story)?;
    } else {
        say_packages(&found)?;
        found.pending.iter().try_for_each(|line| say(&format!("pending: {line}")))?;
    }
    say_next_start(&story)?;
    story.problems.iter().try_for_each(|line| say(&format!("not read: {line}"))).map(|()| CLEAN)
}

fn second(time: Option<&str>) -> String {
    time.map_or("-".into(), |time| time.get(..19).unwrap_or(time).replace('T', " "))
}

fn say_packages(found: &Updates) -> Result<()> {
    if !found.builds.is_empty() {
        say("\nBuilds")?;
    }
    for step in &found.builds {
        let what = step.product.as_deref().or(step.kb.as_deref()).unwrap_or_default();
        let state = step.state.unwrap_or("upgraded from");
        say(&format!("{:<19}  {:<12} {:<17} {what}", second(step.time.as_deref()), step.build, state))?;
    }
    say("\nPackages")?;
    for package in &found.packages {
        let mark = if package.orphaned { "  ! orphaned" } else { "" };
        let kb = package.kb.as_deref().unwrap_or("-");
        let when = second(package.installed.as_deref());
        say(&format!("{:<19}  {kb:<10} {when:<19}  {}{mark}", package.state_name, package.identity))?;
    }
    let open = found.sessions.iter().filter(|session| !session.complete).count();
    if !found.sessions.is_empty() {
        say(&format!("\n{} sessions, {open} of them not finished", found.sessions.len()))?;
    }
    Ok(())
}

fn say_lines(story: &Story) -> Result<()> {
    say("")?;
    for line in &story.lines {
        let mark = match line.level {
            StoryLevel::Info => ' ',
            StoryLevel::Warning => '*',
            StoryLevel::Error => '!',
        };
        let source = line.source.rsplit('\\').next().unwrap_or_default();
        say(&format!("{:<19} {mark} {source:<16} {}", second(line.time.as_deref()), line.text))?;
    }
    if let Some(pending) = &story.pending_xml {
        say("\npending.xml would change")?;
        for file in pending.files.iter().take(20) {
            let mark = if file.boot { '!' } else { ' ' };
            say(&format!("{mark} {:<14} {}", file.kind, file.target))?;
        }
        if pending.files.len() > 20 {
            say(&format!("  and {} files more: --json", pending.files.len() - 20))?;
        }
    }
    Ok(())
}

fn say_next_start(story: &Story) -> Result<()> {
    say("\nAt the next start")?;
    story.next_start.iter().try_for_each(|line| say(&format!("  - {line}")))
}
