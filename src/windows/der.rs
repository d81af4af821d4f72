//! DER (X.690): tag, length, content. Just enough to walk PKCS #7 signatures and catalogs. Indefinite lengths and tags above 30 are not
//! read: neither occurs in files that Windows accepts.

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// The tag octet: class, constructed bit and number.
    pub(super) tag: u8,
    /// The content octets.
    pub(super) content: &'a [u8],
    /// Tag, length and content.
    pub(super) whole: &'a [u8],
}

/// Tags that are met here.
pub(super) mod tag {
    pub(in super::super) const OCTETS: u8 = 0x04;
    pub(in super::super) const OID: u8 = 0x06;
    pub(in super::super) const SEQUENCE: u8 = 0x30;
    pub(in super::super) const SET: u8 = 0x31;
    /// `[0]`, constructed.
    pub(in super::super) const CONTEXT_0: u8 = 0xa0;
    /// `[1]`, constructed.
    pub(in super::super) const CONTEXT_1: u8 = 0xa1;
}

/// The element at the start of `bytes`, and what follows it.
pub(super) fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, &first) = (bytes.first()?, bytes.get(1)?);
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (header, length) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x84 => {
            let count = usize::from(first & 0x7f);
            let octets = bytes.get(2..2 + count)?;
            (2 + count, octets.iter().fold(0usize, |length, octet| length << 8 | usize::from(*octet)))
        }
        _ => return None,
    };
    let end = header.checked_add(length)?;
    let whole = bytes.get(..end)?;
    Some((Element { tag, content: &whole[header..], whole }, &bytes[end..]))
}

/// The elements inside of `bytes`, up to the first that is none.
pub(super) struct Elements<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    // Bounded: an element takes at least two octets.
    fn next(&mut self) -> Option<Element<'a>> {
        let (found, rest) = element(self.0)?;
        self.0 = rest;
        Some(found)
    }
}

impl<'a> Element<'a> {
    /// The elements inside.
    pub(super) fn inner(&self) -> Elements<'a> {
        Elements(self.content)
    }

    /// Itself, when it has that tag.
    pub(super) fn expect(self, tag: u8) -> Option<Element<'a>> {
        (self.tag == tag).then_some(self)
    }

    /// True for this object identifier, given as content octets.
    pub(super) fn is_oid(&self, octets: &[u8]) -> bool {
        self.tag == tag::OID && self.content == octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_of_all_forms_are_read() {
        assert_eq!(element(&[4, 2, 1, 2, 9]).unwrap().0.content, [1, 2]);
        let mut long = vec![0x30, 0x82, 1, 0];
        long.extend([7; 256]);
        assert_eq!(element(&long).unwrap().0.content.len(), 256);
        assert!(
            element(&[4, 0x80, 0, 0]).is_none()
                && element(&[4, 3, 1]).is_none()
                && element(&[0x1f, 0]).is_none()
        );
        assert!(element(&[4, 0x84, 0xff, 0xff, 0xff, 0xff]).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let total: usize = Elements(&bytes).map(|found| found.whole.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
