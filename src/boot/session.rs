//! What the kernel and the session manager start: smss, the subsystem of csrss with win32k, the processes of the logon, and the libraries
//! that these import.

use crate::files::Kind;
use crate::screens::{Era, Part};
use crate::{DRIVERS, SYSTEM32, Walk, parts, text};
use vmrescue_registry::Hive;
use vmrescue_windows::{Installation, Unseen};

/// Servers of csrss when the registry does not name them.
const SERVERS: [&str; 2] = ["basesrv", "winsrv"];

pub(crate) fn look(installation: &Installation, system: Option<&Hive>, unseen: &Unseen, walk: &mut Walk<'_>) {
    let era = walk.era;
    let mut seen: Vec<String> = ["ntdll.dll", "ntoskrnl.exe", "hal.dll"].map(String::from).to_vec();
    // The kernel maps ntdll before it starts smss.
    walk.need(Part::Native, &parts(SYSTEM32, "ntdll.dll"), Kind::Image, "mapped by the kernel");
    if installation.build >= 7600 {
        let why = "the API set schema";
        walk.need(Part::ApiSet, &parts(SYSTEM32, "apisetschema.dll"), Kind::Image, why);
    }
    let set = format!(r"ControlSet{:03}\Control\Session Manager", installation.control_sets.default.max(1));
    let value =
        |key: &str, name: &str| system.and_then(|hive| text(hive, &format!(r"{set}\{key}"), name, unseen));
    let mut root = |walk: &mut Walk<'_>, part, of_imports, name: &str, why: &str| {
        if seen.contains(&name.to_lowercase()) {
            return;
        }
        seen.push(name.to_lowercase());
        let imports = walk.need(part, &parts(SYSTEM32, name), Kind::Image, why);
        walk.closure(of_imports, name, imports, &[SYSTEM32], &mut seen);
    };
    root(walk, Part::SessionManager, Part::SessionManager, "smss.exe", "started by the kernel");
    window_system(value("SubSystems", "Kmode").as_deref(), walk);
    root(walk, Part::Subsystem, Part::Library, "csrss.exe", "started by the session manager");
    for server in servers(value("SubSystems", "Windows").as_deref()) {
        root(walk, Part::Library, Part::Library, &format!("{server}.dll"), "a server of csrss.exe");
    }
    let logon: &[&str] = match era {
        Era::Nt5 => &["winlogon.exe", "services.exe", "lsass.exe"],
        Era::Win7 => &["wininit.exe", "winlogon.exe", "services.exe", "lsass.exe", "lsm.exe"],
        Era::Win8 | Era::Win10 => &["wininit.exe", "winlogon.exe", "services.exe", "lsass.exe"],
    };
    for name in logon {
        root(walk, Part::Logon, Part::Logon, name, "a process of the logon");
    }
}

/// The window system's part in the kernel, and the drivers that it imports and that are not loaded yet.
fn window_system(path: Option<&str>, walk: &mut Walk<'_>) {
    let name = path.and_then(|path| path.rsplit('\\').next()).filter(|name| !name.is_empty());
    let name = name.unwrap_or("win32k.sys");
    let mut seen: Vec<String> = walk.links.iter().map(|link| link.name.to_lowercase()).collect();
    seen.extend(["ntoskrnl.exe", "hal.dll"].map(String::from));
    let why = "the window system's part in the kernel";
    let imports = walk.need(Part::Subsystem, &parts(SYSTEM32, name), Kind::Image, why);
    walk.closure(Part::Subsystem, name, imports, &[SYSTEM32, DRIVERS], &mut seen);
}

/// Names of `ServerDll=` in the command line of csrss, each once; those without a file of their own are left out.
fn servers(command: Option<&str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in command.unwrap_or_default().split_whitespace() {
        let Some(server) = word.strip_prefix("ServerDll=") else { continue };
        let name = server.split([':', ',']).next().unwrap_or_default().to_lowercase();
        if !name.is_empty() && !found.contains(&name) {
            found.push(name);
        }
    }
    if found.is_empty() { SERVERS.map(String::from).to_vec() } else { found }
}

#[cfg(test)]
mod tests {
    use super::servers;

    #[test]
    fn servers_come_from_the_command_line() {
        let line = r"%SystemRoot%\system32\csrss.exe ObjectDirectory=\Windows SharedSection=1024,20480,768 Windows=On SubSystemType=Windows ServerDll=basesrv,1 ServerDll=winsrv:UserServerDllInitialization,3 ServerDll=sxssrv,4 ProfileControl=Off";
        assert_eq!(servers(Some(line)), ["basesrv", "winsrv", "sxssrv"]);
        assert_eq!(servers(None), ["basesrv", "winsrv"]);
    }
}
