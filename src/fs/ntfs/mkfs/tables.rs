//! The two tables that every volume carries: $UpCase and $AttrDef.

/// The upper case of every UTF-16 unit, as Windows writes it; readers always use the table of the volume.
pub(crate) fn upcase() -> Vec<u16> {
    vmrescue_base::names::upper_table().to_vec()
}

/// Name, type, flags (0x02 indexable, 0x40 must be resident, 0x80 may be non-resident), least and most bytes.
const ATTRIBUTES: [(&str, u32, u32, u64, u64); 15] = [
    ("$STANDARD_INFORMATION", 0x10, 0x40, 0x30, 0x48),
    ("$ATTRIBUTE_LIST", 0x20, 0x80, 0, u64::MAX),
    ("$FILE_NAME", 0x30, 0x42, 0x44, 0x242),
    ("$OBJECT_ID", 0x40, 0x40, 0, 0x100),
    ("$SECURITY_DESCRIPTOR", 0x50, 0x80, 0, u64::MAX),
    ("$VOLUME_NAME", 0x60, 0x40, 2, 0x100),
    ("$VOLUME_INFORMATION", 0x70, 0x40, 0xC, 0xC),
    ("$DATA", 0x80, 0, 0, u64::MAX),
    ("$INDEX_ROOT", 0x90, 0x40, 0, u64::MAX),
    ("$INDEX_ALLOCATION", 0xA0, 0x80, 0, u64::MAX),
    ("$BITMAP", 0xB0, 0x80, 0, u64::MAX),
    ("$REPARSE_POINT", 0xC0, 0x80, 0, 0x4000),
    ("$EA_INFORMATION", 0xD0, 0x40, 8, 8),
    ("$EA", 0xE0, 0, 0, 0x10000),
    ("$LOGGED_UTILITY_STREAM", 0x100, 0x80, 0, 0x10000),
];

/// The $AttrDef table: 160 bytes an attribute and an empty entry at the end.
pub(crate) fn attribute_definitions() -> Vec<u8> {
    let mut out = Vec::with_capacity(160 * 16);
    for (name, code, flags, least, most) in ATTRIBUTES {
        let mut entry = vmrescue_base::text::utf16le_bytes(name);
        entry.resize(0x80, 0);
        for number in [code, 0, 0, flags] {
            entry.extend_from_slice(&number.to_le_bytes());
        }
        entry.extend_from_slice(&least.to_le_bytes());
        entry.extend_from_slice(&most.to_le_bytes());
        out.append(&mut entry);
    }
    out.resize(160 * 16, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_go_up_and_oddities_stay() {
        let table = upcase();
        assert_eq!(table.len(), 0x10000);
        for (from, to) in
            [('a', 'A'), ('ä', 'Ä'), ('ж', 'Ж'), ('ÿ', 'Ÿ'), ('ı', 'ı'), ('ſ', 'ſ'), ('µ', 'µ'), ('ß', 'ß')]
        {
            assert_eq!(table[from as usize], to as u16, "{from}");
        }
        assert_eq!(attribute_definitions().len(), 2560);
    }
}
