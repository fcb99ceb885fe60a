//! Choosing a trial by a sentence: `min kl where refusals <= 5 and perplexity < 20`, `min refusals then min kl`.
//!
//! A name is that of a score, or its beginning where only one score begins so. A score that counts (refusals) is
//! compared by its count; with `%` behind the number, by its share. What comes after `then` decides between trials
//! that are equal in what comes before.

use std::str::FromStr;

use scorers::Goal;

use crate::ScoreRecord;

/// What is wanted of the trial to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    text: String,
    wishes: Vec<Wish>,
    conditions: Vec<Condition>,
}

/// What is to be small or large; a wish counts where all before it are equal.
#[derive(Clone, Debug, PartialEq)]
struct Wish {
    goal: Goal,
    score: String,
}

#[derive(Clone, Debug, PartialEq)]
struct Condition {
    score: String,
    comparison: Comparison,
    number: f64,
    percent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

/// Why a sentence chooses nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// It is written in another way.
    #[error("`{text}`: expected {expected}\n\nhint: write for example `min kl where refusals <= 5`")]
    Malformed {
        /// The sentence.
        text: String,
        /// What should have come.
        expected: &'static str,
    },
    /// Several scores begin so, and none is called so.
    #[error("`{text}`: `{name}` may be any of {}\n\nhint: write the whole name", fitting.join(", "))]
    AmbiguousScore {
        /// The sentence.
        text: String,
        /// The beginning.
        name: String,
        /// The names that begin so.
        fitting: Vec<String>,
    },
    /// No score is called so.
    #[error("`{text}`: no score is called `{name}`\n\nhint: scores are {}", known.join(", "))]
    UnknownScore {
        /// The sentence.
        text: String,
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// All trials break a condition.
    #[error("`{text}`: none of {trials} trials fits\n\nhint: weaken the condition, or run more trials")]
    NoneFits {
        /// The sentence.
        text: String,
        /// How many trials there are.
        trials: usize,
    },
}

impl FromStr for Pick {
    type Err = PickError;

    fn from_str(text: &str) -> Result<Self, PickError> {
        let malformed = |expected| PickError::Malformed { text: text.to_owned(), expected };
        let words = words(text);
        let mut words = words.iter().map(String::as_str);
        let mut wishes = Vec::new();
        let mut next;
        loop {
            let goal = match words.next() {
                Some("min" | "minimize") => Goal::Minimize,
                Some("max" | "maximize") => Goal::Maximize,
                _ if wishes.is_empty() => return Err(malformed("`min` or `max` first")),
                _ => return Err(malformed("`min` or `max` after `then`")),
            };
            let score = words.next().ok_or_else(|| malformed("the name of a score"))?.to_owned();
            wishes.push(Wish { goal, score });
            next = words.next();
            if next != Some("then") {
                break;
            }
        }
        let mut conditions = Vec::new();
        while let Some(word) = next {
            let expected = if conditions.is_empty() { "where" } else { "and" };
            if word != expected {
                return Err(malformed(if conditions.is_empty() { "`where` or `then`" } else { "`and`" }));
            }
            let score = words.next().ok_or_else(|| malformed("the name of a score"))?.to_owned();
            let comparison = match words.next() {
                Some("<") => Comparison::Less,
                Some("<=") => Comparison::AtMost,
                Some(">") => Comparison::More,
                Some(">=") => Comparison::AtLeast,
                Some("=" | "==") => Comparison::Equal,
                _ => return Err(malformed("one of <, <=, >, >=, =")),
            };
            let number = words.next().ok_or_else(|| malformed("a number"))?;
            let (number, percent) = number.strip_suffix('%').map_or((number, false), |it| (it, true));
            let number = number.parse().ok().filter(|it: &f64| it.is_finite());
            let number = number.ok_or_else(|| malformed("a number"))?;
            conditions.push(Condition { score, comparison, number, percent });
            next = words.next();
        }
        Ok(Self { text: text.to_owned(), wishes, conditions })
    }
}

/// Words, with comparisons as words of their own even where no space is around them.
fn words(text: &str) -> Vec<String> {
    let is_sign = |it: char| matches!(it, '<' | '>' | '=');
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for it in text.chars().filter(|it| !it.is_control() || it.is_whitespace()) {
        match words.last_mut() {
            _ if it.is_whitespace() => {}
            Some(word) if !before.is_whitespace() && is_sign(before) == is_sign(it) => word.push(it),
            _ => words.push(it.to_string()),
        }
        before = it;
    }
    words
}

impl Pick {
    /// Whether every name is that of one score; these are the names that there are.
    ///
    /// # Errors
    /// [`PickError::UnknownScore`] and [`PickError::AmbiguousScore`]: hours before there is anything to choose from.
    pub fn check(&self, names: &[String]) -> Result<(), PickError> {
        let wanted = self.wishes.iter().map(|it| &it.score).chain(self.conditions.iter().map(|it| &it.score));
        for name in wanted {
            self.place(names, name)?;
        }
        Ok(())
    }

