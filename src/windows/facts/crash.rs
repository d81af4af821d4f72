//! Crash dumps: how Windows is set to write them, and those that are there.

use super::{Source, time_text};
use crate::dump::{DUMP_HEADER_BYTES, Dump};
use serde::Serialize;
use vmrescue_base::time::FileTime;
use vmrescue_fs::{FileSystem, NodeId};

/// Small dumps that are looked at, the newest.
const MAX_MINIDUMPS: usize = 50;

/// Crash dumps.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Crash {
    /// Settings.
    pub settings: CrashSettings,
    /// Dumps, the newest first.
    pub dumps: Vec<DumpFile>,
}

/// Settings of `CrashControl`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CrashSettings {
    /// `none`, `complete`, `kernel`, `small`, `automatic`, `active`; `None` when it is not set.
    pub kind: Option<String>,
    /// Where the dump goes.
    pub dump_file: Option<String>,
    /// Where small dumps go.
    pub minidump_dir: Option<String>,
    /// A file of its own, instead of the page file.
    pub dedicated_file: Option<String>,
    /// Starts again after a crash.
    pub auto_reboot: Option<bool>,
    /// An older dump is overwritten.
    pub overwrite: Option<bool>,
    /// Ctrl+Scroll Lock or an NMI makes a dump.
    pub by_nmi: Option<bool>,
}

/// A dump.
#[derive(Debug, Clone, Serialize)]
pub struct DumpFile {
    /// Path in the guest.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// When the file was last written.
    #[serde(serialize_with = "time_text")]
    pub modified: Option<FileTime>,
    /// What its header says; `None` when it is no dump that is known.
    pub dump: Option<Dump>,
}

impl DumpFile {
    /// When it happened: as the header says, else when the file was written.
    pub fn time(&self) -> Option<FileTime> {
        self.dump.as_ref().and_then(Dump::time).or(self.modified)
    }
}

fn kind(number: u32, filter: Option<u32>) -> String {
    match number {
        0 => "none".into(),
        1 if filter == Some(1) => "active".into(),
        1 => "complete".into(),
        2 => "kernel".into(),
        3 => "small".into(),
        7 => "automatic".into(),
        other => format!("unknown ({other})"),
    }
}

pub(super) fn read(source: &Source<'_>) -> Crash {
    let key = r"%\Control\CrashControl";
    let system = &source.system;
    let settings = CrashSettings {
        kind: system.number(key, "CrashDumpEnabled").map(|n| kind(n, system.number(key, "FilterPages"))),
        dump_file: system.text(key, "DumpFile"),
        minidump_dir: system.text(key, "MinidumpDir"),
        dedicated_file: system.text(key, "DedicatedDumpFile"),
        auto_reboot: system.flag(key, "AutoReboot"),
        overwrite: system.flag(key, "Overwrite"),
        by_nmi: system.flag(key, "NMICrashDump"),
    };
    let mut dumps = Vec::new();
    let path = |set: &Option<String>, usual: &str| {
        set.as_deref().and_then(|text| source.guest_path(text)).or_else(|| source.guest_path(usual))
    };
    if let Some(path) = path(&settings.dump_file, r"%SystemRoot%\MEMORY.DMP")
        && let Some((fs, node)) = source.node(&path)
    {
        dumps.extend(dump(source, &*fs, node, path));
    }
    if let Some(folder) = path(&settings.minidump_dir, r"%SystemRoot%\Minidump")
        && let Some((fs, node)) = source.node(&folder)
    {
        // Noted when it cannot be read.
        let mut files = source.seen(&folder, fs.read_dir(node)).unwrap_or_default();
        files.retain(|file| file.name.to_ascii_lowercase().ends_with(".dmp"));
        files.sort_by_key(|file| std::cmp::Reverse(file.times.modified));
        for file in files.into_iter().take(MAX_MINIDUMPS) {
            dumps.extend(dump(source, &*fs, file.id, format!(r"{folder}\{}", file.name)));
        }
    }
    dumps.sort_by_key(|file| std::cmp::Reverse(file.time()));
    Crash { settings, dumps }
}

fn dump(source: &Source<'_>, fs: &dyn FileSystem, node: NodeId, path: String) -> Option<DumpFile> {
    let mut head = vec![0; DUMP_HEADER_BYTES];
    let read = fs.metadata(node).and_then(|data| fs.read(node, "", 0, &mut head).map(|read| (data, read)));
    match read {
        Ok((data, read)) => {
            head.truncate(read);
            let modified = Some(data.times.modified).filter(|time| !time.is_zero());
            Some(DumpFile { path, size: data.size_bytes, modified, dump: Dump::parse(&head) })
        }
        Err(e) => {
            source.notes.add(format!("{path}: {e}"));
            None
        }
    }
}
