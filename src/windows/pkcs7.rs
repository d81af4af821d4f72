//! PKCS #7 signed data (RFC 2315) as Authenticode uses it: what was signed, by whom. The mathematics of the signature and the chain to a
//! root are not checked here, so nothing in this file says that a signature is valid.

use super::der::{Element, Elements, element, tag};
use vmrescue_base::text::utf16le_lossy;

/// 1.2.840.113549.1.7.2: signed data.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// 1.3.6.1.4.1.311.2.1.4: the indirect data of Authenticode.
pub(super) const SPC_INDIRECT_DATA: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x04];
/// 1.3.6.1.4.1.311.2.4.1: a second signature inside the first.
const NESTED_SIGNATURE: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x04, 0x01];
/// 1.3.6.1.4.1.311.10.1: a certificate trust list.
pub(super) const TRUST_LIST: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x0a, 0x01];
/// 2.5.4.3: common name.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.4.10: organisation.
const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];
/// Certificates and signers of one signature that are looked at.
const MAX_PARTS: usize = 64;

/// A certificate, as far as it is needed to name the signer.
struct Certificate<'a> {
    serial: &'a [u8],
    issuer: Element<'a>,
    subject: Element<'a>,
}

impl<'a> Certificate<'a> {
    fn read(certificate: Element<'a>) -> Option<Certificate<'a>> {
        let body = certificate.expect(tag::SEQUENCE)?.inner().next()?.expect(tag::SEQUENCE)?;
        // [0] version, serial, algorithm, issuer, validity, subject.
        let mut parts = body.inner().skip_while(|part| part.tag == tag::CONTEXT_0);
        let serial = parts.next()?.content;
        let issuer = parts.nth(1)?;
        let subject = parts.nth(1)?;
        Some(Certificate { serial, issuer, subject })
    }
}

/// Signed data.
pub(super) struct SignedData<'a> {
    /// Object identifier of the content, as octets.
    pub(super) content_type: &'a [u8],
    /// The content.
    pub(super) content: Option<Element<'a>>,
    /// Name of each signer: common name and organisation; and of who issued the certificate.
    pub(super) signers: Vec<(String, String)>,
    /// Signatures inside of the first signer's.
    pub(super) nested: Vec<&'a [u8]>,
}

impl<'a> SignedData<'a> {
    /// Reads a `ContentInfo` with signed data.
    pub(super) fn read(bytes: &'a [u8]) -> Option<SignedData<'a>> {
        let mut info = element(bytes)?.0.expect(tag::SEQUENCE)?.inner();
        if !info.next()?.is_oid(SIGNED_DATA) {
            return None;
        }
        let data = info.next()?.expect(tag::CONTEXT_0)?.inner().next()?.expect(tag::SEQUENCE)?;
        let mut parts = data.inner().skip(2);
        let mut content = parts.next()?.expect(tag::SEQUENCE)?.inner();
        let content_type = content.next()?.expect(tag::OID)?.content;
        let content = content.next().and_then(|wrapped| wrapped.expect(tag::CONTEXT_0)?.inner().next());
        let (mut certificates, mut signers, mut nested) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            match part.tag {
                tag::CONTEXT_0 => {
                    certificates.extend(part.inner().take(MAX_PARTS).filter_map(Certificate::read));
                }
                tag::SET => {
                    for signer in part.inner().take(MAX_PARTS) {
                        signers.push(signer_name(signer, &certificates));
                        nested.extend(nested_in(signer));
                    }
                }
                _ => {}
            }
        }
        Some(SignedData { content_type, content, signers, nested })
    }

    /// The digest that indirect data names.
    pub(super) fn indirect_digest(&self) -> Option<&'a [u8]> {
        if self.content_type != SPC_INDIRECT_DATA {
            return None;
        }
        digest_of(self.content?)
    }
}

/// The digest in `SpcIndirectDataContent`: the octets of the second part.
pub(super) fn digest_of(indirect: Element<'_>) -> Option<&[u8]> {
    let info = indirect.expect(tag::SEQUENCE)?.inner().nth(1)?.expect(tag::SEQUENCE)?;
    Some(info.inner().nth(1)?.expect(tag::OCTETS)?.content)
}

fn signer_name(signer: Element<'_>, certificates: &[Certificate<'_>]) -> (String, String) {
    let unknown = || ("an unnamed signer".to_string(), String::new());
    // version, issuer and serial number, ...
    let Some(who) = signer.inner().nth(1).and_then(|who| who.expect(tag::SEQUENCE)) else { return unknown() };
    let mut parts = who.inner();
    let (Some(issuer), Some(serial)) = (parts.next(), parts.next()) else { return unknown() };
    let found = certificates.iter().find(|c| c.serial == serial.content && c.issuer.whole == issuer.whole);
    match found {
        Some(certificate) => (name_text(certificate.subject), name_text(issuer)),
        None => ("a signer whose certificate is not enclosed".to_string(), name_text(issuer)),
    }
}

fn nested_in<'a>(signer: Element<'a>) -> Vec<&'a [u8]> {
    let unsigned = signer.inner().find(|part| part.tag == tag::CONTEXT_1);
    let attributes = unsigned.map_or(Elements(&[]), |unsigned| unsigned.inner());
    let of = |attribute: Element<'a>| {
        let mut parts = attribute.inner();
        if !parts.next()?.is_oid(NESTED_SIGNATURE) {
            return None;
        }
        Some(parts.next()?.inner().next()?.whole)
    };
    attributes.take(MAX_PARTS).filter_map(of).collect()
}

/// Common name and organisation of a distinguished name.
fn name_text(name: Element<'_>) -> String {
    let mut found = [None, None];
    for set in name.inner().take(MAX_PARTS) {
        for pair in set.inner().take(MAX_PARTS) {
            let mut parts = pair.inner();
            let (Some(kind), Some(text)) = (parts.next(), parts.next()) else { continue };
            for (place, oid) in [COMMON_NAME, ORGANISATION].into_iter().enumerate() {
                if kind.is_oid(oid) {
                    found[place] = Some(string(text));
                }
            }
        }
    }
    found.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn string(text: Element<'_>) -> String {
    match text.tag {
        // BMPString: UTF-16, the high octet first.
        0x1e => {
            let swapped: Vec<u8> = text.content.chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]).collect();
            utf16le_lossy(&swapped)
        }
        _ => String::from_utf8_lossy(text.content).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(data) = SignedData::read(&bytes) {
                drop(data.indirect_digest().map(<[u8]>::to_vec));
            }
            if let Some((first, _)) = element(&bytes) {
                drop(name_text(first));
                prop_assert!(Certificate::read(first).is_none_or(|found| found.serial.len() <= bytes.len()));
            }
        }
    }
}
