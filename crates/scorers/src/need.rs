//! What scorers need, and the plan that serves all of them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::StopRule;

/// The name of a prompt set as the settings give it: a path with an optional slice, or an embedded set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct PromptSet(Arc<str>);

impl PromptSet {
    /// The set of that name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for PromptSet {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<&str> for PromptSet {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<PromptSet> for String {
    fn from(set: PromptSet) -> Self {
        set.as_str().to_owned()
    }
}

impl fmt::Display for PromptSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a scorer needs to know of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Need {
    /// Per prompt, KL(original ‖ candidate) of the distribution of the answer's first token, in nats.
    FirstToken {
        /// The prompts.
        prompts: PromptSet,
    },
    /// Per prompt, the log-probability (nats) that the answer's first token is the first token of one of these
    /// texts. Texts with the same first token count once.
    Openings {
        /// The prompts.
        prompts: PromptSet,
        /// The texts, as they would stand at the start of an answer.
        openings: Vec<String>,
    },
    /// Per prompt, the text of the answer.
    Answers {
        /// The prompts.
        prompts: PromptSet,
        /// The answer may be cut as soon as this rule says that its verdict is known; `None`: never.
        until: Option<StopRule>,
    },
    /// Per prompt, the whole answer, its length in tokens, and what the *original* model thinks of it.
    JudgedAnswers {
        /// The prompts.
        prompts: PromptSet,
    },
    /// Per prompt and token of the original model's own answer, what the candidate makes of it (teacher-forced).
    OriginalAnswers {
        /// The prompts.
        prompts: PromptSet,
    },
    /// The log-probability (nats) of each token of a given text. Without a beginning-of-sequence token the text's
    /// first token has none and is left out.
    Text {
        /// The text.
        text: Arc<str>,
    },
}

impl Need {
    /// What kind of evidence serves this need.
    pub fn kind(&self) -> EvidenceKind {
        match self {
            Self::FirstToken { .. } => EvidenceKind::FirstToken,
            Self::Openings { .. } => EvidenceKind::Openings,
            Self::Answers { .. } => EvidenceKind::Answers,
            Self::JudgedAnswers { .. } => EvidenceKind::JudgedAnswers,
            Self::OriginalAnswers { .. } => EvidenceKind::OriginalAnswers,
            Self::Text { .. } => EvidenceKind::Text,
        }
    }
}

/// The kinds of evidence, as errors name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidenceKind {
    /// The prompts themselves.
    Prompts,
    /// See [`Need::FirstToken`].
    FirstToken,
    /// See [`Need::Openings`].
    Openings,
    /// See [`Need::Answers`].
    Answers,
    /// See [`Need::JudgedAnswers`].
    JudgedAnswers,
    /// See [`Need::OriginalAnswers`].
    OriginalAnswers,
    /// See [`Need::Text`].
    Text,
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prompts => "prompts",
            Self::FirstToken => "first-token divergences",
            Self::Openings => "probabilities of openings",
            Self::Answers => "answers",
            Self::JudgedAnswers => "judged answers",
            Self::OriginalAnswers => "divergences on the original's answers",
            Self::Text => "token probabilities of a text",
        })
    }
}

/// What to collect of one candidate, so that every need is served and nothing is computed twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What each prompt set has to give, in the order in which the sets were first named.
    pub sets: Vec<SetPlan>,
    /// Texts whose tokens are to be scored.
    pub texts: Vec<Arc<str>>,
}

/// What one prompt set has to give.
#[derive(Clone, Debug, PartialEq)]
pub struct SetPlan {
    /// The set.
    pub prompts: PromptSet,
    /// Whether the first token's divergence is needed.
    pub first_token: bool,
    /// Lists of openings whose probability is needed.
    pub openings: Vec<Vec<String>>,
    /// Whether answers are needed, and which.
    pub answers: Option<AnswerPlan>,
    /// Whether the original's answers are to be forced through the candidate.
    pub original_answers: bool,
}

/// Which answers are needed.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerPlan {
    /// An answer may be cut when this rule says so; `None`: answers are needed whole.
    pub until: Option<StopRule>,
    /// Whether the original model has to judge the answers. Then they are whole, and serve as plain answers too.
    pub judged: bool,
}

impl Plan {
    /// The union of needs. An answer may be cut only when every scorer that reads it knows its verdict.
    pub fn merge(needs: impl IntoIterator<Item = Need>) -> Self {
        let mut plan = Self::default();
        for need in needs {
            plan.add(need);
        }
        plan
    }

