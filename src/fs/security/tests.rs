use super::*;
use proptest::prelude::*;

fn sid(authority: u8, parts: &[u32]) -> Sid {
    Sid::new(authority, parts)
}

fn with(aces: Vec<Ace>) -> Descriptor {
    Descriptor {
        control: control::SELF_RELATIVE | control::DACL_PRESENT,
        owner: Some(sid(5, &[80, 1, 2, 3])),
        group: Some(Sid::system()),
        sacl: None,
        dacl: Some(Acl { revision: 2, aces }),
    }
}

#[test]
fn what_is_written_is_read_and_shown() {
    let descriptor = with(vec![
        Ace::allow(0x10, 0x001F_01FF, &Sid::administrators()),
        Ace::allow(0x03, 0x0012_00A9, &sid(5, &[32, 545])),
        Ace { kind: 1, ..Ace::allow(0, 0x0001_0000, &sid(1, &[0])) },
    ]);
    let bytes = descriptor.encode();
    assert_eq!(Descriptor::parse(&bytes).unwrap(), descriptor);
    assert_eq!(
        descriptor.sddl(),
        "O:S-1-5-80-1-2-3G:SYD:(A;ID;FA;;;BA)(A;OICI;0x1200a9;;;BU)(D;;0x10000;;;WD)"
    );
    let null = Descriptor { dacl: None, ..descriptor };
    let again = Descriptor::parse(&null.encode()).unwrap();
    assert_eq!((again.sddl().as_str(), again.dacl), ("O:S-1-5-80-1-2-3G:SYD:NO_ACCESS_CONTROL", None));
}

#[test]
fn files_and_directories_inherit_as_on_windows() {
    // The list of a root that Windows formats, with an entry of each rule more.
    let root = with(vec![
        Ace::allow(0x00, 0x001F_01FF, &Sid::administrators()),
        Ace::allow(0x0B, 0x1000_0000, &Sid::administrators()),
        Ace::allow(0x0B, 0x1000_0000, &Sid::creator_owner()),
        Ace::allow(0x03, 0x0012_00A9, &sid(5, &[32, 545])),
        Ace::allow(0x0A, 0x0000_0004, &sid(5, &[32, 546])),
        Ace::allow(0x09, 0x0000_0002, &sid(1, &[0])),
        Ace::allow(0x07, 0x0000_0001, &Sid::system()),
    ]);
    let file = Descriptor::inherited(Some(&root), false);
    assert_eq!(
        file.sddl(),
        "O:BAG:SYD:AI(A;ID;FA;;;BA)(A;ID;FA;;;BA)(A;ID;0x1200a9;;;BU)(A;ID;0x2;;;WD)(A;ID;0x1;;;SY)"
    );
    let directory = Descriptor::inherited(Some(&root), true);
    assert_eq!(
        directory.sddl(),
        "O:BAG:SYD:AI(A;ID;FA;;;BA)(A;OICIIOID;GA;;;BA)(A;ID;FA;;;BA)(A;OICIIOID;GA;;;CO)(A;OICIID;0x1200a9;;;BU)\
         (A;CIID;0x4;;;BG)(A;OIIOID;0x2;;;WD)(A;ID;0x1;;;SY)"
    );
    // One level more: the entry without propagation is gone, the rest stays.
    let below = Descriptor::inherited(Some(&directory), true).sddl();
    assert!(!below.contains("0x1;;;SY") && below.contains("(A;OICIID;0x1200a9;;;BU)"), "{below}");
    let nothing = Descriptor::inherited(Some(&with(Vec::new())), false);
    assert_eq!(nothing.sddl(), "O:BAG:SYD:(A;;FA;;;BA)(A;;FA;;;SY)");
    assert_eq!(Descriptor::inherited(None, true), nothing);
}

#[test]
fn labels_and_audits_are_inherited_too() {
    let label =
        Ace { kind: 0x11, flags: 0x03, body: [&1u32.to_le_bytes()[..], sid(16, &[4096]).bytes()].concat() };
    let audit = Ace { kind: 2, flags: 0xC3, body: Ace::allow(0, 0x1000_0000, &sid(1, &[0])).body };
    let sacl = Some(Acl { revision: 2, aces: vec![label, audit] });
    let root = Descriptor { sacl, control: 0x8014, ..with(Vec::new()) };
    let file = Descriptor::inherited(Some(&root), false).sddl();
    assert!(file.ends_with("S:AI(ML;ID;NW;;;LW)(AU;IDSAFA;FA;;;WD)"), "{file}");
}

proptest! {
    #[test]
    fn anything_is_parsed_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), patch in any::<bool>()) {
        if patch && bytes.len() > 20 {
            bytes[..4].copy_from_slice(&[1, 0, 0x14, 0x80]);
            for (at, offset) in [(4, 20u32), (8, 40), (12, 60), (16, 80)] {
                bytes[at..at + 4].copy_from_slice(&offset.to_le_bytes());
            }
        }
        if let Ok(descriptor) = Descriptor::parse(&bytes) {
            descriptor.sddl();
            let child = Descriptor::inherited(Some(&descriptor), true);
            prop_assert_eq!(Descriptor::parse(&child.encode()).unwrap().encode(), child.encode());
        }
    }
}
