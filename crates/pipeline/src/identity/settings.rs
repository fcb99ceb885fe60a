//! Which settings a study may be resumed with.

use serde_json::Value;
use settings::Fields;

use super::Change;
use crate::Settings;
use crate::settings::{BAD_PROMPTS, GOOD_PROMPTS, KEEP_PROMPTS, KL_PROMPTS, REFUSAL_PROMPTS};

/// The settings that may be others whenever a study is resumed, because no score and no proposal depends on them. All
/// others are those that the study began with; a user who sets one of them otherwise gets an error.
pub const FREE: [&str; 4] = ["n_trials", "batch_size", "max_batch_size", "print_residual_geometry"];

/// The same of the settings of scorers.
pub const FREE_OF_SCORERS: [&str; 1] = ["print_responses"];

/// The settings that are sets of prompts: compared by what the prompts are, not by where they lie.
pub(super) const SETS: [&str; 6] =
    [GOOD_PROMPTS, BAD_PROMPTS, REFUSAL_PROMPTS, KL_PROMPTS, KEEP_PROMPTS, "prompt_sets"];

/// What a user has set otherwise than a study began with. `set_by` says who set a setting, if it was the user.
pub fn settings_changes(
    study: &Settings,
    here: &Settings,
    set_by: impl Fn(&'static str) -> Option<String>,
) -> Vec<Change> {
    let values = |it: &Settings| serde_json::to_value(it).unwrap_or_default();
    let (study, here) = (values(study), values(here));
    let compared =
        Settings::FIELDS.iter().map(|it| it.name).filter(|it| !FREE.contains(it) && !SETS.contains(it));
    compared
        .filter_map(|name| {
            let (study, here) = (bound(&study[name]), bound(&here[name]));
            let origin = set_by(name).filter(|_| study != here)?;
            Some(Change {
                what: format!("`{name}`"),
                study: shortened(&study),
                here: format!("{} ({origin})", shortened(&here)),
            })
        })
        .collect()
}

/// A setting without what is free in it.
fn bound(value: &Value) -> Value {
    match value {
        Value::Object(table) => {
            let kept = table.iter().filter(|it| !FREE_OF_SCORERS.contains(&it.0.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), bound(value))).collect())
        }
        Value::Array(items) => items.iter().map(bound).collect(),
        other => other.clone(),
    }
}

/// A value as JSON, cut to a length that fits a message.
fn shortened(value: &Value) -> String {
    const LENGTH: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_free_is_a_setting_and_everything_else_is_compared() {
        let names: Vec<&str> = Settings::FIELDS.iter().map(|it| it.name).collect();
        for free in FREE.iter().chain(&SETS) {
            assert!(names.contains(free), "{free}");
        }
        let of_scorers = scorers::MEMBERS.iter().flat_map(scorers::scorers::MemberEntry::settings);
        let of_scorers: Vec<&str> = of_scorers.map(|it| it.name).collect();
        assert!(FREE_OF_SCORERS.iter().all(|it| of_scorers.contains(it)));

        // Each setting with another value than by default: exactly those that are not free are changes.
        let usual = serde_json::to_value(Settings::default()).unwrap();
        let other = |name: &str| match (&usual[name], name) {
            (_, "row_normalization") => json!("none"),
            (_, "sampler") => json!("random"),
            (_, "scorers") => json!([{"plugin": "flip_rate"}]),
            (_, "scorer") => json!({"refusals": {"markers": ["no"]}}),
            (_, "refusal_markers") => json!(["no"]),
            (_, "false_refusal_opening") => json!(9),
            (_, "chain_of_thought_skips") => json!([]),
            (Value::Bool(it), _) => json!(!it),
            (Value::Number(it), _) if it.is_f64() => json!(it.as_f64().unwrap() / 2.0),
            (Value::Number(it), _) => json!(it.as_u64().unwrap() + 1),
            (Value::String(_) | Value::Null, _) => json!("other"),
            (Value::Array(_), _) => json!(["other"]),
            (Value::Object(_), _) => json!({"other": {"one": 1}}),
        };
        for name in names.into_iter().filter(|it| !SETS.contains(it)) {
            let mut changed = usual.clone();
            changed[name] = other(name);
            let changed: Settings =
                serde_json::from_value(changed).unwrap_or_else(|it| panic!("{name}: {it}"));
            let changes = settings_changes(&Settings::default(), &changed, |_| Some("--it".to_owned()));
            let found: Vec<&str> = changes.iter().map(|it| it.what.as_str()).collect();
            let expected = format!("`{name}`");
            if FREE.contains(&name) {
                assert!(found.is_empty(), "{name}");
            } else {
                assert_eq!(found, [expected.as_str()]);
            }
            let silent = settings_changes(&Settings::default(), &changed, |_| None);
            assert!(silent.is_empty(), "what the user has not set is the study's: {name}");
        }
    }

    #[test]
    fn printing_answers_changes_no_score() {
        let with = |value: Value| Settings {
            scorer: serde_json::from_value(json!({"refusals": value})).unwrap(),
            ..Settings::default()
        };
        let changes =
            |a: Value, b: Value| settings_changes(&with(a), &with(b), |_| Some("file".to_owned())).len();
        assert_eq!(changes(json!({"print_responses": true}), json!({"print_responses": false})), 0);
        assert_eq!(changes(json!({"print_responses": true}), json!({})), 0);
        assert_eq!(changes(json!({"opening": 5}), json!({"opening": 6})), 1);
    }
}
