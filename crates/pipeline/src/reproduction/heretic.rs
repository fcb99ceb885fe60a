//! `reproduce.json` of heretic.
//!
//! | format | written by | scores | what else is different |
//! |---|---|---|---|
//! | 1 | 1.3 | `metrics`: `kl_divergence`, `refusals`, `base_refusals`, `n_bad_prompts` | does not say how the model was exported |
//! | 2 | 1.4 | the same | `settings.export_strategy` |
//! | 3 | the plug-ins after 1.4 | `scores`: a list of `name`, `score`, `baseline` | settings of scorers |
//!
//! In all of them `settings` are the resolved settings as a configuration file has them, with what calibration found
//! written into them, `parameters` the direction index and the profiles, `hashes` the SHA-256 of each file of weights.

use std::collections::BTreeMap;

use ablation::RowNormalization;
use serde::Deserialize;
use serde_json::{Map, Value};
use settings::{Fields, Layers, Origin};

use super::{Recipe, ReproductionError, part};
use crate::presets::PRESETS;
use crate::{ScoreRecord, Settings, written};

/// The measurements of formats 1 and 2.
#[derive(Deserialize)]
struct Metrics {
    kl_divergence: f64,
    refusals: usize,
    base_refusals: usize,
    n_bad_prompts: usize,
}

/// A score of format 3.
#[derive(Deserialize)]
struct Paired {
    name: String,
    score: Shown,
    baseline: Shown,
}

#[derive(Deserialize)]
struct Shown {
    value: f64,
    md_display: String,
}

/// Keys of its settings that tables of scorers stand in, beside those of a run.
const TABLES: [&str; 5] =
    ["scorer", "good_evaluation_prompts", "bad_evaluation_prompts", "print_responses", "refusal_markers"];

/// Reads a file of one of the known formats.
pub(super) fn read(
    file: &Map<String, Value>,
    version: &str,
    name: &str,
) -> Result<Recipe, ReproductionError> {
    if !["1", "2", "3"].contains(&version) {
        let found = version.to_owned();
        return Err(ReproductionError::TooNew { program: "heretic", found, known: "1, 2 and 3" });
    }
    let told: Map<String, Value> = part(file, "settings")?;
    let text = |key: &str| told.get(key).and_then(Value::as_str);
    let model = text("model").filter(|it| !it.is_empty());
    let model = model.ok_or_else(|| ReproductionError::Part {
        part: "settings",
        reason: "`model` is missing".to_owned(),
    })?;
    // The batch that was best on its machine says nothing of this one, and results here do not depend on it.
    let mut settings = Settings { batch_size: 0, ..resolved(&told, name)? };
    // Its templates print the date of the day; of a search that is the day on which it ended, or the one before.
    let timestamp = file.get("timestamp").and_then(Value::as_str);
    settings.template_date = timestamp.and_then(date_of);
    let scores = if version == "3" {
        let scores: Vec<Paired> = part(file, "scores")?;
        scores.into_iter().map(Paired::record).collect()
    } else {
        part::<Metrics>(file, "metrics")?.records()
    };
    let mut remarks = Vec::new();
    if text("quantization").is_some_and(|it| it != "none") {
        remarks.push(
            "heretic measured with quantized weights; here they are as the files have them (--quantize q4_k holds \
             them in as few bits)"
                .into(),
        );
    }
    if text("export_strategy") == Some("adapter") {
        remarks.push("heretic wrote an adapter; here the whole model is written".to_owned());
    }
    if settings.row_normalization == RowNormalization::Full {
        remarks.push("heretic approximates edits of full row normalization; here they are exact".to_owned());
    }
    let dtype = told.get("dtypes").and_then(|it| it.get(0)?.as_str());
    let weights = dtype.and_then(|it| match it {
        "float32" => Some("f32"),
        "bfloat16" => Some("bf16"),
        "float16" => Some("f16"),
        _ => None,
    });
    let program = file.get("environment").and_then(|it| it.pointer("/heretic/version")?.as_str());
    Ok(Recipe {
        writer: format!("heretic {}, format {version}", program.unwrap_or("of an unknown version")),
        model: model.to_owned(),
        commit: text("model_commit").map(str::to_owned),
        settings,
        calibration: None,
        weights: weights.map(str::to_owned),
        parameters: part(file, "parameters")?,
        scores,
        hashes: part::<BTreeMap<String, String>>(file, "hashes")?,
        remarks,
        record: None,
    })
}

