//! Any payload, by its head.

use crate::{dcs, delta};
use vmrescue_base::bytes::{slice_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};

/// What a payload is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The file itself, or what nobody knows to be anything else.
    Plain,
    /// `DCS`: blocks of LZMS.
    Dcs,
    /// `DCN`: a delta against nothing.
    Dcn,
    /// `DCM`: a delta against the base manifest in wcp.dll.
    Dcm,
    /// `DCD`: a delta against another version of the file.
    Dcd,
    /// `DCH` and `DCX`: no reader is known.
    HeaderOnly,
    /// PA30, PA31 or PA19 without a head.
    Delta,
    /// The same behind a checksum of four bytes, as in `f\`, `r\` and `n\`.
    Differential,
}

impl Form {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Form::Plain => "plain",
            Form::Dcs => "DCS",
            Form::Dcn => "DCN",
            Form::Dcm => "DCM",
            Form::Dcd => "DCD",
            Form::HeaderOnly => "DCH or DCX",
            Form::Delta => "delta",
            Form::Differential => "delta with checksum",
        }
    }

    /// Where the delta begins; `None` when there is none.
    pub fn delta_at(self) -> Option<usize> {
        match self {
            Form::Dcn | Form::Dcm | Form::Differential => Some(4),
            Form::Dcd => Some(12),
            Form::Delta => Some(0),
            Form::Plain | Form::Dcs | Form::HeaderOnly => None,
        }
    }
}

/// What a payload is.
pub fn form(bytes: &[u8]) -> Form {
    let is_delta = |at| matches!(slice_at(bytes, at, 4), Some(b"PA30" | b"PA31" | b"PA19"));
    match slice_at(bytes, 0, 4) {
        Some(b"DCS\x01") => Form::Dcs,
        Some(b"DCN\x01") => Form::Dcn,
        Some(b"DCM\x01") => Form::Dcm,
        Some(b"DCD\x01") => Form::Dcd,
        Some(b"DCH\x01" | b"DCX\x01") => Form::HeaderOnly,
        _ if is_delta(0) => Form::Delta,
        _ if is_delta(4) => Form::Differential,
        _ => Form::Plain,
    }
}

/// What a payload holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The file.
    pub data: Vec<u8>,
    /// What the payload was.
    pub form: Form,
    /// What the delta said of itself, if it was one.
    pub header: Option<delta::Header>,
    /// A hash in the payload itself was there, and fits. Plain files and DCS have none.
    pub confirmed: bool,
    /// Why the bytes may be wrong though nothing failed.
    pub doubt: Option<String>,
}

/// Takes a payload apart: `base` is the source of a delta, `limit` the largest file that may come out.
///
/// # Errors
/// `Damaged`, `Limit`; `Unsupported` for what no public description is known of; `Invalid` when a source is needed and there is none.
pub fn decode(bytes: &[u8], base: Option<&[u8]>, limit: u64) -> Result<Decoded> {
    let form = form(bytes);
    let plain = |data: Vec<u8>, doubt: Option<&str>| Decoded {
        data,
        form,
        header: None,
        confirmed: false,
        doubt: doubt.map(str::to_string),
    };
    let Some(at) = form.delta_at() else {
        return match form {
            Form::Dcs => Ok(plain(dcs::decode(bytes, limit)?, Some("DCS carries no checksum"))),
            Form::HeaderOnly => Err(Error::unsupported(
                Layer::Payload,
                "a payload of the kind DCH or DCX: nothing public tells how it is read",
            )),
            _ if bytes.len() as u64 > limit => Err(Error::limit(Layer::Payload, "the file is too large")),
            _ => Ok(plain(bytes.to_vec(), None)),
        };
    };
    let delta = bytes.get(at..).unwrap_or_default();
    if form == Form::Differential {
        let (said, is) = (u32_at(bytes, 0).unwrap_or(0), crc32fast::hash(delta));
        if said != is {
            return Err(Error::damaged(Layer::Payload, "the checksum ahead of the delta does not fit")
                .at(0)
                .expected(format!("{is:#010x}"))
                .found(format!("{said:#010x}")));
        }
    }
    let header = delta::header(delta).map_err(|e| placed(e, at))?;
    let source = match (form, base) {
        (Form::Dcn, _) => &[][..],
        (_, Some(base)) => base,
        // One against nothing needs no source; whether it is one shows when it is applied.
        (Form::Delta | Form::Differential, None) => &[][..],
        (Form::Dcm, None) => {
            return Err(needs("the base manifest, resource 614 of wcp.dll in the guest's servicing stack"));
        }
        (_, None) => return Err(needs("another version of the file")),
    };
    let applied = delta::apply(delta, source, limit).map_err(|e| match base {
        None if form != Form::Dcn => placed(e, at).advice("it may need a source: --base FILE"),
        _ => placed(e, at),
    })?;
    Ok(Decoded {
        data: applied.data,
        form,
        header: Some(header),
        confirmed: applied.confirmed,
        doubt: applied.doubt,
    })
}

