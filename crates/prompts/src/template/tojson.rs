//! The filter `tojson`, as the reference stack defines it: Python's `json.dumps`, nothing escaped for HTML.
//!
//! Parameters, in order and by name: `ensure_ascii` (false), `indent` (none, a number of spaces or a text),
//! `separators` (a pair), `sort_keys` (false).

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::python;

/// How deep values may be nested. Python stops near its recursion limit of 1000; templates build their values.
const MAX_DEPTH: usize = 200;

struct Style {
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

/// `value|tojson(…)`.
#[expect(clippy::needless_pass_by_value, reason = "the engine calls filters with values")]
pub(super) fn filter(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let style = Style::new(&args.0, &kwargs)?;
    kwargs.assert_all_used()?;
    let mut out = String::new();
    style.write(&mut out, value, 0)?;
    Ok(Value::from(out))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

impl Style {
    fn new(args: &[Value], kwargs: &Kwargs) -> Result<Self, Error> {
        if args.len() > 4 {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        let argument = |index: usize, name: &str| -> Result<Value, Error> {
            let named: Option<Value> = kwargs.get(name)?;
            Ok(args.get(index).cloned().or(named).unwrap_or_default())
        };
        let indent = argument(1, "indent")?;
        let indent = match indent.kind() {
            ValueKind::Undefined | ValueKind::None => None,
            ValueKind::String => Some(indent.to_string()),
            ValueKind::Bool => Some(" ".repeat(usize::from(indent.is_true()))),
            _ => {
                let width = indent.as_i64().ok_or_else(|| invalid(format!("tojson: indent `{indent}`")))?;
                Some(" ".repeat(usize::try_from(width.clamp(0, 64)).expect("clamped")))
            }
        };
        let separators = argument(2, "separators")?;
        let (item, key) = match separators.kind() {
            ValueKind::Undefined | ValueKind::None => {
                (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned())
            }
            _ => match separators.try_iter()?.collect::<Vec<_>>().as_slice() {
                [item, key] => (item.to_string(), key.to_string()),
                _ => return Err(invalid(format!("tojson: separators `{separators}`, expected a pair"))),
            },
        };
        let ensure_ascii = argument(0, "ensure_ascii")?.is_true();
        let sort_keys = argument(3, "sort_keys")?.is_true();
        Ok(Self { ensure_ascii, indent, item, key, sort_keys })
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("tojson: more than {MAX_DEPTH} levels")));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.write_string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_block(out, ['[', ']'], items.len(), depth, |style, out, index| {
                    style.write(out, &items[index], depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut pairs = Vec::new();
                for key in value.try_iter()? {
                    pairs.push((key_text(&key)?, value.get_item(&key)?));
                }
                if self.sort_keys {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.write_block(out, ['{', '}'], pairs.len(), depth, |style, out, index| {
                    style.write_string(out, &pairs[index].0);
                    out.push_str(&style.key);
                    style.write(out, &pairs[index].1, depth + 1)
                })?;
            }
            other => return Err(invalid(format!("tojson: a value of kind {other} has no JSON form"))),
        }
        Ok(())
    }

    /// Brackets, separators and indentation around `count` items.
    fn write_block(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        count: usize,
        depth: usize,
        mut write_item: impl FnMut(&Self, &mut String, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for index in 0..count {
            if index > 0 {
                out.push_str(&self.item);
            }
            self.break_line(out, depth + 1);
            write_item(self, out, index)?;
        }
        if count > 0 {
            self.break_line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn break_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn write_string(&self, out: &mut String, text: &str) {
        out.push('"');
        for it in text.chars() {
            match it {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\0'..='\u{1f}' => escape(out, it),
                '\u{7f}'.. if self.ensure_ascii && !it.is_ascii() => escape(out, it),
                _ => out.push(it),
            }
        }
        out.push('"');
    }
}

/// `\uXXXX`, twice for what lies beyond the basic plane.
fn escape(out: &mut String, it: char) {
    for unit in it.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), python::float)
}

/// A dictionary key as a JSON string, by Python's rules for keys that are no strings.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => Ok(number(key)),
        other => Err(invalid(format!("tojson: a key of kind {other}"))),
    }
}
