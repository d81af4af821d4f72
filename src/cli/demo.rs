//! The whole story on a disk made for it: build, break, diagnose, repair, prove, undo, compare.

use super::progress::Bars;
use super::{CLEAN, ERROR, say, size};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;
use std::time::Instant;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_demo::{ACPI_VERSIONS, Fault, break_it, build};
use vmrescue_diagnose::diagnose;
use vmrescue_image::{Kind, OpenOptions, open_path};
use vmrescue_repair::{Change, Options, plan, run_changes, shipped};
use vmrescue_transaction as transaction;
use vmrescue_windows::Machine;

fn sha256(path: &Path) -> Result<String> {
    let failed = |e| Error::io("cannot be read", path, e);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut hash, mut buf) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buf).map_err(failed)? {
            0 => return Ok(vmrescue_base::text::hex(&hash.finalize())),
            count => hash.update(&buf[..count]),
        }
    }
}

fn machine(path: &Path) -> Result<Machine> {
    Machine::open(open_path(path, &OpenOptions::default())?.disk)
}

/// The safe fixes of everything that is found.
fn fixes(machine: &Machine) -> Result<Vec<Change>> {
    let (installation, scripts) = (machine.installation(None)?, shipped()?);
    let mut list = Vec::new();
    for fix in diagnose(machine, installation)?.iter().filter_map(|finding| finding.fix.as_ref()) {
        let script = scripts.iter().find(|script| script.name == fix.script);
        let script = script.ok_or_else(|| Error::not_found(Layer::Script, fix.script.clone()))?;
        list.extend(plan(machine, installation, script, &fix.parameters)?);
    }
    Ok(list)
}

pub(super) fn demo(dir: Option<&Path>) -> Result<u8> {
    let begun = Instant::now();
    let temporary = std::env::temp_dir().join(format!("vmrescue-demo-{}", std::process::id()));
    let dir = dir.unwrap_or(&temporary);
    std::fs::create_dir_all(dir).map_err(|e| Error::io("cannot be made", dir, e))?;
    let path = dir.join("broken.vhdx");
    if path.exists() {
        return Err(Error::invalid(Layer::Cli, "there is a demo disk already")
            .in_file(&path)
            .advice("remove it first"));
    }
    let result = story(&path);
    if dir == temporary {
        let _removed = std::fs::remove_dir_all(&temporary);
    }
    let same = result?;
    say(&format!("\nall of it took {:.1} seconds", begun.elapsed().as_secs_f64()))?;
    Ok(if same { CLEAN } else { ERROR })
}

fn story(path: &Path) -> Result<bool> {
    say("1. A disk: dynamic VHDX, GPT, EFI system partition, NTFS with a small Windows Server 2019")?;
    build(path, Kind::VhdxDynamic)?;
    let bytes = std::fs::metadata(path).map(|m| m.len()).unwrap_or(0);
    say(&format!("   {} ({})", path.display(), size(bytes)))?;
    say("\n2. What an interrupted update did: ACPI.sys full of zeros, the storage driver switched off")?;
    break_it(path, &[Fault::AcpiZeroed, Fault::StorageDriverDisabled], &Bars::new())?;
    let broken = sha256(path)?;
    say(&format!("   sha256 {broken}"))?;
    say("\n3. vmrescue diagnose broken.vhdx")?;
    let found = machine(path)?;
    super::diagnose::say_findings(&diagnose(&found, found.installation(None)?)?)?;
    drop(found);
    say(&format!(
        "\n4. vmrescue repair broken.vhdx   (ACPI.sys {} and {} are in the component store)",
        ACPI_VERSIONS[0], ACPI_VERSIONS[1]
    ))?;
    let mut shown = Vec::new();
    let planned = |machine: &Machine| {
        shown = fixes(machine)?;
        Ok(shown.clone())
    };
    let outcome = run_changes(path, "Apply the safe fixes", planned, &Options::default(), &Bars::new())?;
    shown.iter().try_for_each(|change| say(&format!("   - {change}")))?;
    if let Some(verdict) = &outcome.verdict {
        verdict.agreed.iter().try_for_each(|fact| say(&format!("   verified  {fact}")))?;
        verdict.only_one_reader.iter().try_for_each(|fact| say(&format!("   one reader only  {fact}")))?;
    }
    say(&format!("   {} bytes of the image file changed", outcome.bytes_changed))?;
    let repaired = machine(path)?;
    let left = diagnose(&repaired, repaired.installation(None)?)?;
    drop(repaired);
    say(&format!("\n5. vmrescue diagnose broken.vhdx: {} findings", left.len()))?;
    say("\n6. vmrescue undo broken.vhdx")?;
    transaction::undo(path, None, None, false, &Bars::new())?;
    let undone = sha256(path)?;
    say(&format!("   sha256 {undone}"))?;
    let same = undone == broken && left.is_empty();
    say(if same {
        "   the image file is byte for byte what it was"
    } else {
        "   THE IMAGE FILE IS NOT WHAT IT WAS"
    })?;
    Ok(same)
}
