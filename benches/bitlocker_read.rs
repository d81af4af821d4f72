//! Reads a BitLocker volume in plain text from its first byte to its last, for each method, beside a plain read of the same file.
//! Usage: cargo bench --bench bitlocker_read -- DIR [MIB]; the volumes stay in DIR for peers (`scripts/bench-bitlocker.sh`).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may fail and tells")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use vmrescue::block::{Disk, DiskMut, HostFile};
use vmrescue::crypt::testing::{Protect, Spec, encrypt};
use vmrescue::crypt::{Keys, plain, volume};
use vmrescue::demo::secrets;
use vmrescue::fs::ntfs;

/// Median of five, in MiB a second.
fn measure(disk: &Disk, piece: usize) -> f64 {
    let mut buf = vec![0; piece];
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let begun = Instant::now();
            let mut offset = 0;
            while offset < disk.len() {
                let count = (disk.len() - offset).min(buf.len() as u64) as usize;
                disk.read_at(offset, &mut buf[..count]).unwrap();
                offset += count as u64;
            }
            begun.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    disk.len() as f64 / f64::from(1 << 20) / times[2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let Some(dir) = arguments.first() else {
        println!("usage: cargo bench --bench bitlocker_read -- DIR [MIB]");
        return;
    };
    let length = arguments.get(1).map_or(256, |text| text.parse::<u64>().unwrap()) << 20;
    let known = secrets();
    let keys = Keys::none().with_recovery_password(known.recovery_password).unwrap();
    for method in 0x8000..0x8006u16 {
        let path = Path::new(dir).join(format!("{method:x}.img"));
        if !path.exists() {
            let file = DiskMut::new(Arc::new(HostFile::create_new(&path).unwrap()));
            file.set_length(length).unwrap();
            ntfs::format(&file, &ntfs::FormatSpec::default()).unwrap();
            let at = length / 4 * 3;
            let spec = Spec {
                method,
                volume_key: (1..65).collect(),
                master_key: [0x42; 32],
                id: known.ids[0],
                blocks: [at, at + 0x3_0000, at + 0x6_0000],
                header: (at + 0x1_0000, 0x2000),
                protectors: vec![Protect::RecoveryPassword(known.ids[0], known.recovery_password.into())],
                paused_at: None,
            };
            encrypt(&file, &spec).unwrap();
        }
        let disk = Disk::new(Arc::new(HostFile::open_read(&path).unwrap()));
        let begun = Instant::now();
        let opened = volume(&disk, &keys).unwrap().unwrap();
        let unlock = begun.elapsed().as_secs_f64();
        let view = plain(disk.clone(), &[(0, opened.view.unwrap())]);
        let (large, small, raw) = (measure(&view, 1 << 20), measure(&view, 4096), measure(&disk, 1 << 20));
        println!(
            "{}: {large:.0} MiB/s, in reads of 4 KiB {small:.0} MiB/s; the file itself {raw:.0} MiB/s; opened in {unlock:.3} s",
            opened.info.method
        );
    }
}
