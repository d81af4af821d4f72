//! The end of `Logs\CBS\CBS.log` and `WinSxS\poqexec.log`: what the servicing stack did last, and the codes it failed with.
//!
//! A line of CBS.log is `2023-09-04 15:01:53, Error                 CBS    text [HRESULT = 0x... - NAME]`, in the time of the guest; lines
//! without a time go on with the one before. The format is not documented; what does not fit is passed over. Missing: older logs
//! (`CbsPersist_*.cab`).

use super::hresult::{code_in, code_text};
use super::when;
use serde::Serialize;
use vmrescue_base::error::Result;
use vmrescue_base::time::FileTime;
use vmrescue_fs::{FileSystem, NodeId};

/// Bytes at the end of a log that are read: some days of work.
const TAIL_BYTES: u64 = 8 << 20;
/// Lines that are kept.
const MAX_LINES: usize = 400;

/// A line that says something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// When, in the time of the guest.
    pub time: Option<String>,
    /// The line says that it is an error, or its code does.
    pub error: bool,
    /// What it says.
    pub text: String,
    /// The code in it, with its name.
    pub code: Option<String>,
    #[serde(skip)]
    pub(super) at: Option<FileTime>,
}

/// The last session that a log tells of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogSession {
    /// Its id: two numbers.
    pub id: String,
    /// Who asked for it, such as `WindowsUpdateAgent`.
    pub client: Option<String>,
    /// The package.
    pub package: Option<String>,
    /// When it is first named, in the time of the guest.
    pub started: Option<String>,
    /// When it is last named.
    pub last_seen: Option<String>,
    /// The log says that it ended.
    pub finalized: bool,
    /// `yes` or `no`.
    pub reboot_required: Option<String>,
    /// The code it ended with, with its name.
    pub result: Option<String>,
    #[serde(skip)]
    pub(super) failed: bool,
}

/// A log's end.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LogEnd {
    /// Path in the guest.
    pub path: String,
    /// Bytes of the log.
    pub size: u64,
    /// Place from which it was read.
    pub read_from: u64,
    /// Time of its last line, in the time of the guest.
    pub last_time: Option<String>,
    /// The last session.
    pub session: Option<LogSession>,
    /// Lines that say something, the last of the log.
    pub lines: Vec<LogLine>,
}

/// The last bytes of a file.
fn tail(fs: &dyn FileSystem, node: NodeId) -> Result<(u64, u64, Vec<u8>)> {
    let size = fs.metadata(node)?.size_bytes;
    let from = size.saturating_sub(TAIL_BYTES);
    let mut bytes = vec![0; (size - from) as usize];
    let mut done = 0;
    while done < bytes.len() {
        let count = fs.read(node, "", from + done as u64, &mut bytes[done..])?;
        if count == 0 {
            break;
        }
        done += count;
    }
    bytes.truncate(done);
    Ok((size, from, bytes))
}

/// Text of a log: UTF-8, or UTF-16 by its first bytes or its zeros.
fn text_of(bytes: &[u8]) -> String {
    let zeros = bytes.iter().skip(1).step_by(2).take(200).filter(|byte| **byte == 0).count();
    if bytes.starts_with(&[0xff, 0xfe]) || zeros > 100 {
        return vmrescue_base::text::utf16le_lossy(bytes);
    }
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads the end of CBS.log.
pub(super) fn cbs_log(fs: &dyn FileSystem, node: NodeId, path: &str) -> Result<LogEnd> {
    let (size, read_from, bytes) = tail(fs, node)?;
    let mut end = parse_cbs_log(&text_of(&bytes));
    (end.path, end.size, end.read_from) = (path.into(), size, read_from);
    Ok(end)
}

/// Reads the end of poqexec.log: all of its last lines that have a code or a time.
pub(super) fn poqexec_log(fs: &dyn FileSystem, node: NodeId, path: &str) -> Result<LogEnd> {
    let (size, read_from, bytes) = tail(fs, node)?;
    let mut end = LogEnd { path: path.into(), size, read_from, ..LogEnd::default() };
    for line in text_of(&bytes).lines().map(str::trim).filter(|line| !line.is_empty()) {
        let code = code_in(line).filter(|code| *code >= 0x8000_0000);
        let at = when::parse(line);
        if code.is_some() || at.is_some() {
            push(
                &mut end.lines,
                LogLine {
                    time: at.map(when::short),
                    error: code.is_some(),
                    text: line.chars().take(400).collect(),
                    code: code.map(code_text),
                    at,
                },
            );
        }
    }
    end.last_time = end.lines.iter().rev().find_map(|line| line.time.clone());
    Ok(end)
}

fn push(lines: &mut Vec<LogLine>, line: LogLine) {
    if lines.len() >= MAX_LINES {
        lines.remove(0);
    }
    lines.push(line);
}

/// What stands after `name` up to a comma, a quotation mark or the end.
fn after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = text.get(text.find(name)? + name.len()..)?.trim_start();
    let end = rest.find([',', '"', '[']).unwrap_or(rest.len());
    Some(rest[..end].trim().trim_end_matches('.')).filter(|found| !found.is_empty())
}

