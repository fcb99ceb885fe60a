//! Settings written as TOML.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{Field, Kind};

/// A value as TOML on one line; nothing is an empty text, since TOML has no word for it.
pub fn toml(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        // JSON's escapes are TOML's; only DEL may stand in the one and not in the other.
        Value::String(_) => value.to_string().replace('\u{7f}', "\\u007F"),
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let set = table.iter().filter(|(_, it)| !it.is_null());
            let items: Vec<String> = set.map(|(name, it)| format!("{} = {}", key(name), toml(it))).collect();
            if items.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", items.join(", ")) }
        }
        other => other.to_string(),
    }
}

/// A key, in quotes where that is needed.
fn key(name: &str) -> String {
    let bare = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { toml(&Value::from(name)) }
}

/// How long a line may be.
const WIDTH: usize = 100;

/// A list with an item a line, if it is long.
fn block(value: &Value) -> String {
    let line = toml(value);
    match value {
        Value::Array(items) if line.len() > WIDTH => {
            let items: Vec<String> = items.iter().map(|it| format!("    {},", toml(it))).collect();
            format!("[\n{}\n]", items.join("\n"))
        }
        _ => line,
    }
}

/// The documentation and values of groups of settings as a file; what has no value is a comment.
pub fn default_file(groups: &[(&[Field], &Value)]) -> String {
    let mut text = String::new();
    let fields =
        groups.iter().flat_map(|(fields, values)| fields.iter().map(move |it| (it, &values[it.name])));
    // In TOML, what follows a table belongs to it.
    let (tables, plain): (Vec<_>, Vec<_>) =
        fields.partition(|(it, _)| matches!(it.kind, Kind::Table(_) | Kind::Open));
    let mut section = "";
    for (field, value) in plain {
        if section != field.section {
            section = field.section;
            let _ = writeln!(text, "\n## {section}");
        }
        let _ = write!(text, "\n{}", documentation(field));
        let _ = match value {
            Value::Null => writeln!(text, "# {} =", field.name),
            value => writeln!(text, "{} = {}", field.name, block(value)),
        };
    }
    for (field, value) in tables {
        let _ = write!(text, "\n{}", documentation(field));
        match (field.kind, value) {
            (Kind::Table(fields), value) => {
                let unset = if value.is_null() { "# " } else { "" };
                let _ = writeln!(text, "{unset}[{}]", field.name);
                // What a table may hold is explained once.
                let explained = text.contains(&documentation(&fields[0]));
                for inner in fields.iter().filter(|it| !explained || !value[it.name].is_null()) {
                    if !explained {
                        let _ = write!(text, "{}", documentation(inner));
                    }
                    let _ = match &value[inner.name] {
                        Value::Null => writeln!(text, "# {} =", inner.name),
                        value => writeln!(text, "{} = {}", inner.name, toml(value)),
                    };
                }
            }
            _ => {
                let _ = writeln!(text, "# [{}]", field.name);
            }
        }
    }
    text
}

/// Comments of at most the usual width.
fn documentation(field: &Field) -> String {
    let mut text = field.paragraphs().iter().map(|it| comment(it)).collect::<Vec<_>>().join("#\n");
    if let Kind::Choice(choices) = field.kind {
        let _ = writeln!(text, "# One of {}.", choices().join(", "));
    }
    text
}

/// A paragraph as a comment of at most the usual width.
pub fn comment(paragraph: &str) -> String {
    let mut text = String::new();
    let mut line = "#".to_owned();
    for word in paragraph.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            "#".clone_into(&mut line);
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(text, "{line}");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_back_from_the_toml_that_they_are_written_as() {
        let value =
            json!({"text": "a \"b\" \\ \n\t\u{7f} ü 😀", "list": [1, 2.5, true, ["x"]], "a.b": {"c": -1}});
        let text = format!("value = {}", toml(&value));
        assert_eq!(crate::from_toml("test", &text).unwrap()["value"], value, "{text}");
        assert_eq!(
            crate::from_toml("test", &format!("v = {}", block(&json!(vec!["word"; 40])))).unwrap()["v"],
            json!(vec!["word"; 40])
        );
    }
}
