//! The inspection as text for a terminal.

use super::inspection::{Inspection, InstallationView};
use super::map::{bar, segments};
use super::sections::{Section, Table, sections};
use vmrescue_base::text::size;
use vmrescue_image::ContainerInfo;

/// Characters of the bar that shows the disk.
const BAR: usize = 60;
/// Most characters of a cell; longer ones are cut.
const CELL: usize = 48;

/// The inspection as lines; control characters of the disk are taken out.
pub fn text(inspection: &Inspection, file: &str) -> String {
    let mut lines = vec![file.to_string()];
    container(inspection, &mut lines);
    volumes(inspection, &mut lines);
    for (installation, services) in inspection.installations.iter().zip(&inspection.services) {
        lines.push(String::new());
        lines.push(heading(installation));
        let sets = &installation.control_sets;
        lines.push(format!(
            "  control sets  current {}, default {}, failed {}, last known good {}",
            sets.current, sets.default, sets.failed, sets.last_known_good
        ));
        let count = |start| services.iter().filter(|service| service.start == Some(start)).count();
        lines.push(format!(
            "  services      {}: {} at boot, {} system, {} automatic, {} on demand, {} disabled",
            services.len(),
            count(0),
            count(1),
            count(2),
            count(3),
            count(4)
        ));
        let boot: Vec<&str> =
            services.iter().filter(|s| s.start == Some(0)).map(|s| s.name.as_str()).collect();
        lines.push(format!("  boot drivers  {}", boot.join(", ")));
        for section in sections(&installation.facts) {
            section_lines(&section, &mut lines);
        }
    }
    for unread in &inspection.could_not_look {
        lines.push(format!("  could not look at {unread}"));
    }
    for defect in &inspection.defects {
        lines.push(format!("  {}: {} [{}]", defect.severity, defect.detail, defect.code));
    }
    lines.iter().map(|line| clean(line)).collect::<Vec<_>>().join("\n")
}

/// A terminal obeys control characters; names on a disk must not have it do so.
fn clean(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `vhdx dynamic`; the word once where format and variant are the same.
pub(super) fn variant(info: &ContainerInfo) -> String {
    let (format, variant) = (format!("{:?}", info.format), format!("{:?}", info.variant));
    let both = if format == variant { format } else { format!("{format} {variant}") };
    both.to_lowercase()
}

fn container(inspection: &Inspection, lines: &mut Vec<String>) {
    let info = &inspection.container;
    lines.push(format!(
        "  container     {}, disk {}, file {}",
        variant(info),
        size(info.size),
        size(info.file_size)
    ));
    if info.log_replayed {
        lines.push("  log           replayed in memory; the file was not closed cleanly".into());
    }
    if let Some(parent) = &info.parent {
        lines.push(format!("  parent        {parent}"));
    }
    let kind = format!("{:?}", inspection.partition_table.kind).to_uppercase();
    let id = inspection.partition_table.disk_id.as_deref().unwrap_or("");
    lines.push(format!("  partitions    {kind} {id}"));
}

fn volumes(inspection: &Inspection, lines: &mut Vec<String>) {
    let list = segments(inspection);
    lines.push(format!("  {}", bar(&list, BAR)));
    for segment in &list {
        let used = segment.used.map(|used| format!(", {} free", size(segment.size.saturating_sub(used))));
        let name = if segment.name.is_empty() { "-" } else { &segment.name };
        lines.push(format!(
            "  {name:<7}  {:>11}  {}{}",
            size(segment.size),
            segment.words,
            used.unwrap_or_default()
        ));
        if let Some(error) = &segment.error {
            lines.push(format!("           {error}"));
        }
    }
}

fn heading(i: &InstallationView) -> String {
    let version =
        if i.display_version.is_empty() { String::new() } else { format!(" {}", i.display_version) };
    format!(
        "{}  {}{version}, build {}.{}, {}, {}",
        i.path, i.product, i.build, i.ubr, i.architecture, i.computer_name
    )
}

fn section_lines(section: &Section, lines: &mut Vec<String>) {
    lines.push(String::new());
    lines.push(format!("  {}", section.title));
    let width = section.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(36);
    for (name, value) in &section.rows {
        lines.push(format!("    {name:<width$}  {value}").trim_end().to_string());
    }
    if let Some(table) = &section.table {
        table_lines(table, lines);
    }
}

fn cut(cell: &str) -> String {
    if cell.chars().count() <= CELL {
        return cell.to_string();
    }
    cell.chars().take(CELL - 1).chain(['…']).collect()
}

fn table_lines(table: &Table, lines: &mut Vec<String>) {
    let heads: Vec<String> = table.heads.iter().map(|head| (*head).to_string()).collect();
    let all: Vec<Vec<String>> = std::iter::once(&heads)
        .chain(&table.rows)
        .map(|row| row.iter().map(|cell| cut(cell)).collect())
        .collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|i| all.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for row in &all {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        lines.push(format!("    {}", cells.join("  ")).trim_end().to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_heads_and_escapes_do_nothing() {
        let table =
            Table { heads: vec!["Name", "RID"], rows: vec![vec!["Administrator".into(), "500".into()]] };
        let mut lines = Vec::new();
        table_lines(&table, &mut lines);
        assert_eq!(lines, ["    Name           RID", "    Administrator  500"]);
        assert_eq!(clean("a\u{1b}[31mb"), "a\u{fffd}[31mb");
        assert_eq!(cut(&"x".repeat(60)).chars().count(), CELL);
    }
}
