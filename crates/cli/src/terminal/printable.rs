//! What a terminal obeys, made visible.
//!
//! Answers, tokens, error messages, file names, displays of scorer programs: most of what is printed was written by
//! somebody else. A terminal takes some characters for commands, which set its title, answer in the user's name, write
//! to the clipboard, or overwrite lines that were printed before. Such characters are printed as `\u001b`, the escape
//! that JSON has for them, so that a line of JSON stays one with the same meaning.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A text without characters that a terminal obeys: control characters but line feeds and tabs, a carriage return unless
/// it belongs to a line end, and the marks that reorder text written in two directions (U+202A–202E, U+2066–2069).
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let mut out: Option<String> = None;
    for (at, it) in text.char_indices() {
        if is_obeyed(it) && !(it == '\r' && text[at + 1..].starts_with('\n')) {
            let out = out.get_or_insert_with(|| text[..at].to_owned());
            let _ = write!(out, "\\u{:04x}", u32::from(it));
        } else if let Some(out) = &mut out {
            out.push(it);
        }
    }
    out.map_or(Cow::Borrowed(text), Cow::Owned)
}

fn is_obeyed(it: char) -> bool {
    match it {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => it.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_not_touched() {
        for text in ["", "two\nlines\tand a tab", "a line\r\n", "naïve – 日本語 👩‍💻 שלום", "a\u{a0}b"]
        {
            assert!(matches!(printable(text), Cow::Borrowed(it) if it == text), "{text:?}");
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_printed_as_an_escape() {
        for (text, printed) in [
            ("\u{1b}]0;title\u{7}\u{1b}[2J", r"\u001b]0;title\u0007\u001b[2J"),
            // The same commands as single characters (C1), in UTF-8 of two bytes.
            ("\u{9d}52;c;aGk=\u{9c}", r"\u009d52;c;aGk=\u009c"),
            ("over\rwritten", r"over\u000dwritten"),
            ("ends in one\r", r"ends in one\u000d"),
            ("de\u{8}\u{7f}leted", r"de\u0008\u007fleted"),
            ("user\u{202e}toor\u{2066}", r"user\u202etoor\u2066"),
            ("\0", r"\u0000"),
        ] {
            assert_eq!(printable(text), printed);
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"a\u{9b}31m": "\u{7f}\u{1b}[0m\u{202e}"});
        let printed = printable(&value.to_string()).into_owned();
        assert!(!printed.chars().any(is_obeyed), "{printed}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
    }
}
