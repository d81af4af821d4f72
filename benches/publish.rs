//! What publishing costs: a flush of a session and an operation of its own, each at the 10th and at the 10,000th, and what of that
//! is waiting for the disk. Usage: cargo bench --bench publish -- FOLDER [COUNT]

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may fail and tells")]

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Instant;
use vmrescue::progress::Silent;
use vmrescue::transaction::{Locked, Record, TransactionOptions, history, undo};

/// How many operations are measured at once.
const WINDOW: usize = 200;

fn milliseconds(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The middle: single waits for the disk are of any length.
    sorted[sorted.len() / 2]
}

/// The two waits of a flush alone: a part of a journal appended, a page of an image written.
fn waits(dir: &Path) -> f64 {
    use std::os::unix::fs::FileExt;
    let open = |name: &str| {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(dir.join(name)).unwrap()
    };
    let (journal, image) = (open("waits.journal"), open("waits.raw"));
    image.set_len(64 << 20).unwrap();
    image.sync_all().unwrap();
    let times: Vec<f64> = (0..WINDOW as u64)
        .map(|number| {
            let begun = Instant::now();
            journal.write_all_at(&[7; 8300], number * 8300).unwrap();
            journal.sync_data().unwrap();
            image.write_all_at(&[7; 4096], number * 40_960 % (63 << 20)).unwrap();
            image.sync_all().unwrap();
            begun.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    milliseconds(&times)
}

fn main() {
    let words: Vec<String> = std::env::args().filter(|word| word != "--bench").skip(1).collect();
    let dir = Path::new(words.first().expect("a folder"));
    let count: usize = words.get(1).map_or(10_050, |word| word.parse().unwrap());
    println!("two waits for the disk alone: {:.2} ms", waits(dir));
    let image = dir.join("publish.raw");
    let _old = std::fs::remove_dir_all(dir.join("publish.raw.vmrescue"));
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(64 << 20).unwrap();
    drop(file);
    let before = std::fs::read(&image).unwrap();

    let record = Record { title: "session".into(), session: Some("bench".into()), ..Record::default() };
    let mut tx = Locked::open(&image, &TransactionOptions::default()).unwrap().stage();
    let mut times = Vec::new();
    for number in 0..count {
        tx.file().write_at((number * 40_960 % (63 << 20)) as u64, &[number as u8 | 1; 4096]).unwrap();
        let begun = Instant::now();
        tx.verify_so_far(|_| Ok(())).unwrap().publish(record.clone(), &Silent).unwrap().unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    tx.finish().unwrap();
    drop(tx);
    let first = milliseconds(&times[10..10 + WINDOW]);
    let last = milliseconds(&times[count - WINDOW..]);
    println!("a flush at operation 10: {first:.2} ms, at {count}: {last:.2} ms ({:.2})", last / first);
    let begun = Instant::now();
    undo(&image, None, None, false, &Silent).unwrap();
    println!("undo of all {count}: {:.1} s", begun.elapsed().as_secs_f64());
    assert!(std::fs::read(&image).unwrap() == before, "byte for byte");

    let mut times = Vec::new();
    for number in 0..count {
        let begun = Instant::now();
        let tx = Locked::open(&image, &TransactionOptions::default()).unwrap().stage();
        let at = (number * 40_960 % (63 << 20)) as u64;
        tx.file().write_at(at, &[(number / 7) as u8 | 1; 4096]).unwrap();
        let verified = tx.verify(|_| Ok(())).unwrap();
        verified.publish(Record { title: "one".into(), ..Record::default() }, &Silent).unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let (first, last) = (milliseconds(&times[10..10 + WINDOW]), milliseconds(&times[count - WINDOW..]));
    println!(
        "an operation of its own, number 10: {first:.2} ms, {count}: {last:.2} ms ({:.2})",
        last / first
    );
    println!("operations in the history: {}", history(&image, None).unwrap().len());
}
