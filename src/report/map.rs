//! The disk from its first byte to its last, as segments: for the bar of the text and the picture of the HTML report.

use super::inspection::Inspection;

/// What a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The firmware starts from it.
    System,
    /// A Windows installation is on it.
    Windows,
    /// A recovery partition.
    Recovery,
    /// Microsoft reserved.
    Reserved,
    /// BitLocker.
    Locked,
    /// A file system that cannot be read.
    Unreadable,
    /// Any other volume.
    Data,
    /// No partition.
    Nothing,
}

impl Role {
    /// Its name, also the class in the picture.
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::Windows => "windows",
            Role::Recovery => "recovery",
            Role::Reserved => "reserved",
            Role::Locked => "locked",
            Role::Unreadable => "unreadable",
            Role::Data => "data",
            Role::Nothing => "unpartitioned",
        }
    }
}

/// A part of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// In bytes.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) size: u64,
    /// What it is.
    pub(super) role: Role,
    /// `#3 C:`.
    pub(super) name: String,
    /// Type, file system and label in words.
    pub(super) words: String,
    /// Used bytes, where they are known.
    pub(super) used: Option<u64>,
    /// Why it cannot be read.
    pub(super) error: Option<String>,
}

/// All segments, by offset.
pub(super) fn segments(inspection: &Inspection) -> Vec<Segment> {
    let mut all: Vec<Segment> = inspection.volumes.iter().map(|volume| segment(inspection, volume)).collect();
    all.extend(inspection.unpartitioned.iter().map(|gap| Segment {
        offset: gap.offset,
        size: gap.size,
        role: Role::Nothing,
        name: String::new(),
        words: "unpartitioned".into(),
        used: None,
        error: None,
    }));
    all.sort_by_key(|segment| segment.offset);
    all
}

fn segment(inspection: &Inspection, volume: &super::inspection::VolumeView) -> Segment {
    let partition = inspection.partitions.iter().find(|partition| partition.number == volume.number);
    let kind = partition.map_or("", |partition| partition.type_name.as_str());
    let lower = kind.to_ascii_lowercase();
    let windows = inspection.installations.iter().any(|installation| installation.volume == volume.number);
    let role = if volume.bitlocker.as_ref().is_some_and(|bitlocker| bitlocker.locked) {
        Role::Locked
    } else if windows {
        Role::Windows
    } else if volume.system {
        Role::System
    } else if lower.contains("recovery") {
        Role::Recovery
    } else if lower.contains("reserved") {
        Role::Reserved
    } else if volume.file_system.is_none() {
        Role::Unreadable
    } else {
        Role::Data
    };
    let letter = volume.letter.map(|letter| format!(" {letter}:")).unwrap_or_default();
    let label = volume.label.as_deref().filter(|label| !label.is_empty());
    let system = volume
        .file_system
        .map(str::to_uppercase)
        .or_else(|| volume.bitlocker.as_ref().map(|_| "BitLocker".to_string()));
    let words = [Some(kind.to_string()), system, label.map(|label| format!("“{label}”"))];
    Segment {
        offset: volume.offset,
        size: volume.size,
        role,
        name: format!("#{}{letter}", volume.number),
        words: words.into_iter().flatten().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", "),
        used: volume.free_bytes.map(|free| volume.size.saturating_sub(free)),
        error: volume.error.clone().filter(|_| role != Role::Reserved),
    }
}

/// The disk as one line of `width` characters or a few more: used `█`, free `░`, unknown `▒`, no partition `·`.
pub(super) fn bar(segments: &[Segment], width: usize) -> String {
    let total: u64 = segments.iter().map(|segment| segment.size).sum();
    let part = |bytes: u64, of: u64, cells: usize| {
        let cells = u128::from(bytes) * cells as u128 / u128::from(of.max(1));
        usize::try_from(cells).unwrap_or(0)
    };
    let mut line = String::from("│");
    for segment in segments {
        // Even the smallest partition is seen.
        let cells = part(segment.size, total, width).max(1);
        match (segment.role, segment.used) {
            (Role::Nothing, _) => line.push_str(&"·".repeat(cells)),
            (_, Some(used)) => {
                let full = part(used, segment.size, cells).clamp(usize::from(used > 0), cells);
                line.push_str(&"█".repeat(full));
                line.push_str(&"░".repeat(cells - full));
            }
            (_, None) => line.push_str(&"▒".repeat(cells)),
        }
        line.push('│');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_to_scale_and_shows_the_small_too() {
        let segment = |offset, size, role, used| Segment {
            offset,
            size,
            role,
            name: String::new(),
            words: String::new(),
            used,
            error: None,
        };
        let list = [
            segment(0, 1, Role::System, Some(1)),
            segment(1, 499, Role::Windows, Some(250)),
            segment(500, 400, Role::Locked, None),
            segment(900, 100, Role::Nothing, None),
        ];
        assert_eq!(bar(&list, 20), "│█│████░░░░░│▒▒▒▒▒▒▒▒│··│");
    }
}
