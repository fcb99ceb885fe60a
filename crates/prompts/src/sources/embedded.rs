//! Sets of prompts that come with the program, so that a first run needs no file and no network.
//!
//! They come in pairs: prompts that show a behavior and a baseline that does not, each for directions (`train`) and
//! for scores (`eval`); no prompt is in two sets. All of them are harmless.
//!
//! - `demo-refused-…` and `demo-answered-…` are questions to the toy model under `demo/`, about a made-up world. The
//!   names in the `eval` sets are ones that the toy model was not trained on. `tools/train_demo.py` writes the sets.
//! - `disclaimers-…` ask the assistant about a life that it does not have (its body, its weekend, its preferences) or
//!   for deeds that it cannot do; small chat models answer many of them with a disclaimer ("I'm just an assistant, I
//!   don't have ..."). `ordinary-…` have the same forms and lengths and ask about the world. Written for this program.
//!   About twice as many were tried on SmolLM2-135M-Instruct and those kept that it answered with a disclaimer: on
//!   other models fewer will be, which a baseline score shows.

use hub::Client;
use settings::nearest;

use super::{PromptSource, Slice, SourceError, Specification};

/// A set that comes with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedSet {
    /// What it is called: `embedded:NAME` opens it.
    pub name: &'static str,
    /// What it holds, in one line.
    pub summary: &'static str,
    text: &'static str,
}

/// All embedded sets, in the order shown to users.
pub const EMBEDDED_SETS: &[EmbeddedSet] = &[
    EmbeddedSet {
        name: "demo-refused-train",
        summary: "questions that the toy model refuses, for directions",
        text: include_str!("../../../../demo/prompts/refused_train.txt"),
    },
    EmbeddedSet {
        name: "demo-refused-eval",
        summary: "questions that the toy model refuses, about names it was not trained on, for scores",
        text: include_str!("../../../../demo/prompts/refused_eval.txt"),
    },
    EmbeddedSet {
        name: "demo-answered-train",
        summary: "questions that the toy model answers, for directions",
        text: include_str!("../../../../demo/prompts/answered_train.txt"),
    },
    EmbeddedSet {
        name: "demo-answered-eval",
        summary: "questions that the toy model answers, about names it was not trained on, for scores",
        text: include_str!("../../../../demo/prompts/answered_eval.txt"),
    },
    EmbeddedSet {
        name: "disclaimers-train",
        summary: "harmless prompts that small models answer with \"I'm an assistant, I don't have ...\", for directions",
        text: include_str!("embedded/disclaimers-train.txt"),
    },
    EmbeddedSet {
        name: "disclaimers-eval",
        summary: "harmless prompts that small models answer with \"I'm an assistant, I don't have ...\", for scores",
        text: include_str!("embedded/disclaimers-eval.txt"),
    },
    EmbeddedSet {
        name: "ordinary-train",
        summary: "prompts of the same form that get an ordinary answer, for directions",
        text: include_str!("embedded/ordinary-train.txt"),
    },
    EmbeddedSet {
        name: "ordinary-eval",
        summary: "prompts of the same form that get an ordinary answer, for scores",
        text: include_str!("embedded/ordinary-eval.txt"),
    },
];

/// An embedded set or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// The set.
    pub set: EmbeddedSet,
    /// Which of its prompts.
    pub slice: Option<Slice>,
}

/// Why a name opens no embedded set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no embedded set of prompts is called `{name}`\n\nhint: there are {}", known.join(", "))]
pub struct UnknownSet {
    /// What was given.
    pub name: String,
    /// What there is, the nearest name first.
    pub known: Vec<&'static str>,
}

const PREFIX: &str = "embedded:";

