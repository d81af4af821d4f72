//! The XML of an event as fields: a small reader for what the crate `evtx` renders (elements, attributes, text, entities; no DTD,
//! no CDATA, no comments). The layout of `System`, `EventData` and `UserData` is that of [MS-EVEN6] 2.2.13 and the event schema.

use super::{Datum, Event};
use vmrescue_base::time::FileTime;

/// Most elements inside one another that are followed.
const MAX_DEPTH: usize = 64;
/// Most parameters that one event is shown with.
const MAX_DATA: usize = 4096;

/// A part of the text.
enum Token<'a> {
    Open { name: &'a str, attributes: &'a str, empty: bool },
    Close,
    Text(&'a str),
}

/// Splits text into tags and what is between them; ends at the first thing that is neither.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = self.0;
        if rest.is_empty() {
            return None;
        }
        let Some(tag) = rest.strip_prefix('<') else {
            let end = rest.find('<').unwrap_or(rest.len());
            self.0 = &rest[end..];
            return Some(Token::Text(&rest[..end]));
        };
        let end = tag_end(tag)?;
        let (body, after) = (&tag[..end], &tag[end + 1..]);
        self.0 = after;
        if body.starts_with('/') {
            return Some(Token::Close);
        }
        if body.starts_with(['?', '!']) {
            return Some(Token::Text(""));
        }
        let empty = body.ends_with('/');
        let body = body.strip_suffix('/').unwrap_or(body);
        let name_end = body.find(char::is_whitespace).unwrap_or(body.len());
        Some(Token::Open { name: &body[..name_end], attributes: &body[name_end..], empty })
    }
}

/// Place of the `>` that ends a tag, not counting those in quotes.
fn tag_end(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in tag.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

/// The value of an attribute.
fn attribute(attributes: &str, wanted: &str) -> Option<String> {
    let mut rest = attributes;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, next) = after[1..].split_once(quote)?;
        if name.trim() == wanted {
            return Some(unescape(value));
        }
        rest = next;
    }
}

