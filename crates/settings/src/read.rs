//! Values from files, environment variables and words of the command line.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Field, Kind, Origin, SettingsError, find, nearest};

/// The settings that a TOML file gives, as they stand there.
pub fn from_file(path: &Path) -> Result<Map<String, Value>, SettingsError> {
    from_toml(&path.display().to_string(), &files::read_text(path, files::SMALL)?)
}

/// The same of a text; errors call it `name`.
pub fn from_toml(name: &str, text: &str) -> Result<Map<String, Value>, SettingsError> {
    let wrong = |reason: String| SettingsError::Toml { path: name.to_owned(), reason };
    let table: toml::Table =
        text.parse().map_err(|it: toml::de::Error| wrong(it.to_string().trim().to_owned()))?;
    match serde_json::to_value(table).map_err(|it| wrong(it.to_string()))? {
        Value::Object(map) => Ok(map),
        _ => Err(wrong("no table".to_owned())),
    }
}

/// The settings that variables `PREFIX…` give: each with its path, its variable and its value.
///
/// `ABLATE_N_TRIALS=50`; two underscores separate a table from its key: `ABLATE_GOOD_PROMPTS__SPLIT=train[:9]`.
/// Variables named in `others` belong to somebody else.
pub fn from_environment(
    prefix: &str,
    groups: &[&[Field]],
    others: &[&str],
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<(Vec<String>, Value, Origin)>, SettingsError> {
    let mut found = Vec::new();
    for (variable, text) in variables {
        let Some(name) = variable.strip_prefix(prefix) else { continue };
        if others.contains(&variable.as_str()) {
            continue;
        }
        let path: Vec<String> = name.to_lowercase().split("__").map(str::to_owned).collect();
        let origin = Origin::Environment(variable.clone());
        let Some(field) = find(groups, &path) else {
            let known: Vec<String> = groups
                .iter()
                .flat_map(|it| it.iter())
                .map(|it| format!("{prefix}{}", it.name.to_uppercase()))
                .collect();
            let hint = format!("did you mean `{}`?", nearest(&variable, known.iter().map(String::as_str))[0]);
            return Err(SettingsError::Unknown { key: path.join("."), origin, hint });
        };
        found.push((path.clone(), from_text(field, &[text], &path, &origin)?, origin));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// What words of the command line, or the text of a variable, mean for a setting.
///
/// A list is given as JSON, or one item a word.
pub fn from_text(
    field: &Field,
    texts: &[String],
    path: &[String],
    origin: &Origin,
) -> Result<Value, SettingsError> {
    let last = texts.last().map_or("", String::as_str);
    let wrong = |expected: &str| SettingsError::Value {
        key: path.join("."),
        origin: origin.clone(),
        found: format!("`{last}`"),
        expected: expected.to_owned(),
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|it| wrong(&format!("JSON ({it})")));
    Ok(match field.kind {
        Kind::Bool => match last.to_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Value::Bool(true),
            "false" | "0" | "no" | "off" => Value::Bool(false),
            _ => return Err(wrong("true or false")),
        },
        Kind::Integer { .. } => Value::from(last.parse::<u64>().map_err(|_| wrong("a whole number"))?),
        Kind::Number { .. } => Value::from(last.parse::<f64>().map_err(|_| wrong("a number"))?),
        Kind::Text | Kind::Choice(_) => Value::from(last),
        Kind::Any => serde_json::from_str(last).unwrap_or_else(|_| Value::from(last)),
        Kind::Table(_) | Kind::Texts if !last.trim_start().starts_with(['[', '{']) => Value::from(last),
        Kind::Table(_) | Kind::Texts | Kind::Open => json(last)?,
        Kind::List => match texts {
            [one] if one.trim_start().starts_with('[') => json(one)?,
            items => {
                let item =
                    |it: &String| if it.starts_with(['[', '{']) { json(it) } else { Ok(it.as_str().into()) };
                Value::Array(items.iter().map(item).collect::<Result<_, _>>()?)
            }
        },
    })
}
