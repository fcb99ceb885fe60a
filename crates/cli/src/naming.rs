//! Models by their addresses on the hub, as people copy them from a browser.

use anyhow::Context;
use hub::{Kind, Repository};

/// A model of the hub, or a file of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) repository: Repository,
    /// A GGUF file.
    pub(crate) file: Option<String>,
    /// The branch, tag or commit, if one is named that is not the main branch.
    pub(crate) revision: Option<String>,
}

/// Names of the hub itself, whatever mirror is used.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];

/// What stands first in addresses of what is no model.
const OTHERS: [&str; 8] = ["datasets", "spaces", "buckets", "collections", "papers", "docs", "api", "blog"];

impl Named {
    /// The model that an address names; `None` if a text is no address.
    ///
    /// # Errors
    /// When the address is one of something else.
    pub(crate) fn by_address(text: &str, endpoint: &str) -> Option<anyhow::Result<Self>> {
        let path = path_of(text, endpoint)?;
        Some(Self::by_path(&path).with_context(|| format!("`{text}` names no model of the hub")))
    }

    /// The model that a short name means, `OWNER/NAME` or `OWNER/NAME/FILE.gguf`, if it can be one.
    pub(crate) fn by_name(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (id, file) = match parts.as_slice() {
            [owner, name] if !is_gguf(name) => (format!("{owner}/{name}"), None),
            [owner, name, file @ ..] if file.last().is_some_and(|it| is_gguf(it)) => {
                (format!("{owner}/{name}"), Some(file.join("/")))
            }
            _ => return None,
        };
        Some(Self { repository: Repository::new(Kind::Model, &id)?, file, revision: None })
    }

    /// The short name.
    pub(crate) fn name(&self) -> String {
        let id = &self.repository.id;
        self.file.as_ref().map_or_else(|| id.clone(), |it| format!("{id}/{it}"))
    }

    fn by_path(path: &str) -> anyhow::Result<Self> {
        let parts: Vec<String> = path.split('/').filter(|it| !it.is_empty()).map(decoded).collect();
        let mut parts: &[String] = &parts;
        if parts.first().is_some_and(|it| it == "models") {
            parts = &parts[1..];
        }
        if let Some(kind) = parts.first().filter(|it| OTHERS.contains(&it.as_str())) {
            anyhow::bail!("it is one of `{kind}`\n\nhint: {HINT}");
        }
        // `NAME@REVISION` is how Python's client writes it.
        let at = |it: &str| it.split_once('@').map(|(name, revision)| (name.to_owned(), revision.to_owned()));
        let (id, mut revision, rest) = match parts {
            [] => anyhow::bail!("it is the hub itself\n\nhint: {HINT}"),
            [name] => (name.clone(), None, &[][..]),
            [owner, name, rest @ ..] => match at(name) {
                Some((name, revision)) => (format!("{owner}/{name}"), Some(revision), rest),
                None => (format!("{owner}/{name}"), None, rest),
            },
        };
        let id = id.strip_suffix(".git").unwrap_or(&id).to_owned();
        let mut file = rest;
        let mut shown_file = true;
        if let [word, more @ ..] = rest
            && ["tree", "blob", "resolve", "raw", "commit", "commits"].contains(&word.as_str())
        {
            let length = if more.first().is_some_and(|it| it == "refs") { 3 } else { 1 };
            revision = more.get(..length.min(more.len())).map(|it| it.join("/")).filter(|it| !it.is_empty());
            file = more.get(length..).unwrap_or_default();
            if word == "tree" && !file.is_empty() {
                anyhow::bail!(
                    "a model in a folder of a repository (`{}`) cannot be read from the hub\n\n\
                     hint: download it: `hf download {id} --include \"{}/*\" --local-dir FOLDER`",
                    file.join("/"),
                    file.join("/")
                );
            }
        } else {
            // Discussions, settings and the like belong to the model.
            shown_file = rest.last().is_some_and(|it| is_gguf(it));
        }
        let file = file.join("/");
        let file = Some(file).filter(|it| shown_file && is_gguf(it));
        let repository = Repository::new(Kind::Model, &id)
            .with_context(|| format!("`{id}` is no name\n\nhint: {HINT}"))?;
        Ok(Self { repository, file, revision: revision.filter(|it| it != "main") })
    }
}

const HINT: &str = "a model's address is https://huggingface.co/OWNER/NAME, its name OWNER/NAME";

