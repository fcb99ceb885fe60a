//! What the front is scored on once more: prompts of the same sources that the search did not see.

use std::collections::{BTreeMap, HashSet};

use prompts::sources;
use scorers::Plan;

use crate::model::PromptTexts;
use crate::{PipelineError, Settings, evaluate};

/// Fewer prompts are not worth scoring on.
const ENOUGH: usize = 20;

/// A run's scores on other prompts.
pub(crate) struct HeldOutPlan {
    /// The run's settings with those scorers alone all of whose prompts are replaced.
    pub(crate) settings: Settings,
    /// The prompts, those of the scorers' sets replaced.
    pub(crate) texts: PromptTexts,
    /// The names of the scores that cannot be had: a set's source has too few more prompts, or they are measured on a
    /// text, of which there is no other.
    pub(crate) left_out: Vec<String>,
}

impl HeldOutPlan {
    /// For the scorers of a run.
    pub(crate) fn of(settings: &Settings, texts: &PromptTexts) -> Result<Self, PipelineError> {
        let seen: HashSet<&String> = texts.all().collect();
        let mut found: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
        let (mut kept, mut left_out) = (Vec::new(), Vec::new());
        for (scorer, written) in evaluate::configure(settings)?.iter().zip(&settings.scorers) {
            let needs = Plan::merge(scorer.scorer.needs());
            let mut replaced = needs.texts.is_empty();
            for set in &needs.sets {
                let name = set.prompts.as_str();
                if !found.contains_key(name) {
                    found.insert(name.to_owned(), unseen(settings, texts, name, &seen)?);
                }
                replaced &= found[name].is_some();
            }
            if replaced {
                kept.push(written.clone());
            } else {
                left_out.push(scorer.name().to_owned());
            }
        }
        let texts = texts.with(found.into_iter().filter_map(|(name, prompts)| Some((name, prompts?))));
        Ok(Self { settings: Settings { scorers: kept, ..settings.clone() }, texts, left_out })
    }
}

/// Prompts of a set's source that no set of the run has, as many as it has at most; `None` where they are too few.
fn unseen(
    settings: &Settings,
    texts: &PromptTexts,
    name: &str,
    seen: &HashSet<&String>,
) -> Result<Option<Vec<String>>, PipelineError> {
    let source = sources::open(settings.set(name)?.source());
    let Ok(all) = source.and_then(|it| it.load_all()) else { return Ok(None) };
    let mut taken = HashSet::new();
    let unseen: Vec<String> = all
        .into_iter()
        .filter(|it| !seen.contains(it) && taken.insert(it.clone()))
        .take(texts.of(name)?.len())
        .collect();
    Ok((unseen.len() >= ENOUGH).then_some(unseen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{KL_PROMPTS, PromptSetSettings, REFUSAL_PROMPTS, ScorerSettings};
    use serde_json::json;

    /// A run on the first `of` prompts of embedded sets.
    fn run(refusals: &str, divergence: &str, scorers: Vec<ScorerSettings>) -> (Settings, PromptTexts) {
        let mut settings = Settings { scorers, ..Settings::default() };
        *settings.set_mut(REFUSAL_PROMPTS) = PromptSetSettings::of(refusals);
        *settings.set_mut(KL_PROMPTS) = PromptSetSettings::of(divergence);
        let texts = PromptTexts::load(&mut settings, &hub::Client::from_environment()).unwrap();
        (settings, texts)
    }

    fn named(plan: &HeldOutPlan) -> Vec<&str> {
        plan.settings.scorers.iter().map(|it| it.scorer.as_str()).collect()
    }

    #[test]
    fn every_scored_set_is_replaced_by_prompts_that_no_set_has() {
        let (mut settings, _) =
            run("embedded:demo-refused-eval[:30]", "embedded:demo-answered-eval[:30]", Vec::new());
        // A set by a name of its own, as that of what is to be kept: it is replaced, too.
        *settings.set_mut("kept") = PromptSetSettings::of("embedded:demo-refused-train[:25]");
        settings.scorers = vec![
            ScorerSettings::of("refusals"),
            ScorerSettings {
                instance_name: Some("kept".into()),
                settings: json!({"prompts": "kept"}),
                ..ScorerSettings::of("refusals")
            },
            ScorerSettings::of("kl_divergence"),
        ];
        let texts = PromptTexts::load(&mut settings, &hub::Client::from_environment()).unwrap();
        let plan = HeldOutPlan::of(&settings, &texts).unwrap();
        assert_eq!(named(&plan), ["refusals", "refusals", "kl_divergence"]);
        assert!(plan.left_out.is_empty());
        for set in [REFUSAL_PROMPTS, KL_PROMPTS, "kept"] {
            let (before, after) = (texts.of(set).unwrap(), plan.texts.of(set).unwrap());
            assert!(after.len() >= ENOUGH, "{set}: {}", after.len());
            assert!(after.iter().all(|it| !before.contains(it)), "{set}");
        }
    }

    #[test]
    fn a_score_of_what_the_search_saw_is_not_among_them() {
        // The whole of the set that shows the behavior is in use, and a text has no other part.
        let perplexity = ScorerSettings {
            settings: json!({"text": "It was a bright day."}),
            ..ScorerSettings::of("perplexity")
        };
        let (settings, texts) = run(
            "embedded:demo-refused-eval",
            "embedded:demo-answered-eval[:30]",
            vec![ScorerSettings::of("refusals"), ScorerSettings::of("kl_divergence"), perplexity],
        );
        let plan = HeldOutPlan::of(&settings, &texts).unwrap();
        assert_eq!(named(&plan), ["kl_divergence"]);
        assert_eq!(plan.left_out, ["refusals", "perplexity"]);
    }
}
