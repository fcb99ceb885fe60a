//! Settings as people write them, brought into the form of [`Settings`](crate::Settings).
//!
//! Configuration files of heretic (1.4 and its plug-in successor) have the meaning here that they have there. Most
//! keys are the same; those that are not:
//!
//! | written | means |
//! |---|---|
//! | `plugin = "heretic.scorers.keyword_rate.KeywordRate"` | the scorer `refusals` |
//! | `plugin = "heretic.scorers.kl_divergence.KLDivergence"` | the scorer `kl_divergence` |
//! | `[scorer.KeywordRate]`, `[scorer.KeywordRate_INSTANCE]` | `[scorer.refusals]`, `[scorer.refusals_INSTANCE]` |
//! | `keyword_markers` in them | `markers` |
//! | `[scorer.KeywordRate.prompts]`, `[scorer.KLDivergence.prompts]` | `[refusal_prompts]`, `[kl_prompts]` |
//! | `prompts` of an instance | a set of its own, over that of its kind |
//! | `good_evaluation_prompts`, `bad_evaluation_prompts` (1.4) | `kl_prompts`, `refusal_prompts` |
//! | `print_responses` (1.4) | `print_responses` of `refusals` |
//!
//! A scorer may also be written as one text, `NAME@INSTANCE:GOAL:SETTINGS`.

use serde_json::{Map, Value, json};
use settings::{Origin, SettingsError, nearest};

use crate::settings::{KL_PROMPTS, REFUSAL_PROMPTS};

type Table = Map<String, Value>;

/// Classes of heretic's plug-ins, where they stand in Python, and what they are here.
const CLASSES: [(&str, &str, &str); 2] = [
    ("KeywordRate", "heretic.scorers.keyword_rate.KeywordRate", "refusals"),
    ("KLDivergence", "heretic.scorers.kl_divergence.KLDivergence", "kl_divergence"),
];

/// The prompt sets that belong to kinds of scorers.
const SETS: [(&str, &str); 2] = [("refusals", REFUSAL_PROMPTS), ("kl_divergence", KL_PROMPTS)];

/// A table of settings in the form of this program.
///
/// # Errors
/// [`SettingsError::Instead`] for scorers that this program does not have, with what to write.
pub fn translate(mut written: Table, origin: &Origin) -> Result<Table, SettingsError> {
    for (old, new) in [("good_evaluation_prompts", KL_PROMPTS), ("bad_evaluation_prompts", REFUSAL_PROMPTS)] {
        if let Some(set) = written.remove(old) {
            written.entry(new).or_insert(set);
        }
    }
    if let Some(Value::Array(scorers)) = written.get_mut("scorers") {
        for scorer in scorers {
            *scorer = self::scorer(scorer.take(), origin)?;
        }
    }
    let tables = written.remove("scorer");
    let mut tables = match tables {
        Some(Value::Object(tables)) => scorer_tables(tables, origin)?,
        Some(other) => Table::from_iter([("scorer".to_owned(), other)]),
        None => Table::new(),
    };
    if let Some(print) = written.remove("print_responses") {
        let table = tables.entry("refusals").or_insert_with(|| json!({}));
        if let Some(table) = table.as_object_mut() {
            table.entry("print_responses").or_insert(print);
        }
    }
    take_prompts(&mut tables, &mut written);
    if !tables.is_empty() {
        written.insert("scorer".to_owned(), Value::Object(tables));
    }
    Ok(written)
}

/// A scorer of the list.
fn scorer(written: Value, origin: &Origin) -> Result<Value, SettingsError> {
    let instead = |reason: String, hint: String| SettingsError::Instead {
        key: "scorers".to_owned(),
        origin: origin.clone(),
        reason,
        hint,
    };
    let mut table = match written {
        Value::Object(table) => table,
        Value::String(text) => short(&text).map_err(|reason| instead(reason, SHORT.to_owned()))?,
        other => return Err(instead(format!("`{other}` is no scorer"), SHORT.to_owned())),
    };
    let key = ["plugin", "scorer"].into_iter().find(|it| table.contains_key(*it)).unwrap_or("plugin");
    if let Some(Value::String(plugin)) = table.get_mut(key) {
        let own = |it: &str| scorers::MEMBERS.iter().any(|member| member.name == it);
        if let Some((.., name)) = CLASSES.iter().find(|it| it.1 == *plugin || it.0 == *plugin) {
            (*name).clone_into(plugin);
        } else if !own(plugin) {
            let python = plugin.contains(['.', ':']);
            let near = nearest(plugin, scorers::MEMBERS.iter().map(|it| it.name));
            return Err(if python {
                instead(
                    format!("`{plugin}` is Python code, which this program does not load"),
                    format!(
                        "make it a program that reads answers and writes a score (`ablate scorers` explains), and \
                         write {{ plugin = \"command\", optimization = \"minimize\" }} with `command = [\"python\", \
                         \"FILE\"]` under [scorer.command]; or use one of {}",
                        near.join(", ")
                    ),
                )
            } else {
                instead(
                    format!("unknown scorer `{plugin}`"),
                    format!("did you mean `{}`? Known are {}", near[0], near.join(", ")),
                )
            });
        }
    }
    if let Some(Value::String(name)) = table.get("instance_name")
        && (name.trim().is_empty() || name.contains(|it: char| it == '.' || it.is_whitespace()))
    {
        return Err(instead(
            format!("`instance_name` is `{name}`"),
            "give it a name without dots and spaces".to_owned(),
        ));
    }
    Ok(Value::Object(table))
}

