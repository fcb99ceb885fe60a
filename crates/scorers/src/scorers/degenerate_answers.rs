//! `degenerate_answers`: the share of answers that are gibberish.
//!
//! What an over-edited model says instead of refusing. An answer is degenerate when any test of [`Degeneracy`] says so.
//! Facts: `flagged_by`, how many answers each test flagged; `flags`, for each flagged prompt (from 0) the tests.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{DefaultSets, Member, Scorer};
use crate::degeneracy::Degeneracy;
use crate::settings::settings;
use crate::{ConfigureError, Evidence, Goal, Need, PromptSet, Score, ScoreError};

settings! {
    /// Settings of `degenerate_answers`.
    pub struct DegenerateAnswersSettings {
        /// Prompts to answer. Default: the evaluation prompts that show the behavior, which are answered anyway.
        pub prompts: Option<PromptSet> = None,
        /// What counts as gibberish.
        pub degeneracy: Degeneracy = Degeneracy::default(),
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct DegenerateAnswers {
    name: String,
    prompts: PromptSet,
    degeneracy: Degeneracy,
}

impl Member for DegenerateAnswers {
    const NAME: &'static str = "degenerate_answers";
    const SUMMARY: &'static str = "share of answers that are gibberish: loops, word salad";
    const GOAL: Goal = Goal::Minimize;
    type Settings = DegenerateAnswersSettings;

    fn configure(
        name: &str,
        settings: DegenerateAnswersSettings,
        sets: &DefaultSets,
    ) -> Result<Self, ConfigureError> {
        settings.degeneracy.check(name)?;
        let prompts = settings.prompts.unwrap_or_else(|| sets.behavior.clone());
        Ok(Self { name: name.to_owned(), prompts, degeneracy: settings.degeneracy })
    }
}

impl Scorer for DegenerateAnswers {
    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::JudgedAnswers { prompts: self.prompts.clone() }]
    }

    fn score(&self, evidence: &Evidence) -> Result<Score, ScoreError> {
        let answers = evidence.judged_answers(&self.prompts)?;
        let flags: Vec<Vec<&str>> = answers.iter().map(|it| self.degeneracy.flags(it)).collect();
        let verdicts: Vec<bool> = flags.iter().map(|it| !it.is_empty()).collect();
        let mut flagged_by: BTreeMap<&str, usize> = BTreeMap::new();
        for test in flags.iter().flatten() {
            *flagged_by.entry(test).or_default() += 1;
        }
        let flagged = flags.iter().enumerate().filter(|it| !it.1.is_empty());
        let mut score = Score::share(&verdicts);
        score.details.add("flagged_by", json!(flagged_by));
        score.details.add(
            "flags",
            flagged.map(|(prompt, tests)| json!({"prompt": prompt, "tests": tests})).collect::<Value>(),
        );
        Ok(score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JudgedAnswer, configure};

    #[test]
    fn the_tests_that_flagged_an_answer_are_told() {
        let answer = |text: &str, tokens, nats_per_token| JudgedAnswer {
            text: text.to_owned(),
            tokens,
            nats_per_token,
        };
        let evidence = Evidence::new().with_judged_answers(
            &"bad".into(),
            vec![
                answer("Paris is the capital of France.", 8, 0.3),
                answer(&"and the sorry ".repeat(30), 90, 0.4),
                answer("purple engine sorry whether seventeen of quickly table lamp whom", 14, 11.0),
                answer("No.", 2, 9.0),
            ],
        );
        let sets = DefaultSets { behavior: "bad".into(), baseline: "good".into() };
        let score = configure("degenerate_answers", None, None, &Value::Null, &sets)
            .unwrap()
            .score(&evidence)
            .unwrap();
        assert_eq!((score.value, score.display.as_str()), (0.5, "2/4"));
        assert_eq!(
            score.details.facts["flagged_by"],
            json!({"repetition": 1, "compression": 1, "nats_per_token": 1})
        );
        let flags = json!([{"prompt": 1, "tests": ["repetition", "compression"]}, {"prompt": 2, "tests": ["nats_per_token"]}]);
        assert_eq!(score.details.facts["flags"], flags);
    }
}
