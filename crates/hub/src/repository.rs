//! Repositories and their names.

use std::fmt::{self, Write as _};

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// A repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// What it holds.
    pub kind: Kind,
    /// Its name, `owner/name`, or a name alone.
    pub id: String,
}

impl Repository {
    /// A repository by name; `None` where a text cannot be one.
    ///
    /// Names hold letters, digits, `-`, `_` and `.`, up to 96 of them, and neither begin nor end in `-` or `.`.
    pub fn new(kind: Kind, id: &str) -> Option<Self> {
        let good = |it: &str| {
            let inner = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
            !it.is_empty()
                && it.chars().all(inner)
                && !it.starts_with(['-', '.'])
                && !it.ends_with(['-', '.'])
                && !it.contains("--")
                && !it.contains("..")
        };
        let parts: Vec<&str> = id.split('/').collect();
        let fits = parts.len() <= 2 && parts.iter().all(|it| good(it)) && id.len() <= 96;
        (fits && id.strip_suffix(".git").is_none()).then(|| Self { kind, id: id.to_owned() })
    }

    /// The repository and the commit of a folder or file in the cache.
    pub fn of_cached(path: &std::path::Path) -> Option<(Self, String)> {
        let parts: Vec<&str> = path.iter().filter_map(|it| it.to_str()).collect();
        let at = parts.iter().rposition(|it| *it == "snapshots")?;
        let (kind, name) = parts.get(at.checked_sub(1)?)?.split_once("--")?;
        let kind = match kind {
            "models" => Kind::Model,
            "datasets" => Kind::Dataset,
            _ => return None,
        };
        let commit = parts.get(at + 1).filter(|it| crate::answers::is_commit(it))?;
        Some((Self::new(kind, &name.replacen("--", "/", 1))?, (*commit).to_owned()))
    }

    /// The word for its kind in addresses of the interface.
    pub(crate) fn kinds(&self) -> &'static str {
        match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        }
    }

    /// What stands before the name in addresses of files.
    pub(crate) fn prefix(&self) -> &'static str {
        match self.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        }
    }

    /// Its folder in the cache.
    pub(crate) fn folder(&self) -> String {
        format!("{}--{}", self.kinds(), self.id.replace('/', "--"))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Model => write!(f, "model `{}`", self.id),
            Kind::Dataset => write!(f, "data set `{}`", self.id),
        }
    }
}

/// A text as a part of an address.
pub(crate) fn encoded(text: &str, keep_slashes: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (keep_slashes && byte == b'/');
        if plain {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_anything_is_asked() {
        for name in ["gpt2", "mlabonne/harmless_alpaca", "a/b.c-d"] {
            assert!(Repository::new(Kind::Dataset, name).is_some(), "{name}");
        }
        for name in ["", "/", "a/b/c", "a//b", "../x", "a/..", "a b", "-a", "a.", "a/b.git", "x--y", "ä"] {
            assert!(Repository::new(Kind::Dataset, name).is_none(), "{name}");
        }
        let repository = Repository::new(Kind::Dataset, "a/b").unwrap();
        assert_eq!(repository.folder(), "datasets--a--b");
        let commit = "0123456789abcdef0123456789abcdef01234567".to_owned();
        let path = format!("/x/{}/snapshots/{commit}", repository.folder());
        assert_eq!(Repository::of_cached(path.as_ref()), Some((repository, commit)));
        assert_eq!(Repository::of_cached("/x/models--a--b/snapshots/main".as_ref()), None);
    }

    #[test]
    fn addresses_hold_no_odd_characters() {
        assert_eq!(encoded("a b/ü?.txt", true), "a%20b/%C3%BC%3F.txt");
        assert_eq!(encoded("refs/pr/1", false), "refs%2Fpr%2F1");
    }
}