/// The id of a session: digits, an underscore, digits.
fn session_id(text: &str) -> Option<&str> {
    let rest = text.get(text.find("ession: ")? + "ession: ".len()..)?.trim_start();
    let id = rest.split(|c: char| !c.is_ascii_digit() && c != '_').next()?;
    let (high, low) = id.split_once('_')?;
    (!high.is_empty() && !low.is_empty()).then_some(id)
}

/// Words that make a line worth keeping, besides errors.
const WORDS: [&str; 12] = [
    "Exec: Processing started",
    "Exec: Processing complete",
    "finalized. Reboot required",
    "initialized by client",
    "Startup: ",
    "Rollback",
    "rollback",
    "Rolling back",
    "Reboot mark",
    "Perf: InstallUninstallChain",
    "Shtd: ",
    "requires Servicing Stack",
];

pub(super) fn parse_cbs_log(text: &str) -> LogEnd {
    let mut end = LogEnd::default();
    let mut session: Option<LogSession> = None;
    for line in text.lines() {
        let Some(at) = when::parse(line) else { continue };
        let time = when::short(at);
        end.last_time = Some(time.clone());
        let rest = line.get(19..).unwrap_or_default().trim_start_matches(',').trim_start();
        let (level, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let rest = rest.trim_start();
        let (_, message) = rest.split_once(char::is_whitespace).unwrap_or(("", rest));
        let message = message.trim();
        let code = code_in(message);
        if let Some(id) = session_id(message) {
            if session.as_ref().is_none_or(|known| known.id != id) {
                session =
                    Some(LogSession { id: id.into(), started: Some(time.clone()), ..LogSession::default() });
            }
            if let Some(session) = &mut session {
                note_session(session, message, &time, code);
            }
        }
        let failure = code.is_some_and(|code| code >= 0x8000_0000);
        let error = level == "Error" || (failure && message.contains("ailed"));
        if error || WORDS.iter().any(|word| message.contains(word)) {
            push(
                &mut end.lines,
                LogLine {
                    time: Some(time),
                    error,
                    text: message.chars().take(400).collect(),
                    code: code.filter(|code| *code != 0).map(code_text),
                    at: Some(at),
                },
            );
        }
    }
    end.session = session;
    end
}

fn note_session(session: &mut LogSession, message: &str, time: &str, code: Option<u32>) {
    session.last_seen = Some(time.into());
    if let Some(client) = after(message, "initialized by client ").or_else(|| after(message, "Client: ")) {
        session.client = Some(client.into());
    }
    if let Some(package) = after(message, "Package: ") {
        session.package = Some(package.split_whitespace().next().unwrap_or(package).into());
    }
    if message.contains("finalized") {
        session.finalized = true;
        session.reboot_required = after(message, "Reboot required: ").map(String::from);
    }
    if let Some(code) = code.filter(|_| message.contains("complete") || message.contains("finalized")) {
        session.result = Some(code_text(code));
        session.failed = code >= 0x8000_0000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str = "2025-07-09 03:00:00, Info                  CBS    Session: 31190000_1 initialized by client WindowsUpdateAgent, external staging directory: (null)
2025-07-09 03:00:01, Info                  CBS    Exec: Processing started.  Session: 31190000_1, Package: Package_for_RollupFix~31bf3856ad364e35~amd64~~17763.7558.1.6
2025-07-09 03:04:00, Error                 CBS    Failed to perform operation.  [HRESULT = 0x800f0922 - CBS_E_INSTALLERS_FAILED]
not a line of its own
2025-07-09 03:04:01, Info                  CBS    Session: 31190000_1 finalized. Reboot required: yes [HRESULT = 0x800f0922 - CBS_E_INSTALLERS_FAILED]
2025-07-09 03:04:02, Info                  CSI    0000001 nothing of interest
";

    #[test]
    fn the_last_session_is_told() {
        let end = parse_cbs_log(SAMPLE);
        let session = end.session.unwrap();
        assert_eq!(session.id, "31190000_1");
        assert_eq!(session.client.as_deref(), Some("WindowsUpdateAgent"));
        assert_eq!(
            session.package.as_deref(),
            Some("Package_for_RollupFix~31bf3856ad364e35~amd64~~17763.7558.1.6")
        );
        assert!(session.finalized && session.failed);
        assert_eq!(session.reboot_required.as_deref(), Some("yes"));
        assert_eq!(session.result.as_deref(), Some("0x800f0922 CBS_E_INSTALLERS_FAILED"));
        assert_eq!(end.lines.len(), 4);
        assert_eq!(end.lines.iter().filter(|line| line.error).count(), 1);
        assert_eq!(end.last_time.as_deref(), Some("2025-07-09 03:04:02"));
    }

    proptest! {
        #[test]
        fn any_log_is_read_without_panic(text in "(2025-07-09 03:00:00, (Error|Info)? *CBS +)?[Sa-é0x:_ ,\\[\\.]{0,60}(Session: [0-9_]{0,9})?(\n.{0,30})?") {
            let end = parse_cbs_log(&text);
            prop_assert!(end.lines.len() <= 2);
            drop(text_of(text.as_bytes()));
        }
    }
}
