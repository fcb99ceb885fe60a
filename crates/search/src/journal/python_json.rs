//! What Python writes as JSON although it is not.
//!
//! Python's `json` writes numbers that are not finite as bare `NaN`, `Infinity` and `-Infinity`, and halves of
//! surrogate pairs as lone escapes; strict parsers refuse both. Here such a number becomes a string of the same
//! spelling, which [`number`] reads back, and a lone surrogate the replacement character U+FFFD.

use std::borrow::Cow;

use serde_json::Value;

/// The spellings, longest match first.
const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// A line of Python's JSON as strict JSON.
pub(super) fn to_json(line: &str) -> Cow<'_, str> {
    if !["NaN", "Infinity", "\\ud", "\\uD"].iter().any(|it| line.contains(it)) {
        return Cow::Borrowed(line);
    }
    let mut json = String::with_capacity(line.len() + 16);
    let mut rest = line;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        let length = if in_string {
            if next == '\\' {
                push_escape(&mut json, rest)
            } else {
                in_string = next != '"';
                push(&mut json, rest, next.len_utf8())
            }
        } else if let Some(found) = NUMBERS.iter().find(|it| rest.starts_with(**it)) {
            json.push('"');
            push(&mut json, rest, found.len());
            json.push('"');
            found.len()
        } else {
            in_string = next == '"';
            push(&mut json, rest, next.len_utf8())
        };
        rest = &rest[length..];
    }
    Cow::Owned(json)
}

/// Copies the first `length` bytes.
fn push(json: &mut String, rest: &str, length: usize) -> usize {
    json.push_str(&rest[..length]);
    length
}

/// Copies an escape, the two halves of a surrogate pair together, and returns how many bytes were read.
fn push_escape(json: &mut String, rest: &str) -> usize {
    let unit = |at: usize| -> Option<u32> {
        let digits = rest.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => push(json, rest, 12),
        (Some(0xD800..=0xDFFF), _) => {
            json.push_str("\\ufffd");
            6
        }
        // The backslash and whatever stands after it, if anything does.
        _ => push(json, rest, 1 + rest[1..].chars().next().map_or(0, char::len_utf8)),
    }
}

/// A number, finite or not, as Python would read it.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(it) => it.as_f64(),
        Value::String(it) if NUMBERS.contains(&it.as_str()) => it.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Value {
        serde_json::from_str(&to_json(line)).unwrap()
    }

    #[test]
    fn numbers_that_are_not_finite_can_be_read() {
        let values = parsed(r#"[NaN,Infinity,-Infinity,-1,{"NaN":Infinity}]"#);
        let numbers: Vec<f64> = values.as_array().unwrap().iter().filter_map(number).collect();
        assert!(numbers[0].is_nan());
        assert_eq!(numbers[1..], [f64::INFINITY, f64::NEG_INFINITY, -1.0]);
        assert_eq!(number(&values[4]["NaN"]), Some(f64::INFINITY));
    }

    #[test]
    fn text_that_only_looks_like_a_number_stays_as_it_is() {
        for text in [r#"["NaN"]"#, r#"["a \"NaN\" b","\\"]"#, r#"["\\\"Infinity"]"#, r#"{"é":"-Infinity"}"#]
        {
            assert_eq!(to_json(text), text);
        }
        assert_eq!(number(&Value::from("nan")), None);
        assert_eq!(number(&Value::from("1.0")), None);
    }

    #[test]
    fn half_a_surrogate_pair_becomes_the_replacement_character() {
        assert_eq!(parsed(r#"["\ud83d\ude00","\ud83dx","\udc00"]"#).to_string(), r#"["😀","�x","�"]"#);
    }

    #[test]
    fn broken_text_stays_broken_instead_of_panicking() {
        for text in [r#"["NaN\"#, r#"NaN"\u"#, r#"NaN"\ud8"#, r#"["\ud83d\u"#, "NaN\"\\é", r#""\ud800\u+123"#]
        {
            assert!(serde_json::from_str::<Value>(&to_json(text)).is_err(), "{text}");
        }
    }
}
