//! Text from a disk on its way into HTML: nothing of it is markup.

use std::fmt::Write;

/// The text with everything escaped that HTML could take for markup, inside elements and inside quoted attributes. Control
/// characters, which HTML does not allow, are shown as U+FFFD; characters that turn the direction of writing are shown by number.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                let _infallible = write!(out, "[U+{:04X}]", u32::from(c));
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// As [`escaped`], with leave to break the line after each backslash, so that paths do not break inside names.
pub(super) fn breakable(text: &str) -> String {
    escaped(text).replace('\\', "\\<wbr>")
}

#[cfg(test)]
mod tests {
    use super::{breakable, escaped};
    use proptest::prelude::*;

    #[test]
    fn a_key_named_script_stays_text() {
        assert_eq!(
            escaped("<script>alert('&')</script>"),
            "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"
        );
        assert_eq!(escaped("a\"b\u{0}\u{202e}c"), "a&quot;b\u{fffd}[U+202E]c");
    }

    #[test]
    fn paths_break_between_their_names() {
        assert_eq!(breakable(r"C:\<a>\b"), r"C:\<wbr>&lt;a&gt;\<wbr>b");
    }

    proptest! {
        #[test]
        fn nothing_gets_through(text in any::<String>()) {
            let out = escaped(&text);
            let lost = out.contains(['<', '>', '"', '\'']);
            prop_assert!(!lost);
            prop_assert!(out.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }
    }
}
