//! JSON files, as Python writes them.

use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value};

use crate::links::way_out_of_link;
use crate::{CheckpointError, foreign};

/// The text of a file of a model's folder; `None` if there is no such file. A link that leaves its folder is an error.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, CheckpointError> {
    read_text_within(path.parent().unwrap_or(Path::new("/")), path)
}

/// The same for a file deeper in the folder.
pub(crate) fn read_text_within(folder: &Path, path: &Path) -> Result<Option<String>, CheckpointError> {
    if let Some(target) = way_out_of_link(folder, path) {
        return Err(CheckpointError::LinkOutside { path: path.to_owned(), target });
    }
    read_followed(path)
}

/// The text of a file, wherever it lies.
fn read_followed(path: &Path) -> Result<Option<String>, CheckpointError> {
    let io = |problem| CheckpointError::Io { path: path.to_owned(), problem };
    match std::fs::metadata(path) {
        Ok(facts) if facts.is_file() => {}
        Ok(_) => return Err(CheckpointError::NotAFile { path: path.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(io(problem)),
    }
    let bytes = std::fs::read(path).map_err(io)?;
    if bytes.is_empty() {
        return Err(CheckpointError::EmptyFile { path: path.to_owned() });
    }
    if foreign::is_git_lfs_pointer(&bytes) {
        return Err(CheckpointError::GitLfsPointer { path: path.to_owned() });
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let valid_up_to = error.utf8_error().valid_up_to();
        foreign::error(path, error.as_bytes(), "a text in UTF-8")
            .unwrap_or_else(|| CheckpointError::NotUtf8 { path: path.to_owned(), valid_up_to })
    })
}

/// The JSON object in a file of a model's folder; `None` if there is no such file.
pub(crate) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, CheckpointError> {
    read_text(path)?.map(|it| object(path, &it)).transpose()
}

/// The same for a file that belongs to the weights, which may lie anywhere.
pub(crate) fn read_object_of_weights(path: &Path) -> Result<Option<Map<String, Value>>, CheckpointError> {
    read_followed(path)?.map(|it| object(path, &it)).transpose()
}

fn object(path: &Path, text: &str) -> Result<Map<String, Value>, CheckpointError> {
    match parse(text) {
        Ok(Value::Object(object)) if is_refusal(&object) => Err(foreign::refusal(path, text)),
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(unexpected(path, "the whole file", "an object", &other)),
        // Broken JSON is shown by line and column, everything else by what it is.
        Err(problem) if text.trim_start().starts_with(['{', '[']) => {
            Err(CheckpointError::Json { path: path.to_owned(), problem })
        }
        Err(problem) => Err(foreign::error(path, text.as_bytes(), "JSON")
            .unwrap_or_else(|| CheckpointError::Json { path: path.to_owned(), problem })),
    }
}

/// Whether an object is what a server answers in place of a file: `{"error": "…"}` and nothing about a model.
fn is_refusal(object: &Map<String, Value>) -> bool {
    let known = ["error", "message", "detail", "status", "code", "statusCode", "url"];
    object.get("error").or(object.get("detail")).is_some_and(Value::is_string)
        && object.keys().all(|it| known.contains(&it.as_str()))
}

/// The error for a value of the wrong kind.
pub(crate) fn unexpected(path: &Path, what: &str, expected: &'static str, found: &Value) -> CheckpointError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    CheckpointError::UnexpectedJson { path: path.to_owned(), what: what.to_owned(), expected, found }
}

/// The key of an object that stands for a float that JSON does not have, `{"__float__": "Infinity"}`, as transformers 5
/// writes it.
const FLOAT: &str = "__float__";

/// A float as JSON, one that is not finite as an object with its name.
pub(crate) fn float(number: f64) -> Value {
    let name = match number {
        _ if number.is_finite() => return number.into(),
        _ if number.is_nan() => "NaN",
        _ if number > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    serde_json::json!({ FLOAT: name })
}

/// Python's writer puts out `NaN`, `Infinity` and `-Infinity`, which JSON does not know; they become objects with their
/// names ([`float`]).
fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
        .or_else(|error| serde_json::from_str(&with_named_floats(text)).map_err(|_| error))
}

fn with_named_floats(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(quote) = rest.find('"') {
        let (outside, string) = rest.split_at(quote);
        push_named(&mut result, outside);
        let end = end_of_string(string);
        result.push_str(&string[..end]);
        rest = &string[end..];
    }
    push_named(&mut result, rest);
    result
}

/// Adds text that lies outside of strings.
fn push_named(result: &mut String, outside: &str) {
    let mut rest = outside;
    while let Some((place, name)) =
        ["-Infinity", "Infinity", "NaN"].iter().filter_map(|it| Some((rest.find(it)?, *it))).min()
    {
        result.push_str(&rest[..place]);
        result.push_str(&serde_json::json!({ FLOAT: name }).to_string());
        rest = &rest[place + name.len()..];
    }
    result.push_str(rest);
}

/// The length of a JSON string with its quotes, or of everything if it does not end.
fn end_of_string(string: &str) -> usize {
    let mut escaped = false;
    for (place, byte) in string.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return place + 1,
            _ => {}
        }
    }
    string.len()
}

