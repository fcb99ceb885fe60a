//! `kl_divergence`: how far the first token of the answers has moved from the original's, on harmless prompts.
//!
//! value = mean over prompts of KL(original ‖ candidate) = Σ p ln(p / p'), in nats, p the original's distribution of
//! the answer's first token and p' the candidate's. The order is heretic's: it punishes what the candidate no longer
//! says more than what it says in addition. The values are heavy-tailed, so that a few prompts may make most of the
//! mean: median, maximum and standard error stand beside it.
//!
//! With `detect_false_refusals` the same prompts are answered as well and classified by their markers (heretic's pull
//! request 210). Then, with W = `false_refusal_weight`,
//!
//! ```text
//! objective = value + W · false refusals / prompts
//! ```
//!
//! and the value stays the plain divergence. Facts: `false_refusals` (a count), `total`, `false_refusal_interval`.

use std::num::NonZeroUsize;

use super::refusals::compiled;
use super::{DefaultSets, Member, Scorer};
use crate::settings::settings;
use crate::statistics::wilson_interval;
use crate::{
    ConfigureError, DEFAULT_MARKERS, Evidence, EvidenceKind, Goal, Markers, Need, PromptSet, Score,
    ScoreError, StopRule,
};

settings! {
    /// Settings of `kl_divergence`.
    pub struct KlDivergenceSettings {
        /// Prompts whose first answer token is compared. Default: the evaluation prompts that do not show the
        /// behavior.
        pub prompts: Option<PromptSet> = None,
        /// Whether the prompts are also answered, and refusals among the answers penalized.
        pub detect_false_refusals: bool = false,
        /// What the search adds to the divergence if all prompts are refused; a share of it for a share of them.
        pub false_refusal_weight: f64 = 0.5,
        /// How many characters at an answer's beginning are searched for markers, where answers are then cut: most
        /// refusals open with one, and whole answers to harmless prompts take most of a trial's time. Default: all of
        /// them.
        pub false_refusal_opening: Option<NonZeroUsize> = None,
        /// Phrases whose presence makes an answer a refusal; the same comparison as in `refusals`.
        pub false_refusal_markers: Vec<String> = DEFAULT_MARKERS.map(str::to_owned).to_vec(),
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct KlDivergence {
    name: String,
    prompts: PromptSet,
    penalty: Option<Penalty>,
}

/// What false refusals cost.
#[derive(Debug)]
struct Penalty {
    markers: Markers,
    weight: f64,
}

impl Member for KlDivergence {
    const NAME: &'static str = "kl_divergence";
    const SUMMARY: &'static str = "divergence of the first answer token from the original's, in nats";
    const GOAL: Goal = Goal::Minimize;
    const NEUTRAL: Option<f64> = Some(0.0);
    type Settings = KlDivergenceSettings;

    fn configure(
        name: &str,
        settings: KlDivergenceSettings,
        sets: &DefaultSets,
    ) -> Result<Self, ConfigureError> {
        let weight = settings.false_refusal_weight;
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(ConfigureError::Value {
                scorer: name.to_owned(),
                setting: "false_refusal_weight",
                found: weight.to_string(),
                expected: "a number that is not negative",
            });
        }
        let markers = compiled(name, "false_refusal_markers", &settings.false_refusal_markers)?
            .in_opening(settings.false_refusal_opening);
        Ok(Self {
            name: name.to_owned(),
            prompts: settings.prompts.unwrap_or_else(|| sets.baseline.clone()),
            penalty: settings.detect_false_refusals.then_some(Penalty { markers, weight }),
        })
    }
}

impl Scorer for KlDivergence {
    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Need> {
        let mut needs = vec![Need::FirstToken { prompts: self.prompts.clone() }];
        if let Some(penalty) = &self.penalty {
            let until = Some(StopRule::at_markers(penalty.markers.clone()));
            needs.push(Need::Answers { prompts: self.prompts.clone(), until });
        }
        needs
    }

    fn score(&self, evidence: &Evidence) -> Result<Score, ScoreError> {
        let divergences = evidence.first_token(&self.prompts)?;
        let mut score = Score::mean(divergences.to_vec());
        let Some(penalty) = &self.penalty else { return Ok(score) };

        let answers = evidence.answers(&self.prompts)?;
        if answers.len() != divergences.len() {
            return Err(ScoreError::Lengths {
                set: self.prompts.to_string(),
                left_kind: EvidenceKind::FirstToken,
                left: divergences.len(),
                right_kind: EvidenceKind::Answers,
                right: answers.len(),
            });
        }
        let refused = answers.iter().filter(|it| penalty.markers.matches(it)).count();
        let total = answers.len();
        score.objective = score.value + penalty.weight * refused as f64 / total as f64;
        score.display = format!("{} ({refused}/{total} refused)", score.display);
        score.details.total = Some(total);
        score.details.add("false_refusals", refused);
        score.details.add("false_refusal_interval", wilson_interval(refused, total).to_vec());
        Ok(score)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::configure;

    fn scorer(settings: &Value) -> crate::Configured {
        let sets = DefaultSets { behavior: "bad".into(), baseline: "good".into() };
        configure("kl_divergence", None, None, settings, &sets).unwrap()
    }

    fn evidence() -> Evidence {
        let answers = ["Paris.", "I’m sorry", "42", "  "].map(str::to_owned).to_vec();
        Evidence::new()
            .with_first_token(&"good".into(), vec![0.25, 0.0, 0.5, 0.25])
            .with_answers(&"good".into(), answers)
    }

    #[test]
    fn the_value_is_the_mean_and_the_tail_stands_beside_it() {
        let score = scorer(&Value::Null).score(&evidence()).unwrap();
        assert_eq!((score.value, score.objective, score.display.as_str()), (0.25, 0.25, "0.2500"));
        let details = score.details;
        assert_eq!((details.mean, details.median, details.max), (Some(0.25), Some(0.25), Some(0.5)));
        // Deviations 0, −1/4, 1/4, 0: variance 1/8 / 3, divided by 4.
        assert!((details.standard_error.unwrap() - (1.0_f64 / 96.0).sqrt()).abs() < 1e-15);
        assert_eq!(details.per_prompt, [0.25, 0.0, 0.5, 0.25]);
        assert!(details.facts.is_empty() && details.count.is_none() && details.total.is_none());
    }

    #[test]
    fn false_refusals_are_penalized_by_their_share_times_the_weight() {
        let score = scorer(&json!({"detect_false_refusals": true})).score(&evidence()).unwrap();
        // 2 of 4 refuse, one of them by silence: 0.25 + 0.5 · 2/4.
        assert_eq!((score.value, score.objective), (0.25, 0.5));
        assert_eq!((&score.details.facts["false_refusals"], score.details.total), (&json!(2), Some(4)));
        assert_eq!(score.display, "0.2500 (2/4 refused)");
        let heavier = json!({"detect_false_refusals": true, "false_refusal_weight": 3.0});
        assert_eq!(scorer(&heavier).score(&evidence()).unwrap().objective.to_bits(), 1.75_f64.to_bits());
    }

    #[test]
    fn the_opening_alone_is_searched_where_that_is_wanted() {
        // "I’m sorry" has its marker in characters 5 to 9.
        let of = |opening: usize| {
            let settings = json!({"detect_false_refusals": true, "false_refusal_opening": opening});
            scorer(&settings).score(&evidence()).unwrap().details.facts["false_refusals"].clone()
        };
        assert_eq!((of(8), of(9)), (json!(1), json!(2)));
    }

    #[test]
    fn answers_of_the_same_prompts_are_asked_for_only_to_detect_false_refusals() {
        assert_eq!(scorer(&Value::Null).scorer.needs(), [Need::FirstToken { prompts: "good".into() }]);
        let needs = scorer(&json!({"detect_false_refusals": true, "prompts": "mine.txt"})).scorer.needs();
        assert_eq!(needs[0], Need::FirstToken { prompts: "mine.txt".into() });
        let Need::Answers { prompts, until: Some(rule) } = &needs[1] else { panic!("{needs:?}") };
        assert!(prompts.as_str() == "mine.txt" && rule.verdict_known("sorry"));
    }

    #[test]
    fn answers_for_another_number_of_prompts_are_refused() {
        let evidence = evidence().with_answers(&"good".into(), vec!["yes".into()]);
        let error = scorer(&json!({"detect_false_refusals": true})).score(&evidence).unwrap_err();
        assert!(matches!(error, ScoreError::Lengths { left: 4, right: 1, .. }), "{error}");
    }

    #[test]
    fn a_weight_that_is_no_penalty_is_refused() {
        let sets = DefaultSets { behavior: "bad".into(), baseline: "good".into() };
        let error = configure("kl_divergence", None, None, &json!({"false_refusal_weight": -1.0}), &sets)
            .unwrap_err();
        assert!(matches!(error, ConfigureError::Value { setting: "false_refusal_weight", .. }), "{error}");
    }
}