/// What follows the hub's name in an address, without question and fragment.
fn path_of(text: &str, endpoint: &str) -> Option<String> {
    let text = text.trim();
    let bare = endpoint.split_once("://").map_or(endpoint, |it| it.1);
    let lower = text.to_ascii_lowercase();
    let rest = if lower.starts_with("hf://") {
        &text[5..]
    } else {
        let scheme = ["https://", "http://", "git@", ""].into_iter().find(|it| lower.starts_with(it))?;
        let after = &text[scheme.len()..];
        let of_host = |host: &&str| {
            let named = after.get(..host.len()).is_some_and(|it| it.eq_ignore_ascii_case(host));
            let rest = after.get(host.len()..).filter(|_| named)?;
            (rest.is_empty() && !scheme.is_empty() || rest.starts_with(['/', ':', '?'])).then_some(rest)
        };
        std::iter::once(bare).chain(HOSTS).find_map(|it| of_host(&it))?.trim_start_matches(':')
    };
    rest.split(['?', '#']).next().map(str::to_owned)
}

/// A text without `%2F` and the like.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let code = if *first == b'%' { more.get(..2) } else { None };
        let code = code.and_then(|it| u8::from_str_radix(std::str::from_utf8(it).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<anyhow::Result<(String, Option<String>)>> {
        let found = Named::by_address(text, "http://127.0.0.1:80")?;
        Some(found.map(|it| (it.name(), it.revision)))
    }

    #[test]
    fn addresses_of_a_model_are_its_name() {
        for address in [
            "https://huggingface.co/owner/name",
            "https://huggingface.co/owner/name/",
            "http://huggingface.co/owner/name",
            "https://www.huggingface.co/owner/name?library=transformers#usage",
            "HTTPS://HuggingFace.co/owner/name",
            "huggingface.co/owner/name",
            "https://hf.co/owner/name",
            "hf.co/owner/name",
            "hf://owner/name",
            "hf://models/owner/name",
            "https://huggingface.co/owner/name.git",
            "git@hf.co:owner/name",
            "http://127.0.0.1:80/owner/name",
            "https://huggingface.co/owner/name/tree/main",
            "https://huggingface.co/owner/name/blob/main/config.json",
            "https://huggingface.co/owner/name/discussions/3",
            " https://huggingface.co/owner/name/commits/main ",
        ] {
            assert_eq!(named(address).unwrap().unwrap(), ("owner/name".to_owned(), None), "{address}");
        }
        assert_eq!(named("https://huggingface.co/gpt2").unwrap().unwrap().0, "gpt2");
    }

    #[test]
    fn an_address_may_name_a_revision_and_a_file() {
        let of = |text: &str| named(text).unwrap().unwrap();
        let at = |revision: &str| ("owner/name".to_owned(), Some(revision.to_owned()));
        assert_eq!(of("https://huggingface.co/owner/name/tree/v1.0"), at("v1.0"));
        assert_eq!(of("https://huggingface.co/owner/name/commit/0123abc"), at("0123abc"));
        assert_eq!(of("https://huggingface.co/owner/name/tree/refs%2Fpr%2F1"), at("refs/pr/1"));
        assert_eq!(of("https://huggingface.co/owner/name/tree/refs/pr/1"), at("refs/pr/1"));
        assert_eq!(of("hf://owner/name@v2"), at("v2"));
        for address in [
            "https://huggingface.co/owner/name/blob/main/Q8/x.gguf",
            "https://huggingface.co/owner/name/resolve/main/Q8/x.gguf?download=true",
            "hf://owner/name/Q8/x.gguf",
        ] {
            assert_eq!(of(address), ("owner/name/Q8/x.gguf".to_owned(), None), "{address}");
        }
    }

    #[test]
    fn what_is_no_address_is_left_alone_and_what_names_no_model_is_an_error() {
        for text in
            ["owner/name", "./model", "/a/b", "model.gguf", "hf.com/a/b", "https://example.com/a/b", "hf.co"]
        {
            assert!(named(text).is_none(), "{text}");
        }
        for text in [
            "https://huggingface.co",
            "https://huggingface.co/datasets/a/b",
            "https://huggingface.co/spaces/a/b",
            "https://huggingface.co/a/../b",
            "https://huggingface.co/owner/name/tree/main/sub",
            "hf://datasets/a/b",
        ] {
            let error = format!("{:#}", named(text).unwrap().unwrap_err());
            assert!(error.contains("hint: "), "{text}: {error}");
        }
        assert!(Named::by_name("a/b/c").is_none() && Named::by_name("b.gguf").is_none());
        assert_eq!(Named::by_name("a/b/q/x.gguf").unwrap().name(), "a/b/q/x.gguf");
        assert_eq!(decoded("a%2Fb%zz%"), "a/b%zz%");
    }
}