    /// What a set has to give, if anything.
    pub fn set(&self, prompts: &PromptSet) -> Option<&SetPlan> {
        self.sets.iter().find(|it| it.prompts == *prompts)
    }

    fn add(&mut self, need: Need) {
        match need {
            Need::FirstToken { prompts } => self.entry(prompts).first_token = true,
            Need::Openings { prompts, openings } => {
                let lists = &mut self.entry(prompts).openings;
                if !lists.contains(&openings) {
                    lists.push(openings);
                }
            }
            Need::Answers { prompts, until } => {
                self.entry(prompts).add_answers(AnswerPlan { until, judged: false });
            }
            Need::JudgedAnswers { prompts } => {
                self.entry(prompts).add_answers(AnswerPlan { until: None, judged: true });
            }
            Need::OriginalAnswers { prompts } => self.entry(prompts).original_answers = true,
            Need::Text { text } => {
                if !self.texts.contains(&text) {
                    self.texts.push(text);
                }
            }
        }
    }

    fn entry(&mut self, prompts: PromptSet) -> &mut SetPlan {
        let found = self.sets.iter().position(|it| it.prompts == prompts);
        let index = found.unwrap_or_else(|| {
            self.sets.push(SetPlan {
                prompts,
                first_token: false,
                openings: Vec::new(),
                answers: None,
                original_answers: false,
            });
            self.sets.len() - 1
        });
        &mut self.sets[index]
    }
}

impl SetPlan {
    fn add_answers(&mut self, more: AnswerPlan) {
        self.answers = Some(match self.answers.take() {
            None => more,
            Some(known) => AnswerPlan {
                until: known.until.zip(more.until).map(|(a, b)| a.and(&b)),
                judged: known.judged || more.judged,
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Markers;

    fn rule(marker: &str) -> StopRule {
        StopRule::at_markers(Markers::new([marker]).unwrap())
    }

    fn answers(set: &str, until: Option<StopRule>) -> Need {
        Need::Answers { prompts: set.into(), until }
    }

    fn until(needs: Vec<Need>) -> Option<StopRule> {
        Plan::merge(needs).set(&"a".into()).unwrap().answers.clone().unwrap().until
    }

    #[test]
    fn needs_of_one_set_are_merged_and_sets_keep_their_order() {
        let first = |set: &str| Need::FirstToken { prompts: set.into() };
        let openings = |text: &str| Need::Openings { prompts: "b".into(), openings: vec![text.into()] };
        let plan = Plan::merge([
            first("b"),
            first("a"),
            openings("I"),
            openings("As"),
            openings("I"),
            first("b"),
            Need::OriginalAnswers { prompts: "a".into() },
            Need::Text { text: "t".into() },
            Need::Text { text: "t".into() },
        ]);
        let names: Vec<&str> = plan.sets.iter().map(|it| it.prompts.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        let b = plan.set(&"b".into()).unwrap();
        assert!(b.first_token && b.answers.is_none() && !b.original_answers);
        assert_eq!(b.openings, [vec!["I".to_owned()], vec!["As".to_owned()]]);
        assert!(plan.set(&"a".into()).unwrap().original_answers);
        assert_eq!(plan.texts.len(), 1);
    }

    #[test]
    fn an_answer_is_cut_only_when_every_rule_knows_its_verdict() {
        let merged =
            until(vec![answers("a", Some(rule("sorry"))), answers("a", Some(rule("cannot")))]).unwrap();
        assert!(!merged.verdict_known("sorry, no"));
        assert!(!merged.verdict_known("i cannot"));
        assert!(merged.verdict_known("sorry, i cannot"));
    }

    #[test]
    fn the_same_rule_twice_is_the_rule_in_any_order() {
        let (a, b) = (rule("sorry"), rule("cannot"));
        assert_eq!(
            until(vec![answers("a", Some(a.clone())), answers("a", Some(a.clone()))]),
            Some(a.clone())
        );
        assert_eq!(a.and(&b), b.and(&a));
        assert_ne!(a, b);
    }

    #[test]
    fn a_scorer_without_a_rule_needs_whole_answers_before_and_after_one_with_a_rule() {
        let with = || answers("a", Some(rule("sorry")));
        assert_eq!(until(vec![with(), answers("a", None)]), None);
        assert_eq!(until(vec![answers("a", None), with()]), None);
    }

    #[test]
    fn judged_answers_are_whole_and_serve_as_answers() {
        let plan =
            Plan::merge([answers("a", Some(rule("sorry"))), Need::JudgedAnswers { prompts: "a".into() }]);
        assert_eq!(plan.sets[0].answers, Some(AnswerPlan { until: None, judged: true }));
    }
}
