//! Split GGUF files: `name-00001-of-00003.gguf` and so on, each a whole GGUF file with some of the tensors. The
//! first holds the metadata; each says its number and how many there are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Header;
use crate::mapped_file::MappedFile;
use crate::{CheckpointError, foreign};

/// The number of a part, from 0.
const NUMBER: &str = "split.no";
/// How many parts there are.
const COUNT: &str = "split.count";
/// How many tensors all parts hold together.
const TENSORS: &str = "split.tensors.count";

/// Reads a GGUF file and, if it is the first of several parts, the others.
pub(crate) fn read(path: &Path) -> Result<Vec<(Arc<MappedFile>, Header)>, CheckpointError> {
    let first = read_one(path)?;
    let count = number(&first.1.metadata, COUNT).unwrap_or(1);
    if count <= 1 {
        return Ok(vec![first]);
    }
    let expected_tensors = number(&first.1.metadata, TENSORS);
    let paths = paths_of_parts(path, &first.1.metadata, count)?;
    let missing: Vec<&PathBuf> = paths.iter().filter(|it| !it.exists()).collect();
    if let Some(&path) = missing.first() {
        let (missing, total) = (missing.len(), paths.len());
        return Err(CheckpointError::MissingShard { path: path.clone(), missing, total, kind: "parts" });
    }
    let mut parts = vec![first];
    for (no, path) in paths.iter().enumerate().skip(1) {
        let part = read_one(path)?;
        expect(path, NUMBER, no as u64, number(&part.1.metadata, NUMBER))?;
        expect(path, COUNT, count, number(&part.1.metadata, COUNT))?;
        parts.push(part);
    }
    if let Some(expected) = expected_tensors {
        let found = parts.iter().map(|(_, header)| header.tensors.len() as u64).sum();
        expect(path, "the number of tensors in all parts", expected, Some(found))?;
    }
    Ok(parts)
}

fn read_one(path: &Path) -> Result<(Arc<MappedFile>, Header), CheckpointError> {
    let file = MappedFile::open(path)?;
    let header = Header::parse(file.bytes()).map_err(|problem| {
        foreign::error(path, file.bytes(), "a GGUF file")
            .unwrap_or_else(|| CheckpointError::Gguf { path: path.to_owned(), problem })
    })?;
    Ok((Arc::new(file), header))
}

/// The paths of all parts, from the path of the first.
fn paths_of_parts(
    path: &Path,
    metadata: &Map<String, Value>,
    count: u64,
) -> Result<Vec<PathBuf>, CheckpointError> {
    let wrong = |what, expected: String, found: String, hint: &str| CheckpointError::Parts {
        path: path.to_owned(),
        what,
        expected,
        found,
        hint: format!("\n\nhint: {hint}"),
    };
    let no = number(metadata, NUMBER);
    if no != Some(0) {
        let found = no.map_or("nothing".to_owned(), |it| it.to_string());
        return Err(wrong(
            NUMBER,
            "0".to_owned(),
            found,
            "open the first part, the others are found from it",
        ));
    }
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let ending = format!("-00001-of-{count:05}.gguf");
    let Some(stem) = file_name.strip_suffix(&ending) else {
        let hint = "give the parts their original names, the others are found by them";
        return Err(wrong("the end of its name", ending, file_name.into_owned(), hint));
    };
    // The name's five digits bound the count, so this list cannot grow beyond a hundred thousand.
    if count > 99_999 {
        let hint = "the file says that it has more parts than their names can count";
        return Err(wrong(COUNT, "at most 99999".to_owned(), count.to_string(), hint));
    }
    Ok((1..=count).map(|no| path.with_file_name(format!("{stem}-{no:05}-of-{count:05}.gguf"))).collect())
}

fn number(metadata: &Map<String, Value>, key: &str) -> Option<u64> {
    metadata.get(key).and_then(Value::as_u64)
}

fn expect(path: &Path, what: &'static str, expected: u64, found: Option<u64>) -> Result<(), CheckpointError> {
    if found == Some(expected) {
        return Ok(());
    }
    Err(CheckpointError::Parts {
        path: path.to_owned(),
        what,
        expected: expected.to_string(),
        found: found.map_or("nothing".to_owned(), |it| it.to_string()),
        hint: "\n\nhint: parts of different models are mixed here, or one was renamed".to_owned(),
    })
}