/// The text of a JSON object without some of its members, nor those of the object that is its member `inner`. All else
/// stays as it is, spaces and Python's special floats included.
pub(crate) fn without_members(text: &str, keys: &[&str], inner: &str) -> String {
    let outer = members(text);
    let within = outer.iter().find(|it| it.key == inner).map(|it| it.value.clone());
    let within = within.map_or(Vec::new(), |value| {
        let shift = |range: Range<usize>| range.start + value.start..range.end + value.start;
        cuts(&members(&text[value.clone()]), keys).into_iter().map(shift).collect()
    });
    let mut cuts = [cuts(&outer, keys), within].concat();
    cuts.sort_by_key(|it| it.start);
    let mut result = text.to_owned();
    for range in cuts.into_iter().rev() {
        result.replace_range(range, "");
    }
    result
}

/// The text of a JSON object with a member of this value, also in the object that is its member `inner` where that has one.
/// All else stays as it is.
pub(crate) fn with_member(text: &str, key: &str, value: &str, inner: &str) -> String {
    let outer = members(text);
    let mut places: Vec<Range<usize>> = Vec::new();
    if let Some(within) = outer.iter().find(|it| it.key == inner) {
        let own = members(&text[within.value.clone()]);
        let found = own.iter().find(|it| it.key == key);
        let start = within.value.start;
        places.extend(found.map(|it| it.value.start + start..it.value.end + start));
    }
    let own = outer.iter().find(|it| it.key == key).map(|it| it.value.clone());
    let mut result = text.to_owned();
    let missing = own.is_none();
    places.extend(own);
    places.sort_by_key(|it| it.start);
    for range in places.into_iter().rev() {
        result.replace_range(range, value);
    }
    if let (true, Some(start)) = (missing, text.find('{')) {
        let comma = if outer.is_empty() { "" } else { "," };
        result.insert_str(start + 1, &format!("\n  \"{key}\": {value}{comma}"));
    }
    result
}

/// A member of an object, and where it lies in the text.
struct Member<'a> {
    key: &'a str,
    start: usize,
    value: Range<usize>,
}

/// The members of the object that a text starts with; the text is known to be JSON.
fn members(text: &str) -> Vec<Member<'_>> {
    let mut members = Vec::new();
    let mut at = text.find('{').map_or(text.len(), |it| it + 1);
    while let Some(start) = text[at..].find(['"', '}']).map(|it| at + it) {
        if text[start..].starts_with('}') {
            break;
        }
        let key_end = start + end_of_string(&text[start..]);
        let Some(colon) = text[key_end..].find(':').map(|it| key_end + it + 1) else { break };
        let value_start = colon + text[colon..].len() - text[colon..].trim_start().len();
        let value = value_start..value_start + end_of_value(&text[value_start..]);
        at = value.end;
        members.push(Member { key: text[start..key_end].trim_matches('"'), start, value });
    }
    members
}

