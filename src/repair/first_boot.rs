//! A command that Windows runs once at its next start, as the system account: a startup script of the local group policy, as Microsoft
//! describes it for machines that cannot be reached. The script puts back what was there and removes itself.

use super::change::Change;
use vmrescue_base::error::Result;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::read_file;
use vmrescue_windows::{Installation, Machine};

/// Extensions that run startup scripts: the client side extension and its tool.
const EXTENSIONS: &str = "[{42B5FAAE-6536-11D2-AE5A-0000F87571E3}{40B6664F-4972-11D1-A7CA-0000F87571E3}]";
const SCRIPT: &str = "FixAzureVM.cmd";

/// The changes that make it so; none when the same command waits already.
///
/// # Errors
/// Of reading the disk.
pub(super) fn first_boot(
    machine: &Machine,
    installation: &Installation,
    command: &str,
) -> Result<Vec<Change>> {
    let policy = format!(r"{}\System32\GroupPolicy", installation.path);
    let live = r"%SystemRoot%\System32\GroupPolicy";
    let (gpt, list) = (r"gpt.ini", r"Machine\Scripts\scripts.ini");
    let script = format!(r"Machine\Scripts\Startup\{SCRIPT}");
    let restore = |file: &str| {
        format!(
            "if exist \"{live}\\{file}.bak\" (move /y \"{live}\\{file}.bak\" \"{live}\\{file}\") else (del \"{live}\\{file}\")\r\n"
        )
    };
    let files = [
        (
            gpt,
            format!(
                "[General]\r\ngPCFunctionalityVersion=2\r\ngPCMachineExtensionNames={EXTENSIONS}\r\nVersion=1\r\n"
            ),
        ),
        (list, format!("[Startup]\r\n0CmdLine={SCRIPT}\r\n0Parameters=\r\n")),
        (script.as_str(), format!("{command}\r\n{}{}del \"%~f0\"\r\n", restore(list), restore(gpt))),
    ];
    let content = |path: &str| -> Result<Option<Vec<u8>>> {
        let (volume, node) = machine.resolve(&GuestPath::parse(path)?)?;
        node.map(|node| read_file(&*machine.file_system(volume)?, node, "")).transpose()
    };
    let mut changes = Vec::new();
    for directory in ["", r"\Machine", r"\Machine\Scripts", r"\Machine\Scripts\Startup"] {
        let path = format!("{policy}{directory}");
        if machine.resolve(&GuestPath::parse(&path)?)?.1.is_none() {
            changes.push(Change::MakeDirectory { path });
        }
    }
    for (name, text) in &files {
        let path = format!(r"{policy}\{name}");
        let old = content(&path)?;
        if old.as_deref() == Some(text.as_bytes()) {
            continue;
        }
        // What the machine had is kept beside; a script of ours that never ran is not.
        if old.is_some() && *name != script && content(&format!("{path}.bak"))?.is_none() {
            changes.push(Change::FileRename { from: path.clone(), to: format!("{path}.bak") });
        }
        let (data, size) = (text.as_bytes().to_vec(), text.len() as u64);
        changes.push(Change::FileWrite { path, data: data.into(), size, from: "this script".into() });
    }
    Ok(changes)
}
