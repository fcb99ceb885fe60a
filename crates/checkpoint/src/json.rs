//! JSON files, as Python writes them.

use std::path::Path;

use serde_json::{Map, Value};

use crate::CheckpointError;

/// The text of a file; `None` if there is no such file.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, CheckpointError> {
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
    if is_git_lfs_pointer(&bytes) {
        return Err(CheckpointError::GitLfsPointer { path: path.to_owned() });
    }
    String::from_utf8(bytes).map(Some).map_err(|error| CheckpointError::NotUtf8 {
        path: path.to_owned(),
        valid_up_to: error.utf8_error().valid_up_to(),
    })
}

/// The JSON object in a file; `None` if there is no such file.
pub(crate) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, CheckpointError> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    match parse(&text) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(other) => Err(unexpected(path, "the whole file", "an object", &other)),
        Err(problem) => Err(CheckpointError::Json { path: path.to_owned(), problem }),
    }
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

/// Whether a file holds the address of its content in Git's large file storage.
pub(crate) fn is_git_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs")
}

/// Python's writer puts out `NaN`, `Infinity` and `-Infinity`, which JSON does not know; they become null.
fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
        .or_else(|error| serde_json::from_str(&without_special_floats(text)).map_err(|_| error))
}

fn without_special_floats(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(quote) = rest.find('"') {
        let (outside, string) = rest.split_at(quote);
        push_without(&mut result, outside);
        let end = end_of_string(string);
        result.push_str(&string[..end]);
        rest = &string[end..];
    }
    push_without(&mut result, rest);
    result
}

fn push_without(result: &mut String, outside: &str) {
    result.push_str(&outside.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_floats_of_python_become_null_and_strings_stay() {
        let text = r#"{"a": [0.0, Infinity, -Infinity, NaN], "NaN \" Infinity": "-Infinity"}"#;
        let expected = serde_json::json!({
            "a": [0.0, null, null, null], "NaN \" Infinity": "-Infinity"
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
}