fn needs(what: &str) -> Error {
    Error::invalid(Layer::Payload, format!("a delta against {what}, which was not given"))
        .advice("name it with --base FILE")
}

/// Offsets of a delta are counted from its own start.
fn placed(error: Error, at: usize) -> Error {
    if at == 0 { error } else { error.context(format!("in the delta at {at:#x}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    fn texts() -> (Vec<u8>, Vec<u8>) {
        let old: Vec<u8> = (0..6000u32).map(|i| (i * i % 251) as u8).collect();
        let mut new = old.clone();
        new[100..150].fill(7);
        new[3000] = 9;
        new.extend(b"and more");
        (old, new)
    }

    #[test]
    fn every_form_gives_the_file() {
        let (old, new) = texts();
        let limit = 1 << 20;
        for (packed, base, confirmed) in [
            (new.clone(), None, false),
            (testing::dcs(&new), None, false),
            ([&b"DCN\x01"[..], &testing::pa30(b"", &new)].concat(), None, true),
            (
                [&b"DCD\x01\x38\x01\xee\x42\0\0\x0a\0"[..], &testing::pa30(&old, &new)].concat(),
                Some(&old),
                true,
            ),
            (testing::pa30(&old, &new), Some(&old), true),
            (testing::differential(&old, &new), Some(&old), true),
            (testing::dcm(&old, &new), Some(&old), false),
        ] {
            let found = decode(&packed, base.map(Vec::as_slice), limit).unwrap();
            assert!(found.data == new && found.confirmed == confirmed, "{:?}", found.form);
            assert!(decode(&packed, base.map(Vec::as_slice), 100).is_err(), "{:?}", found.form);
        }
    }

    #[test]
    fn a_wrong_source_is_told_by_the_hash_and_a_wrong_checksum_at_once() {
        let (old, new) = texts();
        let mut wrong = old.clone();
        wrong[5000] ^= 1;
        let packed = testing::differential(&old, &new);
        let error = decode(&packed, Some(&wrong), 1 << 20).unwrap_err();
        assert!(error.to_string().contains("hash"), "{error}");
        let mut flipped = packed;
        flipped[1] ^= 1;
        assert_eq!(decode(&flipped, Some(&old), 1 << 20).unwrap_err().offset(), Some(0));
        assert!(decode(b"DCH\x01....", None, 9).is_err());
        assert!(decode(&testing::dcm(&old, &new), None, 1 << 20).unwrap_err().advice_text().is_some());
    }

    proptest! {
        #[test]
        fn a_damaged_delta_never_gives_other_bytes(place in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (old, new) = texts();
            let mut packed = testing::pa30(&old, &new);
            let at = place.index(packed.len());
            packed[at] ^= 1 << bit;
            if let Ok(found) = decode(&packed, Some(&old), 1 << 20) {
                prop_assert!(!found.confirmed || found.data == new);
            }
        }

        #[test]
        fn anything_is_read_without_a_panic(head in prop::sample::select(vec!["PA30", "PA31", "DCN\u{1}", "DCS\u{1}"]), rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [head.as_bytes(), &rest].concat();
            drop(decode(&bytes, Some(&rest), 1 << 16));
        }
    }
}
