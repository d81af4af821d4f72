//! The logs of an installation, and several logs as one stream.

use super::{Event, Filter, Reader, Source};
use crate::{Installation, Machine};
use vmrescue_base::error::{Defect, ErrorKind, Layer, Result, Severity};
use vmrescue_fs::{NodeId, NodeKind, resolve};

/// The logs that say how starts, stops and updates went; what is not there is not missed.
pub const BOOT_LOGS: [&str; 12] = [
    "System",
    "Setup",
    "SysEvent",
    "Microsoft-Windows-Kernel-Boot/Operational",
    "Microsoft-Windows-Kernel-PnP/Configuration",
    "Microsoft-Windows-WindowsUpdateClient/Operational",
    "Microsoft-Windows-BitLocker/BitLocker Management",
    "Microsoft-Windows-BitLocker/BitLocker Operational",
    "Microsoft-Windows-CodeIntegrity/Operational",
    "Microsoft-Windows-Ntfs/Operational",
    "Microsoft-Windows-StartupRepair/Operational",
    "Microsoft-Windows-Kernel-IO/Operational",
];

/// A log file of an installation.
#[derive(Debug, Clone)]
pub struct LogFile {
    /// The log: the file's name without its end, `%4` read as `/`.
    pub name: String,
    /// The file, as a path of the guest.
    pub path: String,
    /// The file.
    pub node: NodeId,
    /// Its bytes.
    pub size_bytes: u64,
}

/// All log files: `System32\winevt\Logs\*.evtx`, and `System32\config\*.evt` of Windows XP and 2003. Ordered by name.
///
/// # Errors
/// Of the file system.
pub fn logs(machine: &Machine, installation: &Installation) -> Result<Vec<LogFile>> {
    let fs = machine.file_system(installation.volume)?;
    let mut found = Vec::new();
    for (folder, end) in [("winevt\\Logs", ".evtx"), ("config", ".evt")] {
        let steps: Vec<&str> = ["Windows", "System32"].into_iter().chain(folder.split('\\')).collect();
        let node = match resolve(&*fs, &steps) {
            Ok(Some(node)) => node,
            Ok(None) => continue,
            Err(e) if e.kind() == ErrorKind::NotFound || e.kind() == ErrorKind::Invalid => continue,
            Err(e) => return Err(e),
        };
        for entry in fs.read_dir(node)? {
            let lower = entry.name.to_lowercase();
            let Some(stem) = lower.strip_suffix(end).and_then(|stem| entry.name.get(..stem.len())) else {
                continue;
            };
            if entry.kind == NodeKind::File {
                found.push(LogFile {
                    name: stem.replace("%4", "/"),
                    path: format!(r"{}\System32\{folder}\{}", installation.path, entry.name),
                    node: entry.id,
                    size_bytes: entry.size_bytes,
                });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// True when a log is one of those named: by its whole name or a pattern, in any case, with `/` or `%4`.
pub(super) fn is_named(name: &str, wanted: &[String]) -> bool {
    wanted.iter().any(|wanted| vmrescue_base::text::fits(&wanted.replace("%4", "/"), name))
}

/// Several logs as one stream, newest event first.
pub struct Merged {
    readers: Vec<Reader>,
    defects: Vec<(String, Defect)>,
}

impl Merged {
    /// The logs of an installation that `wanted` names (patterns; the boot's own when empty). A log that cannot be opened is a defect.
    ///
    /// # Errors
    /// Of reading the folder of logs.
    pub fn open(
        machine: &Machine,
        installation: &Installation,
        wanted: &[String],
        filter: &Filter,
    ) -> Result<Merged> {
        let fs = machine.file_system(installation.volume)?;
        let boot: Vec<String> = BOOT_LOGS.iter().map(|name| (*name).to_string()).collect();
        let wanted = if wanted.is_empty() { &boot } else { wanted };
        let mut merged = Merged { readers: Vec::new(), defects: Vec::new() };
        for log in logs(machine, installation)?.into_iter().filter(|log| is_named(&log.name, wanted)) {
            let opened =
                Source::node(&fs, log.node).and_then(|source| Reader::open(source, &log.name, filter));
            match opened {
                Ok(reader) => merged.readers.push(reader),
                Err(e) => merged
                    .defects
                    .push((log.name, Defect::from_error("event-log-unreadable", Severity::Error, &e))),
            }
        }
        Ok(merged)
    }

    /// Logs that are open already.
    pub fn of(readers: Vec<Reader>) -> Merged {
        Merged { readers, defects: Vec::new() }
    }

    /// Names of the logs that are read.
    pub fn names(&self) -> Vec<String> {
        self.readers.iter().map(|reader| reader.name().to_string()).collect()
    }

    /// The newest event, as far as the logs are in order.
    pub fn peek(&mut self) -> Option<&Event> {
        let at = self.newest()?;
        self.readers.get_mut(at)?.peek()
    }

    /// What was damaged so far, with the log that it is in.
    pub fn defects(&self) -> Vec<(String, Defect)> {
        let own = self
            .readers
            .iter()
            .flat_map(|reader| reader.defects().iter().map(|d| (reader.name().to_string(), d.clone())));
        self.defects.iter().cloned().chain(own).collect()
    }

    fn newest(&mut self) -> Option<usize> {
        let mut newest: Option<(vmrescue_base::time::FileTime, usize)> = None;
        for (at, reader) in self.readers.iter_mut().enumerate() {
            if let Some(event) = reader.peek()
                && newest.is_none_or(|(time, _)| event.time > time)
            {
                newest = Some((event.time, at));
            }
        }
        newest.map(|(_, at)| at)
    }
}

impl Iterator for Merged {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let at = self.newest()?;
        self.readers.get_mut(at)?.next()
    }
}

/// A defect that names the log, for lists over all logs.
pub(super) fn in_log(log: &str, defect: &Defect) -> Defect {
    Defect::new(
        defect.code,
        defect.severity,
        Layer::EventLog,
        defect.offset,
        format!("{log}: {}", defect.detail),
    )
}
