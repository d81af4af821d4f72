//! `serve`: the decoded disk for qemu, nbdkit's clients and libguestfs.

use super::{CLEAN, Image, look, say};
use crate::error::Result;
use crate::mount::nbd::Export;
use crate::mount::socket::{serve_local, serve_tcp};
use std::path::Path;

/// The whole disk under the empty name and `disk`, each volume under its number and its letter.
pub(super) fn serve(image: &Image, nbd: &str, volume: Option<&str>, once: bool) -> Result<u8> {
    let (_, machine, _) = look::open(image)?;
    let export = |name: String, disk| Export { name, disk };
    let mut exports = Vec::new();
    for found in &machine.volumes {
        let window = machine.disk.window(found.range.clone())?;
        exports.extend(found.letter.map(|letter| export(letter.to_string(), window.clone())));
        exports.push(export(found.number.to_string(), window));
    }
    let main = match volume {
        None => machine.disk.clone(),
        Some(name) => {
            let parsed =
                crate::fs::path::GuestPath::parse(&format!("{}\\", name.trim_end_matches(['\\', '/'])))?;
            machine.disk.window(machine.volumes[machine.volume_of(&parsed.volume)?].range.clone())?
        }
    };
    exports.insert(0, export("disk".to_string(), machine.disk.clone()));
    exports.insert(0, export(String::new(), main));
    let is_address = nbd.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let ready = || {
        let url = if is_address { format!("nbd://{nbd}/") } else { format!("nbd+unix:///?socket={nbd}") };
        let _told = say(&format!("serving {} read-only at {url}", image.image.display()));
    };
    if is_address {
        serve_tcp(nbd, &exports, once, &ready)
    } else {
        serve_local(Path::new(nbd), &exports, once, &ready)
    }?;
    Ok(CLEAN)
}
