//! Reads a virtual disk from its first byte to its last, and a plain file of the same content, in one run.
//! Usage: cargo bench --bench sequential_read -- IMAGE.vhdx PLAIN.raw

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may fail and tells")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use vmrescue::block::{Disk, HostFile};
use vmrescue::image::{OpenOptions, open_path};

/// Best of three, in MiB a second.
fn measure(disk: &Disk) -> f64 {
    let mut buf = vec![0; 1 << 20];
    let times = (0..3).map(|_| {
        let begun = Instant::now();
        let mut offset = 0;
        while offset < disk.len() {
            let count = (disk.len() - offset).min(buf.len() as u64) as usize;
            disk.read_at(offset, &mut buf[..count]).unwrap();
            offset += count as u64;
        }
        begun.elapsed().as_secs_f64()
    });
    disk.len() as f64 / f64::from(1 << 20) / times.fold(f64::MAX, f64::min)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [image, plain] = &arguments[..] else {
        println!("usage: cargo bench --bench sequential_read -- IMAGE PLAIN");
        return;
    };
    let plain = Disk::new(Arc::new(HostFile::open_read(Path::new(plain)).unwrap()));
    let image = open_path(Path::new(image), &OpenOptions::default()).unwrap().disk;
    // Both once for the page cache.
    measure(&plain);
    let (a, b) = (measure(&image), measure(&plain));
    println!("image {a:.0} MiB/s, plain file {b:.0} MiB/s, ratio {:.2}", a / b);
}
