use super::*;
use crate::testing::{LogEvent, event_log};
use proptest::prelude::*;

fn log() -> Vec<u8> {
    let events: Vec<LogEvent<'_>> = (0..40)
        .map(|i| LogEvent {
            time: FileTime::from_unix_seconds(1_700_000_000 + i),
            provider: "Service Control Manager",
            id: (7031, 49152),
            level: 2,
            data: &[("param1", "a service with a name"), ("param2", "3")],
        })
        .collect();
    event_log("System", "PC", &events)
}

/// A record of the old format, and what surrounds it.
fn old_log() -> Vec<u8> {
    let mut file = vec![0u8; 48];
    file[..8].copy_from_slice(&[0x30, 0, 0, 0, b'L', b'f', b'L', b'e']);
    for number in 1..6u32 {
        let texts = vmrescue_base::text::utf16le_bytes("Source\0PC\0first\0second\0");
        let strings = 56 + 2 * 10;
        let length = (56 + texts.len() + 4).next_multiple_of(4);
        let start = file.len();
        file.extend((length as u32).to_le_bytes());
        file.extend(b"LfLe");
        for value in [number, 1_000_000_000 + number, 1_000_000_000, 6008 | 0x8000 << 16] {
            file.extend(value.to_le_bytes());
        }
        for value in [1u16, 2, 0, 0] {
            file.extend(value.to_le_bytes());
        }
        for value in [0u32, strings, 0, 0, 0, 0] {
            file.extend(value.to_le_bytes());
        }
        file.extend(texts);
        file.resize(start + length - 4, 0);
        file.extend((length as u32).to_le_bytes());
    }
    file
}

fn read(bytes: Vec<u8>, filter: &Filter) -> (Vec<Event>, Vec<Defect>) {
    let disk = Disk::new(Arc::new(vmrescue_block::MemoryDevice::new(bytes)));
    match Reader::open(Source::File(disk), "test", filter) {
        Ok(mut reader) => {
            let events = reader.by_ref().collect();
            (events, reader.defects().to_vec())
        }
        Err(_) => (Vec::new(), Vec::new()),
    }
}

#[test]
fn both_formats_come_newest_first() {
    let (events, defects) = read(log(), &Filter::default());
    assert_eq!((events.len(), defects.len()), (40, 0));
    assert_eq!((events[0].record_id, events[39].record_id), (40, 1));
    assert_eq!(events[0].qualifiers, Some(49152));
    let (events, defects) = read(old_log(), &Filter::default());
    assert_eq!((events.len(), defects.len()), (5, 0));
    assert_eq!((events[0].record_id, events[0].id, events[0].value("2")), (5, 6008, Some("second")));
    assert_eq!(
        (events[0].provider.as_str(), events[0].computer.as_str(), events[0].level),
        ("Source", "PC", 2)
    );
    let since = Some(FileTime::from_unix_seconds(1_000_000_004));
    assert_eq!(read(old_log(), &Filter { since, ..Filter::default() }).0.len(), 2);
}

#[test]
fn groups_count_by_subject() {
    let (events, _) = read(log(), &Filter { boot: true, ..Filter::default() });
    let groups = group(events.into_iter());
    assert_eq!((groups.len(), groups[0].count, groups[0].kind), (1, 40, Some(Kind::Service)));
    assert_eq!(groups[0].subject, "a service with a name");
    assert_eq!(groups[0].text, "the service a service with a name ended unexpectedly, 3 times now");
    assert_eq!((groups[0].events.len(), groups[0].times.len()), (10, 40));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn damaged_logs_are_read_without_panic(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        near in prop::collection::vec((4096usize..4096 + 1400, any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(), old in any::<bool>(), noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = if old { old_log() } else { log() };
        let whole = bytes.len();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for (at, value) in near {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let (events, _) = read(bytes.clone(), &Filter::default());
        prop_assert!(events.len() <= 4000);
        bytes.truncate(cut.index(whole));
        drop(read(bytes.clone(), &Filter::default()));
        bytes.extend(noise.clone());
        drop(read(bytes, &Filter::default()));
        drop(read(noise, &Filter::default()));
    }
}