const SHORT: &str = "a scorer is { plugin = NAME, optimization = GOAL }, or in short NAME, NAME:GOAL, NAME@INSTANCE:GOAL:SETTINGS \
                     with GOAL minimize, maximize or none and SETTINGS as JSON";

/// `NAME[@INSTANCE][:GOAL[:SETTINGS]]`.
fn short(text: &str) -> Result<Table, String> {
    let mut parts = text.splitn(3, ':');
    let name = parts.next().unwrap_or_default();
    let (name, instance) = name.split_once('@').map_or((name, None), |(name, it)| (name, Some(it)));
    let mut table = Table::from_iter([("plugin".to_owned(), json!(name))]);
    if let Some(instance) = instance {
        table.insert("instance_name".to_owned(), json!(instance));
    }
    match parts.next() {
        None | Some("") => {}
        Some("minimize" | "min") => drop(table.insert("optimization".to_owned(), json!("minimize"))),
        Some("maximize" | "max") => drop(table.insert("optimization".to_owned(), json!("maximize"))),
        Some("none") => drop(table.insert("optimization".to_owned(), json!("none"))),
        // The name of a Python file holds colons; what is wrong with it is said elsewhere.
        Some(_) if name.strip_suffix(".py").is_some() => drop(table.insert("plugin".to_owned(), json!(text))),
        Some(other) => return Err(format!("goal `{other}`: expected minimize, maximize or none")),
    }
    if let Some(json) = parts.next() {
        let settings = serde_json::from_str(json).map_err(|error| format!("settings `{json}`: {error}"))?;
        table.insert("settings".to_owned(), settings);
    }
    Ok(table)
}

/// The tables of scorers under their names here.
fn scorer_tables(written: Table, origin: &Origin) -> Result<Table, SettingsError> {
    let mut tables = Table::new();
    for (name, mut table) in written {
        let class = CLASSES.iter().find_map(|(class, _, own)| {
            let rest = name.strip_prefix(class)?;
            (rest.is_empty() || rest.starts_with('_')).then(|| format!("{own}{rest}"))
        });
        let own = class.unwrap_or_else(|| name.clone());
        if kind(&own).is_none() {
            let near = nearest(&own, scorers::MEMBERS.iter().map(|it| it.name));
            return Err(SettingsError::Unknown {
                key: format!("scorer.{name}"),
                origin: origin.clone(),
                hint: format!("did you mean `scorer.{}`? Scorers are {}", near[0], near.join(", ")),
            });
        }
        if let Some(table) = table.as_object_mut()
            && let Some(markers) = table.remove("keyword_markers")
        {
            table.entry("markers").or_insert(markers);
        }
        tables.insert(own, table);
    }
    Ok(tables)
}

/// The kind of scorer that a table belongs to.
fn kind(table: &str) -> Option<&'static str> {
    let belongs = |it: &&str| table.strip_prefix(*it).is_some_and(|it| it.is_empty() || it.starts_with('_'));
    // `refusal_score` is no instance of another kind: the longest name counts.
    scorers::MEMBERS.iter().map(|it| it.name).filter(belongs).max_by_key(|it| it.len())
}

