//! What a hub's answers say, checked: whatever becomes a path, an address or a number here was sent by a stranger.
//!
//! These functions read texts and know no connection, so that they can be tested, and fuzzed, with anything.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use crate::{File, Info, Kind, Listed, Repository};

/// Bytes of an answer in JSON: the listing of a repository of 100,000 files has about 15 MB.
pub const JSON_BYTES: u64 = 64 << 20;

/// Files that a repository may have; the hub recommends at most 100,000.
pub const FILES: usize = 200_000;

/// Characters that are shown of what a hub says in place of an answer.
const SHOWN: usize = 500;

/// What the hub says of a repository.
#[derive(Deserialize)]
struct Described {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

/// A repository as the hub lists it.
#[derive(Deserialize)]
struct Item {
    id: String,
    #[serde(default)]
    tags: Vec<String>,
    /// `false`, or how the owner is asked.
    #[serde(default)]
    gated: Value,
}

/// A file as the hub describes it.
#[derive(Deserialize)]
struct Entry {
    path: String,
    #[serde(rename = "lastCommit")]
    last_commit: Option<LastCommit>,
}

#[derive(Deserialize)]
struct LastCommit {
    id: String,
}

/// Whether a revision is a commit, which never changes: 40 hexadecimal digits.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|it| it.is_ascii_hexdigit())
}

/// Whether a path names something within a folder, on every system: parts that are names, with `/` between them.
pub fn is_inside(path: &str) -> bool {
    path.len() <= 4096
        && path.split('/').all(|part| {
            !part.is_empty()
                && part.len() <= 255
                && part != "."
                && part != ".."
                && !part.contains(|it: char| it.is_control() || matches!(it, '\\' | ':'))
        })
}

/// The name of contents in an `ETag` header, where it can be the name of a file: a digest, or what mirrors have instead.
pub fn etag(header: &str) -> Option<String> {
    let name = header.trim().trim_start_matches("W/").trim_matches('"');
    let plain = name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it));
    (plain && !name.is_empty() && name.len() <= 128).then(|| name.to_owned())
}

/// The commit and the files of a repository.
///
/// # Errors
/// What is wrong with the answer.
pub fn info(text: &str) -> Result<Info, String> {
    let described: Described = serde_json::from_str(text).map_err(|it| it.to_string())?;
    let commit = commit(&described.sha)?;
    let found = described.siblings.len();
    if found > FILES {
        return Err(format!("it lists {found} files, at most {FILES} are read"));
    }
    let mut files: Vec<File> =
        described.siblings.into_iter().map(|it| File { path: it.rfilename, size: it.size }).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(Info { commit, files, cached: false })
}

/// The models of one page of a listing; those whose names are none are left out.
///
/// # Errors
/// What is wrong with the answer.
pub fn models(text: &str) -> Result<Vec<Listed>, String> {
    let items: Vec<Item> = serde_json::from_str(text).map_err(|it| it.to_string())?;
    let mut seen = HashSet::new();
    let listed = items.into_iter().filter_map(|it| {
        let gated = !matches!(it.gated, Value::Bool(false) | Value::Null);
        let repository = Repository::new(Kind::Model, &it.id)?;
        seen.insert(it.id).then_some(Listed { repository, tags: it.tags, gated })
    });
    Ok(listed.collect())
}

/// The commit that last changed a file; `None` if the answer does not know the file.
///
/// # Errors
/// What is wrong with the answer.
pub fn last_commit(text: &str, path: &str) -> Result<Option<String>, String> {
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(|it| it.to_string())?;
    let last = entries.into_iter().find(|it| it.path == path).and_then(|it| it.last_commit);
    last.map(|it| commit(&it.id)).transpose()
}

fn commit(text: &str) -> Result<String, String> {
    if is_commit(text) {
        return Ok(text.to_owned());
    }
    Err(format!("its commit is `{}`, expected 40 hexadecimal digits", shown(text)))
}

/// Where a listing continues: the address that `Link: <address>; rel="next"` names.
pub fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|it| it.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}

/// The seconds of a `Retry-After` header. (A date, its other form, is used by no hub.)
pub fn retry_after(header: &str) -> Option<u64> {
    header.trim().parse().ok()
}

/// A text of a stranger for a message: without control characters, and not endless.
pub fn shown(text: &str) -> String {
    let text = text.trim();
    let mut shown: String =
        text.chars().take(SHOWN).map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_commit_that_is_none_is_refused() {
        assert_eq!(info(&format!(r#"{{"sha": "{COMMIT}"}}"#)).unwrap().commit, COMMIT);
        for sha in
            ["", "main", "../../../../etc/passwd", "/home/x/.ssh/id", &COMMIT[1..], &format!("{COMMIT}/x")]
        {
            let said = info(&serde_json::json!({"sha": sha}).to_string()).unwrap_err();
            assert!(said.contains("40 hexadecimal digits"), "{sha}: {said}");
            let said =
                last_commit(&serde_json::json!([{"path": "a", "lastCommit": {"id": sha}}]).to_string(), "a");
            assert!(said.is_err(), "{sha}");
        }
    }

    #[test]
    fn a_listing_without_end_is_refused_and_a_name_counts_once() {
        let listing = |names: &mut dyn Iterator<Item = String>| {
            let siblings: Vec<_> = names.map(|it| serde_json::json!({"rfilename": it})).collect();
            info(&serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string())
        };
        assert_eq!(listing(&mut ["b", "a", "b"].iter().map(|&it| it.to_owned())).unwrap().files.len(), 2);
        let said = listing(&mut (0..=FILES).map(|it| it.to_string())).unwrap_err();
        assert_eq!(said, "it lists 200001 files, at most 200000 are read");
        // A text that nests without end is an error of the reader, not of the stack.
        assert!(info(&"[".repeat(2_000_000)).is_err());
    }

    #[test]
    fn names_that_leave_a_folder_or_hide_in_it_are_told() {
        for name in ["config.json", "a/b/c.bin", "ä b.txt", "...", ".gitattributes", "a..b"] {
            assert!(is_inside(name), "{name}");
        }
        for name in [
            "",
            "/",
            "/etc/passwd",
            "..",
            ".",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "a\\b",
            "c:x",
            "a\0b",
            "a\x1b[2Jb",
            &"x".repeat(256),
            &"x/".repeat(3000),
        ] {
            assert!(!is_inside(name), "{name}");
        }
    }

    #[test]
    fn an_etag_is_a_plain_name_or_none() {
        assert_eq!(etag("\"abc-1_2\"").as_deref(), Some("abc-1_2"));
        assert_eq!(etag("W/\"abc\"").as_deref(), Some("abc"));
        for header in
            ["", "\"\"", "\"..\"", "\".\"", "\"../x\"", "\"a/b\"", "\"x.incomplete\"", &"a".repeat(129)]
        {
            assert_eq!(etag(header), None, "{header}");
        }
    }

    #[test]
    fn what_a_stranger_says_is_shown_short_and_without_control_characters() {
        assert_eq!(shown(" \x1b[31mred\x07\n"), "\u{fffd}[31mred\u{fffd}");
        assert_eq!(shown(&"ä".repeat(10_000)).chars().count(), SHOWN + 1);
    }
}