/// Text with its entities put in.
fn unescape(text: &str) -> String {
    if !text.contains('&') {
        return text.to_string();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // The longest entity that is written is `&#x10ffff;`.
        let entity = rest.bytes().take(12).position(|b| b == b';').map(|end| &rest[1..end]);
        match entity.and_then(entity_char) {
            Some(c) => {
                out.push(c);
                rest = &rest[entity.map_or(1, |name| name.len() + 2)..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn entity_char(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

/// A number as the event schema writes it: decimal or `0x...`.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Reads an event; `None` when there is no element `System` with a number.
pub(super) fn event(xml: &str, log: &str, record_id: u64, time: FileTime) -> Option<Event> {
    let mut event = Event {
        time,
        log: log.to_string(),
        record_id,
        provider: String::new(),
        id: 0,
        qualifiers: None,
        version: 0,
        level: 0,
        task: 0,
        opcode: 0,
        keywords: String::new(),
        computer: String::new(),
        user: None,
        process: None,
        thread: None,
        data: Vec::new(),
        message: None,
    };
    let mut found = false;
    // For each open element: its name, the name that a parameter gets, its text, and whether it has elements inside.
    let mut open: Vec<(&str, String, String, bool)> = Vec::new();
    for token in Tokens(xml) {
        match token {
            Token::Text(text) => {
                if let Some((_, _, all, _)) = open.last_mut() {
                    all.push_str(text);
                }
            }
            Token::Open { name, attributes, empty } => {
                if let Some(parent) = open.last_mut() {
                    parent.3 = true;
                }
                if open.get(1).is_some_and(|(section, ..)| *section == "System") {
                    system_attributes(&mut event, name, attributes);
                }
                let label = match name {
                    "Data" | "ComplexData" => attribute(attributes, "Name").unwrap_or_default(),
                    name => name.to_string(),
                };
                open.push((name, label, String::new(), false));
                if empty {
                    close(&mut open, &mut event, &mut found);
                }
            }
            Token::Close => close(&mut open, &mut event, &mut found),
        }
        if open.len() > MAX_DEPTH {
            break;
        }
    }
    found.then_some(event)
}

fn system_attributes(event: &mut Event, name: &str, attributes: &str) {
    match name {
        "Provider" => {
            let name = attribute(attributes, "Name").or_else(|| attribute(attributes, "EventSourceName"));
            event.provider = name.or_else(|| attribute(attributes, "Guid")).unwrap_or_default();
        }
        "EventID" => event.qualifiers = attribute(attributes, "Qualifiers").and_then(|q| q.parse().ok()),
        // The header of the record has the time; some exported logs have it only here.
        "TimeCreated" if event.time.is_zero() => {
            let time = attribute(attributes, "SystemTime").and_then(|text| FileTime::parse_utc(&text));
            event.time = time.unwrap_or_default();
        }
        "Security" => event.user = attribute(attributes, "UserID").filter(|user| !user.is_empty()),
        "Execution" => {
            event.process = attribute(attributes, "ProcessID").and_then(|id| number(&id));
            event.thread = attribute(attributes, "ThreadID").and_then(|id| number(&id));
        }
        _ => {}
    }
}

/// An element ends: a field of `System`, or a parameter when nothing is inside it.
fn close(open: &mut Vec<(&str, String, String, bool)>, event: &mut Event, found: &mut bool) {
    let Some((name, label, text, has_elements)) = open.pop() else { return };
    match (open.get(1).map(|(section, ..)| *section), open.len()) {
        (Some("System"), 2) => {
            let text = unescape(text.trim());
            match name {
                "EventID" => {
                    if let Some(id) = number(&text) {
                        // Classic providers write all 32 bits; the Event Viewer shows the lower 16.
                        event.id = id & 0xffff;
                        *found = true;
                    }
                }
                "Version" => event.version = text.parse().unwrap_or(0),
                "Level" => event.level = text.parse().unwrap_or(0),
                "Task" => event.task = number(&text).unwrap_or(0),
                "Opcode" => event.opcode = number(&text).unwrap_or(0),
                "Keywords" => event.keywords = text,
                "Channel" if !text.is_empty() => event.log = text,
                "Computer" => event.computer = text,
                _ => {}
            }
        }
        (Some("EventData" | "UserData" | "DebugData" | "ProcessingErrorData"), _)
            if !has_elements && event.data.len() < MAX_DATA =>
        {
            event.data.push(Datum { name: label, value: unescape(&text) });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_parameters_and_entities_are_read() {
        let xml = r#"<?xml version="1.0"?><Event xmlns="x"><System><Provider Name="A &amp; B" Guid="{1}"/>
            <EventID Qualifiers="16384">7031</EventID><Level>2</Level><Channel>System</Channel><Execution ProcessID="4" ThreadID='8'/>
            <Security UserID="S-1-5-18"/></System><EventData><Data Name="param1">a &lt;b&gt; &#65;&x;</Data><Data>2</Data><Data/>
            <Binary>00FF</Binary></EventData></Event>"#;
        let event = event(xml, "file", 7, FileTime(9)).unwrap();
        assert_eq!((event.provider.as_str(), event.id, event.qualifiers), ("A & B", 7031, Some(16384)));
        assert_eq!(
            (event.level, event.log.as_str(), event.process, event.thread),
            (2, "System", Some(4), Some(8))
        );
        let data: Vec<(&str, &str)> =
            event.data.iter().map(|d| (d.name.as_str(), d.value.as_str())).collect();
        assert_eq!(data, [("param1", "a <b> A&x;"), ("", "2"), ("", ""), ("Binary", "00FF")]);
        assert_eq!(event.value("1"), Some("a <b> A&x;"));
        let user = r#"<Event><System><EventID>1</EventID></System><UserData><CbsPackage xmlns="u"><Id>KB1</Id><Deep><X>y</X></Deep></CbsPackage></UserData></Event>"#;
        let event = super::event(user, "f", 1, FileTime(0)).unwrap();
        assert_eq!((event.value("Id"), event.value("x"), event.data.len()), (Some("KB1"), Some("y"), 2));
        assert!(super::event("<Event><System/></Event>", "f", 1, FileTime(0)).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn any_text_is_read_without_panic(text in "(<|>|/|&|;|\"|'|=|#x|Event|System|EventID|Data|\\PC){0,120}") {
            drop(event(&text, "f", 1, FileTime(0)));
            drop(event(&format!("<Event><System>{text}</System><EventData>{text}</EventData></Event>"), "f", 1, FileTime(0)));
            unescape(&text);
        }
    }
}