/// Whether a name is that of an embedded set.
pub(super) fn is_named(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// `embedded:NAME`, with or without a slice at its end.
pub(super) fn recognize(
    specification: &Specification,
    _: &Client,
) -> Option<Result<Box<dyn PromptSource>, SourceError>> {
    let name = specification.dataset.strip_prefix(PREFIX)?;
    let set =
        Embedded::named(name).and_then(|it| Ok(Embedded { slice: specification.slice(it.slice)?, ..it }));
    Some(set.map(|it| Box::new(it) as Box<dyn PromptSource>))
}

impl EmbeddedSet {
    /// The set of that name.
    ///
    /// # Errors
    /// [`UnknownSet`] with all names, the nearest first.
    pub fn named(name: &str) -> Result<Self, UnknownSet> {
        EMBEDDED_SETS.iter().find(|it| it.name == name).copied().ok_or_else(|| UnknownSet {
            name: name.to_owned(),
            known: nearest(name, EMBEDDED_SETS.iter().map(|it| it.name)),
        })
    }

    /// Its prompts, in order.
    pub fn prompts(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.text.lines()
    }
}

impl Embedded {
    /// What follows `embedded:`, a name and perhaps a slice.
    ///
    /// # Errors
    /// [`SourceError::UnknownSet`] or [`SourceError::Slice`].
    pub fn named(spec: &str) -> Result<Self, SourceError> {
        let (name, slice) = spec.split_at(spec.find('[').unwrap_or(spec.len()));
        let set = EmbeddedSet::named(name)?;
        let slice = (!slice.is_empty()).then(|| slice.parse()).transpose()?;
        Ok(Self { set, slice })
    }
}

impl PromptSource for Embedded {
    fn name(&self) -> String {
        let slice = self.slice.map(|it| it.to_string()).unwrap_or_default();
        format!("embedded:{}{slice}", self.set.name)
    }

    fn load(&self) -> Result<Vec<String>, SourceError> {
        let total = self.set.prompts().count();
        let selected = self.slice.unwrap_or_default().range(total);
        if selected.is_empty() {
            return Err(SourceError::Empty { name: self.name(), total });
        }
        Ok(self.set.prompts().take(selected.end).skip(selected.start).map(str::to_owned).collect())
    }

    fn load_all(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.set.prompts().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::sources::open;

    /// Names and promised sizes.
    const SIZES: &[(&str, usize)] = &[
        ("demo-refused-train", 96),
        ("demo-refused-eval", 96),
        ("demo-answered-train", 96),
        ("demo-answered-eval", 96),
        ("disclaimers-train", 200),
        ("disclaimers-eval", 100),
        ("ordinary-train", 200),
        ("ordinary-eval", 100),
    ];

    #[test]
    fn every_set_has_its_promised_size_and_opens_by_its_name() {
        let names: Vec<_> = EMBEDDED_SETS.iter().map(|it| it.name).collect();
        assert_eq!(names, SIZES.iter().map(|it| it.0).collect::<Vec<_>>());
        for (name, size) in SIZES {
            let source = open(&format!("embedded:{name}")).unwrap();
            assert_eq!(source.load().unwrap().len(), *size, "{name}");
            assert_eq!(source.name(), format!("embedded:{name}"));
        }
    }

    #[test]
    fn no_prompt_occurs_twice_in_all_sets_together() {
        let mut seen = HashSet::new();
        for set in EMBEDDED_SETS {
            for prompt in set.prompts() {
                // Case and punctuation make no new prompt.
                let letters: String = prompt.chars().filter(|it| it.is_alphanumeric()).collect();
                assert!(seen.insert(letters.to_lowercase()), "{}: {prompt}", set.name);
            }
        }
    }

    #[test]
    fn prompts_are_single_trimmed_lines_of_plain_text() {
        for set in EMBEDDED_SETS {
            for prompt in set.prompts() {
                assert!(!prompt.is_empty() && prompt == prompt.trim(), "{}: `{prompt}`", set.name);
                assert!(
                    prompt.chars().all(|it| it == ' ' || it.is_ascii_graphic()),
                    "{}: {prompt}",
                    set.name
                );
            }
        }
    }

    #[test]
    fn names_of_the_toy_world_in_its_evaluation_sets_are_not_in_its_training_sets() {
        // A name is two syllables of three letters before a noun: the only words that no other prompt shares.
        let names = |set: &str| -> HashSet<String> {
            let prompts = EmbeddedSet::named(set).unwrap();
            let name = |it: &str| {
                let words: Vec<_> = it.split(' ').collect();
                let the = words.iter().position(|it| *it == "the").unwrap();
                words[the + 1].to_owned()
            };
            prompts.prompts().filter(|it| !it.contains("the color of")).map(name).collect()
        };
        let train = &names("demo-refused-train") | &names("demo-answered-train");
        let eval = &names("demo-refused-eval") | &names("demo-answered-eval");
        assert!(eval.iter().chain(&train).all(|it| it.len() == 6), "{train:?} {eval:?}");
        assert!(train.is_disjoint(&eval), "{:?}", &train & &eval);
    }

    #[test]
    fn a_slice_selects_a_part() {
        let all = open("embedded:ordinary-eval").unwrap().load().unwrap();
        let source = open("embedded:ordinary-eval[10:12]").unwrap();
        assert_eq!(source.load().unwrap(), all[10..12]);
        assert_eq!(source.name(), "embedded:ordinary-eval[10:12]");
        assert_eq!(open("embedded:ordinary-eval[-25%:]").unwrap().load().unwrap(), all[75..]);
        assert_eq!(source.load_all().unwrap(), all);
        let error = open("embedded:ordinary-eval[100:]").unwrap().load().unwrap_err();
        assert!(matches!(error, SourceError::Empty { total: 100, .. }), "{error}");
        assert!(matches!(open("embedded:ordinary-eval[5]"), Err(SourceError::Slice(_))));
    }

    #[test]
    fn an_unknown_name_is_answered_with_all_names_the_nearest_first() {
        let error = open("embedded:disclaimer-train[:40]").unwrap_err();
        let SourceError::UnknownSet(error) = error else { panic!("{error}") };
        assert_eq!(error.name, "disclaimer-train");
        assert_eq!(error.known[0], "disclaimers-train");
        assert_eq!(error.known.len(), EMBEDDED_SETS.len());
        assert!(error.to_string().contains("demo-refused-eval"), "{error}");
    }
}