/// The length of the JSON value that a text starts with.
fn end_of_value(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => {
                at += end_of_string(&text[at..]);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => break,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 && matches!(byte, b'}' | b']') {
            return at;
        }
    }
    text[..at].trim_end().len()
}

/// What has to go with members of these keys: each up to the next one, and from the last one that stays to the end.
fn cuts(members: &[Member<'_>], keys: &[&str]) -> Vec<Range<usize>> {
    let goes = |it: &Member<'_>| keys.contains(&it.key);
    let last_kept = members.iter().rposition(|it| !goes(it));
    let (before, tail) = members.split_at(last_kept.map_or(0, |it| it + 1));
    let mut cuts = Vec::new();
    for pair in before.windows(2).filter(|it| goes(&it[0])) {
        cuts.push(pair[0].start..pair[1].start);
    }
    if let (Some(first), Some(last)) = (tail.first(), tail.last()) {
        cuts.push(before.last().map_or(first.start, |it| it.value.end)..last.value.end);
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_floats_of_python_keep_their_names_and_strings_stay() {
        let text = r#"{"a": [0.0, Infinity, -Infinity,NaN], "NaN \" Infinity": "-Infinity", "b":Infinity}"#;
        let [infinity, minus, nan] = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(float);
        let expected = serde_json::json!({
            "a": [0.0, infinity, minus, nan], "NaN \" Infinity": "-Infinity", "b": {"__float__": "Infinity"}
        });
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn the_place_of_an_error_is_that_in_the_file() {
        let error = parse("{\"a\": NaN,\n  oops}").unwrap_err();
        assert_eq!(error.line(), 1, "the first thing that is not JSON is NaN: {error}");
        let error = parse("{\"a\": 1,\n  oops}").unwrap_err();
        assert_eq!((error.line(), error.column()), (2, 3));
    }

    #[test]
    fn a_member_is_set_where_it_is_and_else_added_and_all_else_stays() {
        let with = |text: &str| with_member(text, "q", "false", "inner");
        for (text, expected) in [
            (r#"{"q": true, "b": NaN}"#, r#"{"q": false, "b": NaN}"#),
            (r#"{"a": {"q": 1}}"#, "{\n  \"q\": false,\"a\": {\"q\": 1}}"),
            ("{}", "{\n  \"q\": false}"),
            (r#"{"inner": {"q": true}, "q" : null}"#, r#"{"inner": {"q": false}, "q" : false}"#),
            (r#"{"inner": {"b": true}, "q":1}"#, r#"{"inner": {"b": true}, "q":false}"#),
        ] {
            assert_eq!(with(text), expected);
        }
    }

    #[test]
    fn members_go_with_their_commas_and_all_else_stays() {
        let without = |text: &str| without_members(text, &["q", "r"], "inner");
        for (text, expected) in [
            (r#"{"q": {"a": [1, "}"]}, "b": NaN}"#, r#"{"b": NaN}"#),
            ("{\n  \"a\": 1,\n  \"q\": 2\n}\n", "{\n  \"a\": 1\n}\n"),
            (r#"{"a":1,"q":{},"r":"\"","b":-Infinity}"#, r#"{"a":1,"b":-Infinity}"#),
            (r#"{"a": 1, "q": 2, "r": 3}"#, r#"{"a": 1}"#),
            (r#"{"q": 2}"#, "{}"),
            (
                r#"{"inner": {"a": 1, "q": 2}, "q": 3, "other": {"q": 4}}"#,
                r#"{"inner": {"a": 1}, "other": {"q": 4}}"#,
            ),
            ("{}", "{}"),
        ] {
            assert_eq!(without(text), expected);
        }
    }
}
