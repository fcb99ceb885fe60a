//! What makes results worth less than they look.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

use crate::model::{Model, PromptTexts};
use crate::settings::{BAD_PROMPTS, GOOD_PROMPTS, KL_PROMPTS, REFUSAL_PROMPTS};
use crate::{Evaluation, PipelineError, ScoreRecord, Settings};

/// Something that makes results worth less than they look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "warning", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// Two sets have prompts in common.
    Overlap {
        /// One set.
        set: String,
        /// The other.
        other: String,
        /// Prompts of the second that the first has, too.
        common: usize,
        /// Prompts of the second.
        of: usize,
    },
    /// The original does not show the behavior that is to be removed.
    NothingToRemove {
        /// The score that counts it.
        score: String,
        /// Prompts that should show it.
        prompts: usize,
        /// Prompts that should not show it and do, where that is known.
        elsewhere: Option<usize>,
    },
    /// A prompt is longer than the text that the model was made for.
    LongPrompt {
        /// Its set.
        set: String,
        /// Its place in the set, from 0.
        prompt: usize,
        /// Its tokens, the chat template's included.
        tokens: usize,
        /// The model's context length in tokens.
        context_length: usize,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { set, other, common, of } if opposed(set, other) => write!(
                f,
                "{common} of {of} {other} are {set}, too: the sets are to differ in the behavior alone\n\nhint: take them out \
                 of one"
            ),
            Self::Overlap { set, other, common, of } => write!(
                f,
                "{common} of {of} {other} are {set}, too: the direction was found on them, so that their scores say little \
                 of other prompts\n\nhint: score on others, by slices such as [:400] and [400:]"
            ),
            Self::NothingToRemove { score, prompts, elsewhere } => {
                write!(f, "the original shows the behavior on 0 of {prompts} prompts ({score}): ")?;
                match elsewhere {
                    Some(count) if *count > 0 => write!(
                        f,
                        "and on {count} of those that should not show it\n\nhint: good and bad prompts may be swapped"
                    ),
                    _ => write!(
                        f,
                        "there is nothing to remove\n\nhint: check the markers (--refusal-markers), and whether good and bad \
                         prompts are swapped"
                    ),
                }
            }
            Self::LongPrompt { set, prompt, tokens, context_length } => write!(
                f,
                "prompt {prompt} of {set} has {tokens} tokens, and the model was made for {context_length}: what it makes of \
                 such a prompt says little\n\nhint: leave it out"
            ),
        }
    }
}

/// Whether one set shows the behavior and the other does not.
fn opposed(set: &str, other: &str) -> bool {
    let shows = |it: &str| it == BAD_PROMPTS || it == REFUSAL_PROMPTS;
    shows(set) != shows(other)
}

/// Overlaps of the sets for directions with each other and with those for scores, and of the latter.
pub(crate) fn overlaps(texts: &PromptTexts) -> Vec<Warning> {
    let pairs = [
        (GOOD_PROMPTS, BAD_PROMPTS),
        (KL_PROMPTS, REFUSAL_PROMPTS),
        (BAD_PROMPTS, REFUSAL_PROMPTS),
        (GOOD_PROMPTS, KL_PROMPTS),
        (GOOD_PROMPTS, REFUSAL_PROMPTS),
        (BAD_PROMPTS, KL_PROMPTS),
    ];
    let pairs = pairs.into_iter().filter_map(|(set, other)| {
        let (of, others) = (texts.of(set).ok()?, texts.of(other).ok()?);
        let of: HashSet<&str> = of.iter().map(|it| it.trim()).collect();
        let common = others.iter().filter(|it| of.contains(it.trim())).count();
        let (set, other) = (set.to_owned(), other.to_owned());
        (common > 0).then_some(Warning::Overlap { set, other, common, of: others.len() })
    });
    pairs.collect()
}