    /// The place of the best of some trials, given their scores; of equal ones the first.
    pub fn choose(&self, trials: &[Vec<ScoreRecord>]) -> Result<usize, PickError> {
        let mut best: Option<(Vec<f64>, usize)> = None;
        for (place, scores) in trials.iter().enumerate() {
            let mut fits = true;
            for condition in &self.conditions {
                fits &= condition.holds(self.find(scores, &condition.score)?);
            }
            let loss = |it: &Wish| -> Result<f64, PickError> {
                let value = self.find(scores, &it.score)?.value;
                Ok(if it.goal == Goal::Maximize { -value } else { value })
            };
            let losses = self.wishes.iter().map(loss).collect::<Result<Vec<f64>, PickError>>()?;
            if fits && best.as_ref().is_none_or(|(least, _)| losses < *least) {
                best = Some((losses, place));
            }
        }
        best.map(|it| it.1)
            .ok_or_else(|| PickError::NoneFits { text: self.text.clone(), trials: trials.len() })
    }

    fn find<'a>(&self, scores: &'a [ScoreRecord], name: &str) -> Result<&'a ScoreRecord, PickError> {
        let names: Vec<String> = scores.iter().map(|it| it.name.clone()).collect();
        Ok(&scores[self.place(&names, name)?])
    }

    /// The place of the score that a name, or the beginning of one, means.
    fn place(&self, names: &[String], name: &str) -> Result<usize, PickError> {
        if let Some(exact) = names.iter().position(|it| it == name) {
            return Ok(exact);
        }
        let fitting: Vec<usize> = (0..names.len()).filter(|&it| names[it].starts_with(name)).collect();
        match fitting[..] {
            [one] => Ok(one),
            [] => Err(PickError::UnknownScore {
                text: self.text.clone(),
                name: name.to_owned(),
                known: names.to_vec(),
            }),
            _ => Err(PickError::AmbiguousScore {
                text: self.text.clone(),
                name: name.to_owned(),
                fitting: fitting.into_iter().map(|it| names[it].clone()).collect(),
            }),
        }
    }
}

impl Condition {
    fn holds(&self, score: &ScoreRecord) -> bool {
        let value = match score.details.count {
            _ if self.percent => score.value * 100.0,
            Some(count) => count as f64,
            None => score.value,
        };
        match self.comparison {
            Comparison::Less => value < self.number,
            Comparison::AtMost => value <= self.number,
            Comparison::More => value > self.number,
            Comparison::AtLeast => value >= self.number,
            #[expect(clippy::float_cmp, reason = "the user asked for it; counts are whole")]
            Comparison::Equal => value == self.number,
        }
    }
}

#[cfg(test)]
mod tests {
    use scorers::Details;

    use super::*;

