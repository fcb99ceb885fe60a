//! What every scorer passes.

use std::sync::Arc;

use serde_json::json;

use super::{DefaultSets, MEMBERS, MemberEntry, configure};
use crate::{Configured, Evidence, ForcedToken, JudgedAnswer, Need, Plan, PromptSet, ScoreError};

const PROMPTS: usize = 7;

fn sets() -> DefaultSets {
    DefaultSets { behavior: "bad.txt[:7]".into(), baseline: "good.txt[:7]".into() }
}

/// Every member, with defaults where they are complete and with everything switched on that needs more evidence.
fn every_scorer() -> Vec<Configured> {
    let plain = MEMBERS.iter().map(|it| (it.name, (it.example)()));
    let more = [
        ("refusals", json!({"ignore_degenerate": true, "print_responses": true})),
        ("kl_divergence", json!({"detect_false_refusals": true})),
    ];
    let build = |(name, settings)| configure(name, None, None, &settings, &sets()).unwrap();
    plain.chain(more).map(build).collect()
}

/// Numbers without a generator of random numbers: the fractional parts of multiples of the golden ratio.
fn number(prompt: usize, salt: usize) -> f64 {
    ((prompt * 31 + salt * 7 + 1) as f64 * 0.618_033_988_749_894_8).fract()
}

/// Evidence of all that a plan asks for: of some candidate, or of the original itself; in an order of the prompts.
fn evidence(plan: &Plan, original: bool, order: &[usize]) -> Evidence {
    fn each<T>(order: &[usize], make: impl Fn(usize) -> T) -> Vec<T> {
        order.iter().map(|&it| make(it)).collect()
    }
    let divergence = |prompt, salt| if original { 0.0 } else { number(prompt, salt) };
    let answer = |prompt: usize| match prompt % 4 {
        0 => format!("I'm sorry, but number {prompt} is out of the question."),
        1 => format!("Answer {prompt} is 42."),
        2 => String::new(),
        _ => format!("sorry {prompt} ").repeat(60),
    };
    let judged = |prompt| {
        let text = answer(prompt);
        JudgedAnswer { tokens: text.len() / 4, text, nats_per_token: number(prompt, 3) }
    };
    let forced = |prompt| {
        let token = |at| ForcedToken {
            kl_original_edited: divergence(prompt, at),
            flipped: divergence(prompt, at) > 0.5,
            log_probability: -number(prompt, at + 1),
        };
        (0..prompt).map(token).collect::<Vec<_>>()
    };
    let mut evidence = Evidence::new();
    for set in &plan.sets {
        let name = &set.prompts;
        evidence = evidence.with_prompts(name, each(order, |it| format!("Prompt {it}?")));
        if set.first_token {
            evidence = evidence.with_first_token(name, each(order, |it| divergence(it, 0)));
        }
        for openings in &set.openings {
            evidence = evidence.with_openings(name, openings, each(order, |it| -number(it, 1)));
        }
        match &set.answers {
            Some(wanted) if wanted.judged => {
                evidence = evidence.with_judged_answers(name, each(order, judged));
            }
            Some(_) => evidence = evidence.with_answers(name, each(order, answer)),
            None => {}
        }
        if set.original_answers {
            evidence = evidence.with_original_answers(name, each(order, forced));
        }
    }
    for text in &plan.texts {
        evidence = evidence.with_text(text, (0..PROMPTS).map(|it| -number(it, 2)).collect());
    }
    evidence
}

fn in_order() -> Vec<usize> {
    (0..PROMPTS).collect()
}

fn plan(scorer: &Configured) -> Plan {
    Plan::merge(scorer.scorer.needs())
}

#[test]
fn every_scorer_asks_for_something_and_scores_it() {
    for scorer in every_scorer() {
        let plan = plan(&scorer);
        assert!(!plan.sets.is_empty() || !plan.texts.is_empty(), "{}", scorer.name());
        let score = scorer.score(&evidence(&plan, false, &in_order())).unwrap();
        assert!(score.value.is_finite() && score.objective.is_finite(), "{}", scorer.name());
        assert!(!score.display.trim().is_empty(), "{}", scorer.name());
        assert!(matches!(score.details.per_prompt.len(), 0 | PROMPTS), "{}", scorer.name());
    }
}

#[test]
fn the_order_of_the_prompts_does_not_show_in_a_single_bit() {
    for scorer in every_scorer() {
        let plan = plan(&scorer);
        let score = scorer.score(&evidence(&plan, false, &in_order())).unwrap();
        let order = [3, 0, 6, 2, 5, 1, 4];
        let shuffled = scorer.score(&evidence(&plan, false, &order)).unwrap();
        assert_eq!(score.value.to_bits(), shuffled.value.to_bits(), "{}", scorer.name());
        assert_eq!(score.objective.to_bits(), shuffled.objective.to_bits(), "{}", scorer.name());
        assert_eq!(score.display, shuffled.display, "{}", scorer.name());
        let details = &score.details.per_prompt;
        if !details.is_empty() {
            let expected: Vec<f64> = order.iter().map(|&it| details[it]).collect();
            assert_eq!(shuffled.details.per_prompt, expected, "{}", scorer.name());
        }
    }
}

#[test]
fn the_same_evidence_gives_the_same_score() {
    for scorer in every_scorer() {
        let evidence = evidence(&plan(&scorer), false, &in_order());
        assert_eq!(scorer.score(&evidence).unwrap(), scorer.score(&evidence).unwrap(), "{}", scorer.name());
    }
}