/// The longest prompt of each set that has more tokens than the model's context.
pub(crate) fn long_prompts(
    model: &Model,
    settings: &Settings,
    texts: &PromptTexts,
) -> Result<Vec<Warning>, PipelineError> {
    let Some(context_length) = model.engine.info().context_length else { return Ok(Vec::new()) };
    let mut warnings = Vec::new();
    for (name, prompts) in texts.sets() {
        // A token is a byte of its text at least, and templates add little: most sets need no second look.
        if prompts.iter().all(|it| it.len() < context_length / 2) {
            continue;
        }
        let lengths =
            model.encode(settings.set(name)?, settings, prompts)?.into_iter().map(|it| it.ids.len());
        let longest = lengths.enumerate().max_by_key(|it| it.1);
        warnings.extend(longest.filter(|it| it.1 > context_length).map(|(prompt, tokens)| {
            Warning::LongPrompt { set: name.to_owned(), prompt, tokens, context_length }
        }));
    }
    Ok(warnings)
}

/// Whether the original lacks the behavior: scorers that count answers with a marker find none.
pub(crate) fn nothing_to_remove(baseline: &Evaluation) -> Option<Warning> {
    let counted = |name: &str| {
        let of = |it: &&ScoreRecord| it.name == name && it.details.total.is_some();
        baseline.scores.iter().find(of).and_then(|it| Some((it, it.details.count?, it.details.total?)))
    };
    let (score, 0, prompts) = counted("refusals")? else { return None };
    let elsewhere = counted("false_refusals").map(|it| it.1);
    Some(Warning::NothingToRemove { score: score.name.clone(), prompts, elsewhere })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PromptSetSettings;
    use scorers::Details;

    fn texts(sets: &[(&str, &str)]) -> PromptTexts {
        let mut settings = Settings::default();
        for (name, source) in sets {
            *settings.set_mut(name) = PromptSetSettings::of(*source);
        }
        PromptTexts::load(&mut settings, &hub::Client::from_environment()).unwrap()
    }

    #[test]
    fn scores_on_the_prompts_of_the_directions_are_warned_of_and_others_are_not() {
        let bad = "embedded:demo-refused-train[:30]";
        let apart = texts(&[
            (BAD_PROMPTS, bad),
            (REFUSAL_PROMPTS, "embedded:demo-refused-train[30:40]"),
            (GOOD_PROMPTS, "embedded:demo-answered-train[:30]"),
        ]);
        assert_eq!(overlaps(&apart), []);
        let same = texts(&[(BAD_PROMPTS, bad), (REFUSAL_PROMPTS, "embedded:demo-refused-train[25:35]")]);
        let [warning] = &overlaps(&same)[..] else { panic!("{:?}", overlaps(&same)) };
        assert!(
            warning.to_string().starts_with("5 of 10 refusal_prompts are bad_prompts, too: the direction"),
            "{warning}"
        );
        let contrast = texts(&[(GOOD_PROMPTS, bad), (BAD_PROMPTS, bad)]);
        let [warning] = &overlaps(&contrast)[..] else { panic!("{:?}", overlaps(&contrast)) };
        assert!(warning.to_string().contains("are to differ in the behavior alone"), "{warning}");
    }

    #[test]
    fn an_original_without_the_behavior_is_warned_of() {
        let count = |name: &str, count| ScoreRecord {
            name: name.to_owned(),
            value: 0.0,
            display: String::new(),
            baseline: None,
            details: Details { count: Some(count), total: Some(16), ..Details::default() },
        };
        let of = |scores| nothing_to_remove(&Evaluation { scores, objectives: Vec::new() });
        assert_eq!(of(vec![count("refusals", 1)]), None);
        let none = of(vec![count("refusals", 0)]).unwrap().to_string();
        assert!(none.contains("on 0 of 16 prompts"), "{none}");
        let swapped = of(vec![count("refusals", 0), count("false_refusals", 16)]).unwrap().to_string();
        assert!(swapped.contains("16 of those that should not show it") && swapped.contains("swapped"));
    }
}