/// Prompts that stand in scorers' tables become sets, which the scorers refer to.
fn take_prompts(tables: &mut Table, written: &mut Table) {
    let names: Vec<String> = tables.keys().cloned().collect();
    let base = |tables: &Table, name: &str| tables.get(name)?.get("prompts")?.as_object().cloned();
    let bases: Vec<(String, Option<Table>)> =
        names.iter().map(|it| (it.clone(), kind(it).and_then(|kind| base(tables, kind)))).collect();
    for (name, base) in bases {
        let Some(table) = tables.get_mut(&name).and_then(Value::as_object_mut) else { continue };
        let Some(Value::Object(prompts)) = table.get("prompts").cloned() else { continue };
        if let Some((_, set)) = SETS.iter().find(|it| it.0 == name) {
            table.remove("prompts");
            written.entry(*set).or_insert(Value::Object(prompts));
            continue;
        }
        let mut set = base.unwrap_or_default();
        set.extend(prompts);
        table.insert("prompts".to_owned(), json!(name));
        let sets = written.entry("prompt_sets").or_insert_with(|| json!({}));
        if let Some(sets) = sets.as_object_mut() {
            sets.insert(name, Value::Object(set));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(value: Value) -> Table {
        serde_json::from_value(value).unwrap()
    }

    fn translated(value: Value) -> Value {
        Value::Object(translate(table(value), &Origin::Default).unwrap())
    }

    fn refused(value: Value) -> String {
        translate(table(value), &Origin::File("config.toml".into())).unwrap_err().to_string()
    }

    #[test]
    fn plug_ins_of_heretic_are_scorers_here() {
        let scorers = json!({"scorers": [
            {"plugin": "heretic.scorers.keyword_rate.KeywordRate", "optimization": "minimize", "instance_name": "a"},
            {"plugin": "heretic.scorers.kl_divergence.KLDivergence", "optimization": "none"},
            "flip_rate:none", "perplexity@b:min:{\"text\": \"a: b\"}",
        ]});
        assert_eq!(
            translated(scorers),
            json!({"scorers": [
                {"plugin": "refusals", "optimization": "minimize", "instance_name": "a"},
                {"plugin": "kl_divergence", "optimization": "none"},
                {"plugin": "flip_rate", "optimization": "none"},
                {"plugin": "perplexity", "instance_name": "b", "optimization": "minimize", "settings": {"text": "a: b"}},
            ]})
        );
    }

    #[test]
    fn tables_of_plug_ins_become_tables_of_scorers_and_prompt_sets() {
        let written = json!({"scorer": {
            "KeywordRate": {"keyword_markers": ["x"], "prompts": {"dataset": "a", "split": "test[:100]"}},
            "KeywordRate_small": {"prompts": {"split": "test[:10]"}},
            "KLDivergence": {"prompts": {"dataset": "b"}},
        }});
        assert_eq!(
            translated(written),
            json!({
                "refusal_prompts": {"dataset": "a", "split": "test[:100]"},
                "kl_prompts": {"dataset": "b"},
                "prompt_sets": {"refusals_small": {"dataset": "a", "split": "test[:10]"}},
                "scorer": {"refusals": {"markers": ["x"]}, "refusals_small": {"prompts": "refusals_small"},
                    "kl_divergence": {}},
            })
        );
    }

    #[test]
    fn keys_of_heretic_1_4_have_their_meaning() {
        let written = json!({
            "good_evaluation_prompts": {"dataset": "g"}, "bad_evaluation_prompts": {"dataset": "b"},
            "refusal_markers": ["no"], "print_responses": true,
        });
        assert_eq!(
            translated(written),
            json!({
                "refusal_markers": ["no"], "kl_prompts": {"dataset": "g"}, "refusal_prompts": {"dataset": "b"},
                "scorer": {"refusals": {"print_responses": true}},
            })
        );
    }

    #[test]
    fn a_plug_in_that_is_python_code_is_an_error_that_says_what_to_write_instead() {
        let said =
            refused(json!({"scorers": [{"plugin": "my/plugin.py:Politeness", "optimization": "minimize"}]}));
        assert!(
            said.contains("`my/plugin.py:Politeness` is Python code") && said.contains("\"command\""),
            "{said}"
        );
        let said = refused(json!({"scorers": ["my/plugin.py:Politeness"]}));
        assert!(said.contains("\"command\""), "{said}");
        let said = refused(json!({"scorers": ["refusal"]}));
        assert!(said.contains("did you mean `refusals`?"), "{said}");
        let said = refused(json!({"scorer": {"KeywordRat": {}}}));
        assert!(said.contains("`scorer.KeywordRat`"), "{said}");
    }

    #[test]
    fn instance_names_without_meaning_are_refused() {
        for name in [" ", "a b", "a.b", "a\tb"] {
            let said = refused(json!({"scorers": [{"plugin": "refusals", "instance_name": name}]}));
            assert!(said.contains("instance_name"), "{said}");
        }
    }
}
