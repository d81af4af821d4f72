//! The NBD server against qemu's client: the whole disk and a volume, byte for byte.

use crate::oracle::{run, tool};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use vmrescue::demo::build;
use vmrescue::disk::{DiskOptions, convert};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;

fn server(image: &Path, socket: &Path, more: &[&str]) -> Child {
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
