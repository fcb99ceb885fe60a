//! What becomes of each architecture that the transformers library generates text with.
//!
//! `architectures.json` has a line for each, and for some whose code comes with their checkpoints: the family that reads it,
//! a container, why it is refused, or that it is not supported yet. `tools/architectures_check.py` compares the list with
//! the installed library, so that what a new release adds is seen.

use std::sync::LazyLock;

use serde_json::Value;

use super::FAMILIES;
use crate::LoadError;

/// The list, and what reasons mean.
static LIST: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("architectures.json")).expect("the list is part of the program")
});

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict<'a> {
    /// A family reads it.
    Family(&'a str),
    /// It holds a language model of one of several families.
    Container,
    /// It cannot be read, for a reason with a name.
    Refused(&'a str),
    /// It could be read, but no family does.
    NotYet,
}

impl<'a> Verdict<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        match text.split_once(": ") {
            None if text == "container" => Some(Self::Container),
            None if text == "not yet" => Some(Self::NotYet),
            Some(("family", name)) => Some(Self::Family(name)),
            Some(("refused", reason)) => Some(Self::Refused(reason)),
            _ => None,
        }
    }

    fn of(architecture: &str) -> Option<Self> {
        let sections = ["architectures", "elsewhere"];
        let text = sections.into_iter().find_map(|it| LIST[it].get(architecture))?.as_str()?;
        Self::parse(text)
    }
}

/// Why an architecture that no family claims is refused, if more is known of it than that. Of a container the language model
/// within is what no family knows.
pub(super) fn refusal(found: &str) -> Option<LoadError> {
    let families = || FAMILIES.iter().map(|it| format!("`{}`", it.name)).collect::<Vec<_>>().join(", ");
    let (why, hint) = match Verdict::of(found)? {
        Verdict::Refused(reason) => {
            let text = |key: &str| LIST["reasons"][reason][key].as_str().unwrap_or_default().to_owned();
            (text("why"), text("hint"))
        }
        Verdict::NotYet => (
            format!(
                "transformers {} has it, but no model family of this program reads it yet",
                LIST["transformers"].as_str().unwrap_or_default()
            ),
            format!(
                "a request with the model's name helps to decide what comes next; `--family NAME` reads it as a model of \
                 another family, at your risk: {}",
                families()
            ),
        ),
        Verdict::Family(_) | Verdict::Container => return None,
    };
    Some(LoadError::UnsupportedArchitecture { found: found.to_owned(), why, hint })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use super::*;
    use crate::families::containers;

    fn entries() -> impl Iterator<Item = (&'static str, Verdict<'static>)> {
        let sections = ["architectures", "elsewhere"].into_iter();
        let lines = sections.flat_map(|it| LIST[it].as_object().unwrap());
        lines.map(|(name, text)| {
            let text = text.as_str().unwrap();
            (name.as_str(), Verdict::parse(text).unwrap_or_else(|| panic!("{name}: `{text}`")))
        })
    }

    /// The families that claim an architecture.
    fn claims(architecture: &str) -> Vec<&'static str> {
        let claiming = FAMILIES.iter().filter(|it| it.architectures.contains(&architecture));
        claiming.map(|it| it.name).collect()
    }

    #[test]
    fn every_line_says_what_the_families_do() {
        for (name, verdict) in entries() {
            let expected: Vec<&str> = match verdict {
                Verdict::Family(family) => vec![family],
                Verdict::Container | Verdict::Refused(_) | Verdict::NotYet => Vec::new(),
            };
            assert_eq!(claims(name), expected, "families that claim `{name}`");
            let container = containers::architectures().any(|it| it == name);
            assert_eq!(verdict == Verdict::Container, container, "{name}");
        }
    }

    #[test]
    fn every_architecture_of_a_family_or_container_has_a_line() {
        let claimed = FAMILIES.iter().flat_map(|it| it.architectures).copied();
        for name in claimed.chain(containers::architectures()) {
            assert!(Verdict::of(name).is_some(), "`{name}` is missing in architectures.json");
        }
    }

    #[test]
    fn every_reason_is_explained_and_used() {
        let used: BTreeSet<&str> = entries()
            .filter_map(|(_, verdict)| match verdict {
                Verdict::Refused(reason) => Some(reason),
                _ => None,
            })
            .collect();
        let explained: BTreeSet<&str> =
            LIST["reasons"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(used, explained);
        for (reason, texts) in LIST["reasons"].as_object().unwrap() {
            for key in ["why", "hint"] {
                assert!(texts[key].as_str().is_some_and(|it| !it.is_empty()), "{reason}: {key}");
            }
        }
    }

    #[test]
    fn what_is_known_and_not_supported_is_refused_with_its_reason() {
        for (name, verdict) in entries() {
            let Some(error) = refusal(name) else {
                assert!(matches!(verdict, Verdict::Family(_) | Verdict::Container), "{name} is not refused");
                continue;
            };
            let message = error.to_string();
            let why = match verdict {
                Verdict::Refused(reason) => LIST["reasons"][reason]["why"].as_str().unwrap(),
                _ => "no model family of this program reads it yet",
            };
            assert!(message.contains(name) && message.contains(why), "{name}: {message}");
            assert!(message.contains("\n\nhint: "), "{name}: {message}");
        }
        assert!(refusal("GloboForCausalLM").is_none(), "nothing is known of it");
    }

    /// Those that people asked for; what is left of the library is printed.
    #[test]
    #[expect(clippy::print_stderr, reason = "the gap is to be seen")]
    fn what_was_asked_for_is_read_or_refused_with_a_reason() {
        for name in [
            "Gemma4UnifiedForConditionalGeneration",
            "GraniteSWAForCausalLM",
            "GraniteMoeSWAForCausalLM",
            "Exaone4_5_ForConditionalGeneration",
            "OlmoHybridForCausalLM",
            "Lfm3ForCausalLM",
            "Lfm3VlForConditionalGeneration",
            "InternVLForConditionalGeneration",
            "SmolVLMForConditionalGeneration",
        ] {
            assert!(!matches!(Verdict::of(name), None | Some(Verdict::NotYet)), "{name}");
        }
        let waiting: Vec<&str> =
            entries().filter(|it| it.1 == Verdict::NotYet).map(|(name, _)| name).collect();
        eprintln!("{} of transformers {} are not supported yet:", waiting.len(), LIST["transformers"]);
        eprintln!("{}", waiting.join("\n"));
    }

    /// Needs Python with transformers: `ABLATE_PYTHON` names the interpreter.
    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped test says why")]
    fn the_list_has_every_architecture_of_the_installed_transformers() {
        let Some(python) = std::env::var_os("ABLATE_PYTHON") else {
            eprintln!("skipped: ABLATE_PYTHON names no interpreter");
            return;
        };
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/architectures_check.py");
        let done = Command::new(python).arg(tool).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    }
}