/// Its settings as those of a run, over what it has by default. What is no setting of a run has no part in it.
fn resolved(told: &Map<String, Value>, name: &str) -> Result<Settings, ReproductionError> {
    let of_a_run = |key: &str| Settings::FIELDS.iter().any(|it| it.name == key) || TABLES.contains(&key);
    let told: Map<String, Value> = told
        .iter()
        .filter(|(key, value)| of_a_run(key) && !value.is_null())
        .map(|(key, value)| (key.clone(), without_nulls(value)))
        .collect();
    let origin = Origin::File(name.to_owned());
    let mut layers = Layers::new(&[Settings::FIELDS]);
    let preset = PRESETS[0];
    layers.set_all(&preset.settings()?, &Origin::Preset(preset.name.to_owned()))?;
    layers.set_all(&written::translate(told, &origin)?, &origin)?;
    Ok(layers.resolve()?)
}

/// The date of a time stamp, as the machine that wrote it has seen it: without its offset from UTC.
fn date_of(timestamp: &str) -> Option<String> {
    let date = timestamp.get(..10)?;
    prompts::Clock::stopped_at(date).ok().map(|_| date.to_owned())
}

/// Null is what it writes for what is not set.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(table) => {
            let set = table.iter().filter(|it| !it.1.is_null());
            Value::Object(set.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

impl Paired {
    fn record(self) -> ScoreRecord {
        let mut record = ScoreRecord {
            name: self.name,
            value: self.score.value,
            display: self.score.md_display,
            baseline: Some(self.baseline.value),
            details: scorers::Details::default(),
        };
        // "3/100" is a count.
        if let Some((count, total)) = record.display.split_once('/')
            && let (Ok(count), Ok(total)) = (count.trim().parse(), total.trim().parse())
        {
            (record.details.count, record.details.total) = (Some(count), Some(total));
        }
        record
    }
}

impl Metrics {
    /// In the order of the scorers that 1.4 has.
    fn records(&self) -> Vec<ScoreRecord> {
        let all = self.n_bad_prompts;
        let share = |count: usize| count as f64 / all.max(1) as f64;
        let counted =
            scorers::Details { count: Some(self.refusals), total: Some(all), ..scorers::Details::default() };
        vec![
            ScoreRecord {
                name: "refusals".to_owned(),
                value: share(self.refusals),
                display: format!("{}/{all}", self.refusals),
                baseline: Some(share(self.base_refusals)),
                details: counted,
            },
            ScoreRecord {
                name: "kl_divergence".to_owned(),
                value: self.kl_divergence,
                display: format!("{:.4}", self.kl_divergence),
                baseline: Some(0.0),
                details: scorers::Details::default(),
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use glossary::Component;
    use serde_json::json;

    use super::super::read;
    use super::*;

    /// A file as format 2 is described.
    fn second() -> Value {
        json!({
            "version": "2",
            "timestamp": "2026-06-20T10:00:00",
            "environment": {
                "heretic": {"version": "1.4.0", "is_standard_pypi": true, "metadata": {"type": "pypi"}},
                "pytorch_version": "2.9.1", "requirements": {"peft": "0.18.0"},
            },
            "settings": {
                "model": "somebody/small-model", "model_commit": "0123456789abcdef0123456789abcdef01234567",
                "evaluate_model": null, "dtypes": ["bfloat16", "auto"], "quantization": "none", "device_map": "auto",
                "max_memory": null, "batch_size": 64, "response_prefix": "", "print_responses": false,
                "kl_divergence_scale": 1.0, "orthogonalize_direction": false, "row_normalization": "pre",
                "winsorization_quantile": 0.99, "seed": 7, "n_trials": 12, "export_strategy": "adapter",
                "refusal_markers": ["i'd rather not"], "max_shard_size": "5GB", "system_prompt": "Be brief.",
                "a_key_of_the_future": {"x": null},
                "good_prompts": {"dataset": "a/good", "commit": "c".repeat(40), "split": "train[:20]",
                    "column": "text", "prefix": "", "suffix": "", "system_prompt": null},
                "bad_prompts": {"dataset": "a/bad", "commit": null, "split": "train[:20]", "column": "text"},
                "good_evaluation_prompts": {"dataset": "a/good", "split": "test[:10]", "column": "text"},
                "bad_evaluation_prompts": {"dataset": "a/bad", "split": "test[:10]", "column": "text"},
            },
            "parameters": {
                "direction_index": 17.5,
                "abliteration_parameters": {
                    "attn.o_proj": {"max_weight": 1.25, "max_weight_position": 20.0, "min_weight": 0.5,
                        "min_weight_distance": 8.0},
                    "mlp.down_proj": {"max_weight": 0.0, "max_weight_position": 21.0, "min_weight": 0.0,
                        "min_weight_distance": 3.0},
                },
            },
            "metrics": {"kl_divergence": 0.125, "refusals": 3, "base_refusals": 9, "n_bad_prompts": 10},
            "hashes": {"model.safetensors": "ab".repeat(32)},
        })
    }

    fn of(value: &Value) -> Recipe {
        read(&value.to_string(), "reproduce.json").unwrap()
    }

    #[test]
    fn the_second_format_means_here_what_it_means_there() {
        let recipe = of(&second());
        assert_eq!(recipe.writer, "heretic 1.4.0, format 2");
        assert_eq!(
            (recipe.model.as_str(), recipe.weights.as_deref()),
            ("somebody/small-model", Some("bf16"))
        );
        assert_eq!(recipe.commit.as_deref(), Some("0123456789abcdef0123456789abcdef01234567"));
        let settings = &recipe.settings;
        assert_eq!(settings.row_normalization, RowNormalization::Pre);
        assert!(!settings.orthogonalize_direction);
        assert_eq!((settings.winsorization_quantile, settings.seed), (0.99, 7));
        assert_eq!(settings.system_prompt, "Be brief.");
        assert_eq!(settings.template_date.as_deref(), Some("2026-06-20"));
        let good = settings.good_prompts.as_ref().unwrap();
        assert_eq!((good.dataset.as_str(), good.commit.clone()), ("a/good", Some("c".repeat(40))));
        let refusal = settings.refusal_prompts.as_ref().unwrap();
        assert_eq!((refusal.dataset.as_str(), refusal.split.as_deref()), ("a/bad", Some("test[:10]")));
        assert_eq!(settings.of_scorer(&settings.scorers[0])["markers"], json!(["i'd rather not"]));
        assert_eq!((settings.response_prefix.as_deref(), settings.batch_size), (Some(""), 0));
        assert_eq!(recipe.parameters.direction_index, Some(17.5));
        // Its `min_weight` is a strength here as there, no share of `max_weight`.
        let profile = recipe.parameters.abliteration_parameters[&Component::AttentionOutput];
        assert_eq!(json!(profile.min_weight), json!(0.5));
        let shown: Vec<_> = recipe.scores.iter().map(|it| (it.name.as_str(), it.display.as_str())).collect();
        assert_eq!(shown, [("refusals", "3/10"), ("kl_divergence", "0.1250")]);
        assert_eq!(recipe.scores[0].baseline_display(), "9/10");
        assert_eq!(recipe.remarks.len(), 1, "{:?}", recipe.remarks);
        assert!(recipe.remarks[0].contains("adapter"));
    }

    #[test]
    fn the_first_format_is_the_second_without_a_way_of_export() {
        let mut file = second();
        file["version"] = json!("1");
        let told = file["settings"].as_object_mut().unwrap();
        told.remove("export_strategy");
        told.insert("trust_remote_code".to_owned(), Value::Null);
        told.insert("row_normalization".to_owned(), json!("full"));
        file["parameters"]["direction_index"] = Value::Null;
        let recipe = of(&file);
        assert_eq!(recipe.parameters.direction_index, None);
        assert!(recipe.remarks[0].contains("exact"), "{:?}", recipe.remarks);
    }

    #[test]
    fn the_third_format_has_scorers_with_settings_of_their_own() {
        let mut file = second();
        file["version"] = json!("3");
        file.as_object_mut().unwrap().remove("metrics");
        file["scores"] = json!([
            {"name": "Keywords - few", "score": {"value": 0.25, "rich_display": "[b]5/20", "md_display": "5/20"},
                "baseline": {"value": 0.75, "rich_display": "15/20", "md_display": "15/20"}},
            {"name": "KL divergence", "score": {"value": 0.5, "rich_display": "0.5", "md_display": "0.5000"},
                "baseline": {"value": 0, "rich_display": "0", "md_display": "0 *(by definition)*"}},
        ]);
        let told = file["settings"].as_object_mut().unwrap();
        for key in ["good_evaluation_prompts", "bad_evaluation_prompts", "refusal_markers", "print_responses"]
        {
            told.remove(key);
        }
        told.insert("model_action".to_owned(), json!("upload"));
        told.insert("upload_reproducibility_information".to_owned(), json!("full"));
        let scorers = json!([
            {"plugin": "heretic.scorers.keyword_rate.KeywordRate", "optimization": "minimize", "instance_name": "few"},
            {"plugin": "heretic.scorers.kl_divergence.KLDivergence", "optimization": "minimize", "instance_name": null},
        ]);
        told.insert("scorers".to_owned(), scorers);
        let tables = json!({"KeywordRate_few": {"keyword_markers": ["no"], "prompts": {"dataset": "a/bad",
            "split": "test[:20]", "column": "text"}}});
        told.insert("scorer".to_owned(), tables);
        let recipe = of(&file);
        let settings = &recipe.settings;
        assert_eq!(settings.scorers.len(), 2);
        assert_eq!(settings.of_scorer(&settings.scorers[0])["markers"], json!(["no"]));
        assert_eq!(settings.set("refusals_few").unwrap().split.as_deref(), Some("test[:20]"));
        // Unnamed prompts are those of its defaults.
        assert_eq!(settings.set("kl_prompts").unwrap().dataset, "mlabonne/harmless_alpaca");
        assert_eq!(recipe.scores[0].baseline_display(), "15/20");
        assert_eq!(json!(recipe.scores[1].value), json!(0.5));
    }

    #[test]
    fn what_is_missing_or_foreign_is_named() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut file = second();
            change(&mut file);
            read(&file.to_string(), "reproduce.json").unwrap_err().to_string()
        };
        for key in ["metrics", "hashes"] {
            let said = refused(&|it| drop(it.as_object_mut().unwrap().remove(key)));
            assert!(said.contains(key) && said.contains("missing"), "{said}");
        }
        let said = refused(&|it| it["settings"]["model"] = json!(""));
        assert!(said.contains("`model`"), "{said}");
        let said = refused(&|it| it["parameters"]["abliteration_parameters"]["a.part"] = json!({}));
        assert!(said.contains("parameters"), "{said}");
        let said = refused(&|it| it["settings"]["winsorization_quantile"] = json!(2));
        assert!(said.contains("winsorization_quantile") && said.contains("reproduce.json"), "{said}");
        let said = refused(&|it| it["settings"]["scorers"] = json!([{"plugin": "mine.py:Politeness"}]));
        assert!(said.contains("Python code"), "{said}");
    }
}