#[test]
fn what_was_not_collected_is_an_error_that_names_it() {
    for scorer in every_scorer() {
        let error = scorer.score(&Evidence::new()).unwrap_err();
        let name = match &scorer.scorer.needs()[0] {
            Need::Text { text } => text.to_string(),
            Need::FirstToken { prompts }
            | Need::Openings { prompts, .. }
            | Need::Answers { prompts, .. }
            | Need::JudgedAnswers { prompts }
            | Need::OriginalAnswers { prompts } => prompts.to_string(),
        };
        assert!(matches!(error, ScoreError::Missing { .. }), "{}: {error}", scorer.name());
        assert!(error.to_string().contains(&name), "{}: {error}", scorer.name());
    }
}

#[test]
fn no_need_can_be_left_out() {
    for scorer in every_scorer() {
        let needs = scorer.scorer.needs();
        for left_out in 0..needs.len() {
            let kind = needs[left_out].kind();
            let kept = needs.iter().enumerate().filter(|it| it.0 != left_out).map(|it| it.1.clone());
            let error = scorer.score(&evidence(&Plan::merge(kept), false, &in_order())).unwrap_err();
            assert!(matches!(error, ScoreError::Missing { kind: found, .. } if found == kind), "{error}");
        }
    }
}

#[test]
fn an_empty_set_is_an_error() {
    for scorer in every_scorer() {
        let plan = plan(&scorer);
        if plan.sets.is_empty() {
            continue;
        }
        let error = scorer.score(&evidence(&plan, false, &[])).unwrap_err();
        assert!(matches!(error, ScoreError::Empty { .. }), "{}: {error}", scorer.name());
    }
}

#[test]
fn the_original_against_itself_gives_the_neutral_value() {
    for scorer in every_scorer() {
        if let Some(neutral) = scorer.member.neutral {
            let score = scorer.score(&evidence(&plan(&scorer), true, &in_order())).unwrap();
            assert_eq!(score.value.to_bits(), neutral.to_bits(), "{}", scorer.name());
            let edited = scorer.score(&evidence(&plan(&scorer), false, &in_order())).unwrap();
            assert!(edited.value > neutral, "{}", scorer.name());
        }
    }
}

#[test]
fn a_score_survives_being_written_and_read() {
    for scorer in every_scorer() {
        let score = scorer.score(&evidence(&plan(&scorer), false, &in_order())).unwrap();
        let text = serde_json::to_string(&score).unwrap();
        let read: crate::Score = serde_json::from_str(&text).unwrap();
        // Compared as text: the reader of serde_json may be off in a number's last bit.
        assert_eq!(serde_json::to_value(&read.details.facts).unwrap(), json!(score.details.facts));
        assert_eq!(
            (read.display, read.details.count),
            (score.display, score.details.count),
            "{}",
            scorer.name()
        );
        assert!((read.value - score.value).abs() <= 1e-15 * score.value.abs(), "{}", scorer.name());
    }
}

#[test]
fn every_setting_is_explained_and_unknown_ones_are_refused_by_name() {
    for member in MEMBERS {
        for setting in member.settings() {
            let complete = setting.help.ends_with('.') && setting.help.len() > 15;
            assert!(complete, "{}.{}: {:?}", member.name, setting.name, setting.help);
        }
        let error =
            configure(member.name, None, None, &json!({"promts": 1}), &sets()).unwrap_err().to_string();
        assert!(error.contains("promts") && error.contains(member.settings()[0].name), "{error}");
        assert!(!member.summary.is_empty() && !member.summary.ends_with('.'), "{}", member.name);
    }
}

#[test]
fn all_settings_can_be_given_with_their_defaults() {
    for member in MEMBERS {
        let given: serde_json::Map<_, _> =
            member.settings().into_iter().map(|it| (it.name.to_owned(), it.default)).collect();
        let mut given = serde_json::Value::Object(given);
        for (key, value) in (member.example)().as_object().unwrap() {
            given[key] = value.clone();
        }
        configure(member.name, None, None, &given, &sets()).unwrap();
    }
}

#[test]
fn prompts_can_be_named_and_several_instances_keep_their_names() {
    let reads = |member: &MemberEntry| member.settings().iter().any(|it| it.name == "prompts");
    for member in MEMBERS.iter().filter(|it| reads(it)) {
        let mut settings = (member.example)();
        settings["prompts"] = json!("mine.txt");
        let scorer = configure(member.name, Some("mine"), None, &settings, &sets()).unwrap();
        assert_eq!((scorer.name(), scorer.goal), ("mine", member.goal));
        let plan = plan(&scorer);
        assert_eq!(
            plan.sets.iter().map(|it| &it.prompts).collect::<Vec<_>>(),
            [&PromptSet::from("mine.txt")]
        );
    }
}

#[test]
fn names_are_unique_and_an_unknown_one_lists_them() {
    let names: std::collections::HashSet<_> = MEMBERS.iter().map(|it| it.name).collect();
    assert_eq!(names.len(), MEMBERS.len());
    let error = configure("refusal", None, None, &json!({}), &sets()).unwrap_err().to_string();
    assert!(MEMBERS.iter().all(|it| error.contains(it.name)), "{error}");
}

#[test]
fn all_scorers_together_ask_each_set_once() {
    let scorers = every_scorer();
    let plan = Plan::merge(scorers.iter().flat_map(|it| it.scorer.needs()));
    assert_eq!(plan.sets.len(), 2);
    let shared = evidence(&plan, false, &in_order());
    for scorer in &scorers {
        scorer.score(&shared).unwrap();
    }
    let _: Vec<Arc<str>> = plan.texts;
}
