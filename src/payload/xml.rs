//! XML as the servicing stack writes it (component manifests, pending.xml): tags with their attributes, one after the other, over the text
//! in memory. Lenient: what is no tag is text, a file that is cut off ends early. Missing: namespaces are left on the names, entities other
//! than the five of XML and numbers stay as they are, no DTD.

use std::borrow::Cow;

/// Longest tag that is looked at; longer ones end the document. Security descriptors in base64 make long ones.
const MAX_TAG: usize = 4 << 20;
/// Attributes of one tag that are looked at.
const MAX_ATTRIBUTES: usize = 64;

/// A part of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// `<name attributes>` or, with the flag, `<name attributes/>`.
    Open(Tag<'a>, bool),
    /// `</name>`.
    Close(&'a str),
    /// Text between tags, as it stands.
    Text(&'a str),
}

/// A tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag<'a> {
    /// Name with its prefix.
    pub name: &'a str,
    attributes: &'a str,
}

impl<'a> Tag<'a> {
    /// Name without its prefix.
    pub fn local(&self) -> &'a str {
        local(self.name)
    }

    /// The value of an attribute; case matters, the prefix does not.
    pub fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.attributes;
        for _ in 0..MAX_ATTRIBUTES {
            let (key, after) = rest.split_once('=')?;
            let after = after.trim_start();
            let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let (value, next) = after[1..].split_once(quote)?;
            if local(key.trim()) == name {
                return Some(unescaped(value));
            }
            rest = next;
        }
        None
    }
}

/// A name without its prefix.
pub fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let entity = after.split_once(';').filter(|(name, _)| name.len() <= 10);
        let found = entity.and_then(|(name, next)| Some((entity_char(name)?, next)));
        match found {
            Some((c, next)) => {
                out.push(c);
                rest = next;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn entity_char(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

/// The parts of a document.
pub struct Parts<'a>(pub &'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    // Bounded: each step takes at least one character off the text.
    fn next(&mut self) -> Option<Part<'a>> {
        loop {
            let text = self.0;
            if text.is_empty() {
                return None;
            }
            let Some(inside) = text.strip_prefix('<') else {
                let end = text.find('<').unwrap_or(text.len());
                self.0 = &text[end..];
                return Some(Part::Text(&text[..end]));
            };
            if let Some(comment) = inside.strip_prefix("!--") {
                self.0 = comment.split_once("-->").map_or("", |(_, rest)| rest);
                continue;
            }
            let end = tag_end(inside)?;
            let (tag, rest) = (&inside[..end], &inside[end + 1..]);
            self.0 = rest;
            if tag.starts_with(['?', '!']) {
                continue;
            }
            if let Some(name) = tag.strip_prefix('/') {
                return Some(Part::Close(name.trim()));
            }
            let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let (name, attributes) = tag.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((tag, ""));
            return Some(Part::Open(Tag { name, attributes }, empty));
        }
    }
}

/// Place of the `>` that ends a tag: one outside of quotes.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate().take(MAX_TAG) {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

/// The text of a file in UTF-8 or UTF-16, by its byte order mark.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match bytes {
        [0xff, 0xfe, rest @ ..] => Cow::Owned(vmrescue_base::text::utf16le_lossy(rest)),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest),
        _ => String::from_utf8_lossy(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tags_attributes_and_text_are_told_apart() {
        let text = "<?xml version='1.0'?><!-- <no/> --><a:b x=\"1 > 0\" y:z='&lt;&#65;&amp;&no;'/>t<c>u</c>";
        let parts: Vec<Part<'_>> = Parts(text).collect();
        let Part::Open(tag, true) = parts[0] else { panic!("{parts:?}") };
        assert_eq!((tag.name, tag.local()), ("a:b", "b"));
        assert_eq!(tag.attribute("x").as_deref(), Some("1 > 0"));
        assert_eq!(tag.attribute("z").as_deref(), Some("<A&&no;"));
        assert_eq!(tag.attribute("q"), None);
        assert_eq!(parts[1], Part::Text("t"));
        assert!(matches!(parts[2], Part::Open(_, false)));
        assert_eq!(parts[3..], [Part::Text("u"), Part::Close("c")]);
        assert_eq!(Parts("<cut off=\"").count(), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[<>/a:=\"'& ;#x!é\\-]{0,60}") {
            for part in Parts(&text) {
                if let Part::Open(tag, _) = part {
                    drop(tag.attribute("a"));
                }
            }
        }
    }
}