    fn trial(refusals: usize, kl: f64) -> Vec<ScoreRecord> {
        let record = |name: &str, value: f64, count| ScoreRecord {
            name: name.to_owned(),
            value,
            display: String::new(),
            baseline: None,
            details: Details { count, total: count.map(|_| 100), ..Details::default() },
        };
        vec![record("refusals", refusals as f64 / 100.0, Some(refusals)), record("kl_divergence", kl, None)]
    }

    fn choose(sentence: &str) -> Result<usize, PickError> {
        let trials = [trial(0, 0.9), trial(5, 0.2), trial(6, 0.1), trial(90, 0.0)];
        sentence.parse::<Pick>()?.choose(&trials)
    }

    #[test]
    fn the_best_trial_that_fits_is_chosen() {
        assert_eq!(choose("min kl where refusals <= 5"), Ok(1));
        assert_eq!(choose("min kl where refusals<6"), Ok(1));
        assert_eq!(choose("min kl where refusals <= 6%"), Ok(2));
        assert_eq!(choose("minimize refusals where kl_divergence <= 0.5 and refusals > 5"), Ok(2));
        assert_eq!(choose("max kl"), Ok(0));
        assert_eq!(choose("min kl where refusals == 90"), Ok(3));
    }

    #[test]
    fn what_comes_after_then_decides_between_equal_trials() {
        let trials = [trial(3, 0.1), trial(0, 0.9), trial(0, 0.2), trial(0, 0.3)];
        let choose = |sentence: &str| sentence.parse::<Pick>()?.choose(&trials);
        assert_eq!(choose("min refusals"), Ok(1), "of equal ones the first");
        assert_eq!(choose("min refusals then min kl"), Ok(2));
        assert_eq!(choose("min refusals then max kl where kl < 0.5"), Ok(3));
        assert!(matches!(choose("min refusals then kl"), Err(PickError::Malformed { .. })));
        assert!(matches!(choose("min refusals where kl < 1 then min kl"), Err(PickError::Malformed { .. })));
    }

    #[test]
    fn names_are_known_before_there_is_a_trial() {
        let names = ["refusals", "kl_divergence", "kl_divergence_b"].map(str::to_owned);
        let check = |sentence: &str| sentence.parse::<Pick>()?.check(&names);
        assert_eq!(check("min kl_divergence where refusals <= 5"), Ok(()));
        assert_eq!(check("min ref then min kl_divergence_b"), Ok(()));
        let said = check("min refusals where kl < 1").unwrap_err().to_string();
        assert!(said.contains("`kl` may be any of kl_divergence, kl_divergence_b"), "{said}");
        assert!(matches!(check("min speed"), Err(PickError::UnknownScore { .. })));
    }

    #[test]
    fn what_chooses_nothing_says_why() {
        assert!(matches!(choose("best"), Err(PickError::Malformed { .. })));
        assert!(matches!(choose("min kl where"), Err(PickError::Malformed { .. })));
        assert!(matches!(choose("min kl where refusals about 5"), Err(PickError::Malformed { .. })));
        assert!(matches!(choose("min kl where refusals < x"), Err(PickError::Malformed { .. })));
        assert!(matches!(choose("min kl with refusals < 5"), Err(PickError::Malformed { .. })));
        assert!(matches!(choose("min speed"), Err(PickError::UnknownScore { .. })));
        assert!(matches!(choose("min kl where refusals < 0"), Err(PickError::NoneFits { trials: 4, .. })));
    }

    #[test]
    fn a_beginning_that_fits_several_scores_is_no_name() {
        let mut scores = trial(1, 0.1);
        scores.extend(trial(2, 0.2).into_iter().map(|mut it| {
            it.name.push_str("_small");
            it
        }));
        let pick: Pick = "min refusals".parse().unwrap();
        assert_eq!(pick.choose(&[scores.clone()]), Ok(0), "the exact name comes first");
        let pick: Pick = "min ref".parse().unwrap();
        assert!(matches!(pick.choose(&[scores]), Err(PickError::AmbiguousScore { .. })));
    }
}
