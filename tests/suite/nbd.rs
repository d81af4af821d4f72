//! The NBD server against qemu's client: the whole disk and a volume, byte for byte.

use crate::oracle::{run, tool};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use vmrescue::demo::build;
use vmrescue::disk::{DiskOptions, convert};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;

pub(crate) fn server(image: &Path, socket: &Path, more: &[&str]) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_vmrescue"))
        .arg("serve")
        .arg(image)
        .arg("--nbd")
        .arg(socket)
        .args(more)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..200 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    child
}

#[test]
fn qemu_reads_the_decoded_disk_and_its_volumes() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (image, raw) = (dir.path().join("d.vhdx"), dir.path().join("d.raw"));
    build(&image, Kind::VhdxDynamic).unwrap();
    convert(&image, &raw, Kind::Raw, None, &DiskOptions::default(), &Silent).unwrap();
    let before = std::fs::read(&image).unwrap();
    let socket = dir.path().join("s");
    let mut child = server(&image, &socket, &[]);
    let url = |name: &str| format!("nbd+unix:///{name}?socket={}", socket.display());
    run(tool("qemu-img").unwrap().args(["compare", "-f", "raw", "-F", "raw", &url("")]).arg(&raw));
    let volume = dir.path().join("volume");
    run(tool("qemu-img").unwrap().args(["convert", "-f", "raw", "-O", "raw", &url("C")]).arg(&volume));
    assert!(std::fs::read(&volume).unwrap() == std::fs::read(&raw).unwrap()[89 << 20..255 << 20]);
    let missing = tool("qemu-img").unwrap().args(["info", &url("nothing")]).output().unwrap();
    assert!(!missing.status.success());
    if let Some(mut qemu_io) = tool("qemu-io") {
        let written = qemu_io.args(["-f", "raw", "-c", "write 0 512", &url("")]).output().unwrap();
        let said =
            String::from_utf8_lossy(&written.stdout).into_owned() + &String::from_utf8_lossy(&written.stderr);
        assert!(!written.status.success() || said.contains("read-only") || said.contains("failed"), "{said}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(std::fs::read(&image).unwrap() == before, "serving changes nothing");

    let second = dir.path().join("t");
    let mut child = server(&image, &second, &["--volume", "C:", "--once"]);
    let url = format!("nbd+unix:///?socket={}", second.display());
    run(tool("qemu-img").unwrap().args(["compare", "-f", "raw", "-F", "raw", &url]).arg(&volume));
    assert!(child.wait().unwrap().success(), "the server ends after its client");
    assert!(!second.exists());
}

/// Writes through NBD are staged, published when the client flushes or leaves, and undone in one go.
#[test]
fn clients_write_flush_and_see_holes() {
    let (Some(_), Some(_)) = (tool("qemu-io"), tool("nbdinfo")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (image, raw) = (dir.path().join("d.vhdx"), dir.path().join("d.raw"));
    build(&image, Kind::VhdxDynamic).unwrap();
    convert(&image, &raw, Kind::Raw, None, &DiskOptions::default(), &Silent).unwrap();
    let before = std::fs::read(&image).unwrap();

    // Read-only: the map of holes, and a copy that skips them.
    let socket = dir.path().join("r");
    let mut child = server(&image, &socket, &[]);
    let url = format!("nbd+unix:///?socket={}", socket.display());
    let map = run(tool("nbdinfo").unwrap().args(["--map", "--json", &url]));
    let map: Vec<serde_json::Value> = serde_json::from_slice(&map.stdout).unwrap();
    let bytes = |kind: u64| {
        let parts = map.iter().filter(|part| part["type"] == kind);
        parts.map(|part| part["length"].as_u64().unwrap()).sum::<u64>()
    };
    assert!(bytes(3) > 0 && bytes(0) > 0, "{map:?}");
    assert_eq!(bytes(3) + bytes(0), std::fs::metadata(&raw).unwrap().len());
    let copy = dir.path().join("copy");
    if let Some(mut nbdcopy) = tool("nbdcopy") {
        run(nbdcopy.arg(&url).arg(&copy));
        assert!(std::fs::read(&copy).unwrap() == std::fs::read(&raw).unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // Writing: what was flushed is in the image while the client is still there.
    let socket = dir.path().join("w");
    let mut child = server(&image, &socket, &["--write", "--once"]);
    let url = format!("nbd+unix:///?socket={}", socket.display());
    let commands =
        ["write -P 7 200M 64k", "flush", "read -P 7 200M 64k", "write -z 204808k 4k", "discard 0 4k"];
    let mut qemu_io = tool("qemu-io").unwrap();
    run(qemu_io.args(["-f", "raw"]).args(commands.iter().flat_map(|command| ["-c", command])).arg(&url));
    assert!(child.wait().unwrap().success());
    let history = run(Command::new(env!("CARGO_BIN_EXE_vmrescue")).arg("history").arg(&image).arg("--json"));
    let history: serde_json::Value = serde_json::from_slice(&history.stdout).unwrap();
    assert_eq!(history["operations"].as_array().unwrap().len(), 1, "a session is one operation");
    let after = dir.path().join("after.raw");
    convert(&image, &after, Kind::Raw, None, &DiskOptions::default(), &Silent).unwrap();
    let mut expected = std::fs::read(&raw).unwrap();
    expected[200 << 20..(200 << 20) + 65536].fill(7);
    expected[(200 << 20) + 8192..(200 << 20) + 12288].fill(0);
    assert!(std::fs::read(&after).unwrap() == expected);
    run(Command::new(env!("CARGO_BIN_EXE_vmrescue")).arg("undo").arg(&image).arg("--yes"));
    assert!(std::fs::read(&image).unwrap() == before, "byte for byte");
}
