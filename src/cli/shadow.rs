//! `vmrescue shadow list`: the shadow copies of all volumes, with the fields that `vssadmin list shadows` and `vssadmin list
//! shadowstorage` show.

use super::identity::{say_of, tell};
use super::look::{defect_json, open};
use super::times::{time_json, time_text};
use super::{CLEAN, FINDINGS, Image, say, say_error, size};
use clap::Subcommand;
use serde_json::{Value, json};
use vmrescue_base::error::Result;
use vmrescue_fs::NodeId;
use vmrescue_fs::shadow::{ShadowCopy, Shadows};
use vmrescue_windows::Volume;

/// `vmrescue shadow ...`
#[derive(Debug, Subcommand)]
pub(super) enum ShadowCommand {
    /// The shadow copies of all volumes, oldest first; C:@2\... is in the second one of C:
    List {
        #[command(flatten)]
        image: Image,
    },
}

pub(super) fn run(command: &ShadowCommand) -> Result<u8> {
    match command {
        ShadowCommand::List { image } => list(image),
    }
}

/// Bytes that a store takes: many catalogs do not say, but it is a file.
fn allocated(volume: &Volume, copy: &ShadowCopy) -> Option<u64> {
    if copy.allocated_bytes > 0 {
        return Some(copy.allocated_bytes);
    }
    let fs = volume.fs.as_ref().filter(|_| copy.file != 0)?;
    // A figure for people: without the file there is none.
    fs.metadata(NodeId(copy.file)).ok().map(|found| found.allocated_bytes)
}

fn name_of(volume: &Volume) -> String {
    volume.letter.map_or_else(|| format!("#{}:", volume.number), |letter| format!("{letter}:"))
}

fn list(image: &Image) -> Result<u8> {
    let (_, machine, _) = open(image)?;
    let (mut volumes, mut code) = (Vec::new(), CLEAN);
    for (index, volume) in machine.volumes.iter().enumerate() {
        // One volume that cannot be read hides nothing of the others.
        match machine.shadows(index) {
            Ok(None) => {}
            Ok(Some(shadows)) => {
                if !shadows.defects.is_empty() || shadows.copies.iter().any(|copy| copy.problem.is_some()) {
                    code = FINDINGS;
                }
                volumes.push((volume, Ok(shadows)));
            }
            Err(e) => {
                code = FINDINGS;
                volumes.push((volume, Err(e)));
            }
        }
    }
    if image.json {
        let list: Vec<Value> = volumes
            .iter()
            .map(|(volume, shadows)| match shadows {
                Ok(shadows) => volume_json(volume, shadows),
                Err(e) => {
                    json!({"volume": name_of(volume), "partition": volume.number, "error": e.to_string()})
                }
            })
            .collect();
        say_of(image, "shadow", json!({"volumes": list}))?;
        return Ok(code);
    }
    tell(image)?;
    let mut count = 0;
    for (volume, shadows) in &volumes {
        let shadows = match shadows {
            Ok(shadows) => shadows,
            Err(e) => {
                say_error(&format!("the shadow copies of {} cannot be read: {e}", name_of(volume)));
                continue;
            }
        };
        count += shadows.copies.len();
        say_volume(volume, shadows)?;
    }
    if count == 0 && code == CLEAN {
        say("no shadow copies")?;
    }
    Ok(code)
}

fn say_volume(volume: &Volume, shadows: &Shadows) -> Result<()> {
    let name = name_of(volume);
    let used: u64 = shadows.copies.iter().filter_map(|copy| allocated(volume, copy)).sum();
    let most = if shadows.maximum_bytes == 0 { "no limit".into() } else { size(shadows.maximum_bytes) };
    say(&format!(
        "{name}  {} shadow copies, {} allocated, maximum {most}",
        shadows.copies.len(),
        size(used)
    ))?;
    for copy in &shadows.copies {
        say(&format!("  {name}@{}  {}", copy.number, time_text(copy.created)))?;
        say(&format!("    Shadow Copy ID       {{{}}}", copy.id))?;
        say(&format!("    Shadow Copy Set ID   {{{}}}", copy.set))?;
        say(&format!("    Store                {{{}}}", copy.store))?;
        say(&format!("    Originating Machine  {}", copy.originating_machine))?;
        say(&format!("    Service Machine      {}", copy.service_machine))?;
        say(&format!("    Type                 {}", copy.kind()))?;
        say(&format!("    Attributes           {}", copy.attribute_names().join(", ")))?;
        say(&format!("    Volume size          {} bytes", copy.volume_bytes))?;
        if let Some(problem) = &copy.problem {
            say(&format!("    cannot be read: {problem}"))?;
        }
    }
    shadows.defects.iter().try_for_each(|defect| say(&format!("  {}: {defect}", defect.severity.name())))
}

fn volume_json(volume: &Volume, shadows: &Shadows) -> Value {
    json!({
        "volume": name_of(volume), "partition": volume.number, "maximum_bytes": shadows.maximum_bytes,
        "volume_id": shadows.volume_id.to_string(), "storage_volume_id": shadows.storage_id.to_string(),
        "copies": shadows.copies.iter().map(|copy| copy_json(volume, copy)).collect::<Vec<Value>>(),
        "defects": shadows.defects.iter().map(defect_json).collect::<Vec<Value>>(),
    })
}

fn copy_json(volume: &Volume, copy: &ShadowCopy) -> Value {
    json!({
        "number": copy.number, "path": format!("{}@{}", name_of(volume), copy.number),
        "id": copy.id.to_string(), "set_id": copy.set.to_string(), "store_id": copy.store.to_string(),
        "created": time_json(copy.created), "volume_bytes": copy.volume_bytes, "allocated_bytes": allocated(volume, copy),
        "type": copy.kind(), "context": copy.context, "attributes": copy.attributes,
        "attribute_names": copy.attribute_names(), "originating_machine": copy.originating_machine,
        "service_machine": copy.service_machine, "problem": copy.problem,
    })
}
