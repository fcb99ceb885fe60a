//! `perplexity`: how surprised the candidate is by a given text.
//!
//! value = exp(mean over tokens of −ln p(token | tokens before)). Text of the field for which the model is used tells
//! more than text that the model has learned by heart. Facts: `tokens`, `nats_per_token`.

use std::sync::Arc;

use super::{DefaultSets, Member, Scorer};
use crate::settings::settings;
use crate::statistics::Summary;
use crate::{ConfigureError, Evidence, Goal, Need, Score, ScoreError};

settings! {
    /// Settings of `perplexity`.
    pub struct PerplexitySettings {
        /// The text, or the name of a file that holds it. Required.
        pub text: String = String::new(),
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Perplexity {
    name: String,
    text: Arc<str>,
}

impl Member for Perplexity {
    const NAME: &'static str = "perplexity";
    const SUMMARY: &'static str = "how surprised the model is by a given text";
    const GOAL: Goal = Goal::Minimize;
    const TEXTS: &'static [&'static str] = &["text"];
    type Settings = PerplexitySettings;

    fn configure(name: &str, settings: PerplexitySettings, _: &DefaultSets) -> Result<Self, ConfigureError> {
        if settings.text.is_empty() {
            return Err(ConfigureError::Required { scorer: name.to_owned(), setting: "text" });
        }
        Ok(Self { name: name.to_owned(), text: settings.text.into() })
    }

    #[cfg(test)]
    fn example() -> serde_json::Value {
        serde_json::json!({"text": "It was the best of times."})
    }
}

impl Scorer for Perplexity {
    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::Text { text: Arc::clone(&self.text) }]
    }

    fn score(&self, evidence: &Evidence) -> Result<Score, ScoreError> {
        let surprise: Vec<f64> = evidence.text(&self.text)?.iter().map(|it| -it).collect();
        let nats = Summary::of(&surprise).mean;
        let value = nats.exp();
        let mut score = Score::plain(value, format!("{value:.2}"));
        score.details.add("tokens", surprise.len());
        score.details.add("nats_per_token", nats);
        Ok(score)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::configure;

    fn sets() -> DefaultSets {
        DefaultSets { behavior: "bad".into(), baseline: "good".into() }
    }

    #[test]
    fn a_model_that_guesses_among_two_has_a_perplexity_of_two() {
        let scorer = configure("perplexity", None, None, &json!({"text": "ab"}), &sets()).unwrap();
        let evidence = Evidence::new().with_text(&"ab".into(), vec![0.25_f64.ln(), 0.0]);
        let score = scorer.score(&evidence).unwrap();
        assert!((score.value - 2.0).abs() < 1e-15);
        assert_eq!((score.display.as_str(), &score.details.facts["tokens"]), ("2.00", &json!(2)));
    }

    #[test]
    fn a_text_has_to_be_given() {
        let error = configure("perplexity", None, None, &Value::Null, &sets()).unwrap_err();
        assert_eq!(error, ConfigureError::Required { scorer: "perplexity".into(), setting: "text" });
    }

    #[test]
    fn a_perplexity_beyond_all_numbers_is_an_error() {
        let scorer = configure("perplexity", None, None, &json!({"text": "ab"}), &sets()).unwrap();
        let error = scorer.score(&Evidence::new().with_text(&"ab".into(), vec![-1e4])).unwrap_err();
        assert!(matches!(error, ScoreError::Infinite { what: "value", .. }), "{error}");
    }
}
