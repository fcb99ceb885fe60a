//! What a study's scores depend on, so that a study is never continued on something else.
//!
//! An [`Identity`] is stored when a study begins and compared whenever it is resumed: scores of two models, of two sets of
//! prompts or of two arithmetics do not belong into one front. What settings must not change is decided in `settings`:
//! all that are not listed there as free.
//!
//! | part | is known by |
//! |---|---|
//! | weights | a digest of every tensor's name, type, shape and contents, sampled where they are large (`weights`) |
//! | configuration, tokenizer, generation settings, chat template | digests of what was read of them |
//! | prompts | a digest of each set's prompts with prefix, suffix and system prompt |
//! | programs and texts that score | digests of the files that settings of scorers name |
//! | arithmetic | device, precision of the weights, quantization, precision of products, model family |
//! | the date that templates print, and all other settings | the settings themselves, which the study has |
//!
//! A folder that was copied or moved is the same model: paths and times of files are no part of it. What lies in
//! the names of machine and instruction set may differ in the last bits only, and is reported, not refused.

mod settings;
mod weights;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use checkpoint::{Checkpoint, TextAssets, TokenizerSource};
use prompts::PromptEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::settings::{FREE, FREE_OF_SCORERS, settings_changes};
pub use self::weights::digest as digest_of_weights;

use crate::reproduction::{Machine, PromptsDigest, Template};
use crate::{PromptTexts, Settings};

/// The version that is written, and read.
const VERSION: u64 = 1;

/// All that the scores of a study depend on, beside its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The form of this object.
    pub version: u64,
    /// The version of the program that began the study.
    pub program: String,
    /// What goes in.
    pub ingredients: Ingredients,
    /// The architecture family that the model was loaded as.
    pub family: String,
    /// What computes.
    pub machine: Machine,
}

/// What goes into scores, known before weights are loaded. Digests are SHA-256.
///
/// Adapters that were added to a model are part of its weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingredients {
    /// Repository of the hub, or the name of the folder or file. Not compared: files decide.
    pub model: String,
    /// Commit of the hub. Not compared.
    pub commit: Option<String>,
    /// The weights, by [`digest_of_weights`].
    pub weights: String,
    /// The model's configuration.
    pub configuration: String,
    /// The tokenizer.
    pub tokenizer: String,
    /// The generation settings.
    pub generation: String,
    /// How prompts were to be put: what resuming uses unless told otherwise.
    pub template: Template,
    /// The source of the chat template that renders them, the model's own or another; `None`: no template.
    pub chat_template: Option<String>,
    /// The prompts of each set.
    pub prompts: BTreeMap<String, PromptsDigest>,
    /// Files that settings of scorers name: programs, texts.
    pub files: BTreeMap<String, String>,
}

/// Something that is not what a study began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is.
    pub what: String,
    /// What the study has.
    pub study: String,
    /// What is here.
    pub here: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the study has {}, here it is {}", self.what, self.study, self.here)
    }
}

impl Ingredients {
    /// Those of a run. `template` is how prompts were asked to be put.
    ///
    /// # Errors
    /// When a set of prompts of the settings was not loaded.
    pub fn of(
        checkpoint: &Checkpoint,
        encoder: &PromptEncoder,
        template: &Template,
        settings: &Settings,
        texts: &PromptTexts,
    ) -> Result<Self, crate::PipelineError> {
        let (model, commit) = crate::model::name_and_commit(checkpoint.path());
        let (configuration, tokenizer) = configuration_and_tokenizer(checkpoint);
        let mut prompts = BTreeMap::new();
        for (name, set) in settings.sets() {
            let system = set.system_prompt.as_ref().unwrap_or(&settings.system_prompt);
            let texts = texts.of(name)?;
            let put = texts.iter().map(|it| set.put(it));
            let pieces = std::iter::once(system.clone()).chain(put).flat_map(|it| [it, "\n".to_owned()]);
            let digest = PromptsDigest { count: texts.len(), sha256: hub::sha256(pieces) };
            prompts.insert(name.to_owned(), digest);
        }
        Ok(Self {
            model,
            commit,
            weights: digest_of_adapted(checkpoint)?,
            configuration,
            tokenizer,
            generation: digest_of_json(checkpoint.assets().generation_config.as_ref()),
            template: template.clone(),
            chat_template: encoder.template_source().map(|it| hub::sha256([it])),
            prompts,
            files: files(settings),
        })
    }

    /// What of `here` is not as it was. Values are short digests.
    pub fn changes(&self, here: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut compare = |what: String, study: Option<String>, here: Option<String>| {
            if study != here {
                let shown = |it: Option<String>| it.unwrap_or_else(|| "none".to_owned());
                changes.push(Change { what, study: shown(study), here: shown(here) });
            }
        };
        for (what, before, now) in [
            ("weights", &self.weights, &here.weights),
            ("configuration (config.json)", &self.configuration, &here.configuration),
            ("tokenizer", &self.tokenizer, &here.tokenizer),
            ("generation settings (generation_config.json)", &self.generation, &here.generation),
        ] {
            if before != now {
                let shown = |part: &str, of: &Self| Some(format!("{} of `{}`", short(part), of.name()));
                compare(what.to_owned(), shown(before, self), shown(now, here));
            }
        }
        let template = |it: &Self| it.chat_template.as_deref().map(short);
        compare("chat template".to_owned(), template(self), template(here));
        for name in
            self.prompts.keys().chain(here.prompts.keys().filter(|it| !self.prompts.contains_key(*it)))
        {
            let prompts = |it: &Self| {
                let digest = it.prompts.get(name)?;
                Some(format!("{} prompts, {}", digest.count, short(&digest.sha256)))
            };
            compare(format!("prompts of `{name}`"), prompts(self), prompts(here));
        }
        for name in self.files.keys().chain(here.files.keys().filter(|it| !self.files.contains_key(*it))) {
            let file = |it: &Self| it.files.get(name).map(|it| short(it));
            compare(format!("file `{name}` of a scorer"), file(self), file(here));
        }
        changes
    }

    /// The model's name, with its commit if it has one.
    fn name(&self) -> String {
        let commit =
            self.commit.as_ref().map_or(String::new(), |it| format!("@{}", it.get(..7).unwrap_or(it)));
        format!("{}{commit}", self.model)
    }
}

impl Identity {
    /// That of a run, once its model is loaded.
    pub fn new(ingredients: Ingredients, family: impl Into<String>, machine: Machine) -> Self {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        Self { version: VERSION, program, ingredients, family: family.into(), machine }
    }

    /// What a study has stored.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(stored: &Value) -> Result<Self, String> {
        match stored.get("version").and_then(Value::as_u64) {
            Some(VERSION) => serde_json::from_value(stored.clone()).map_err(|it| it.to_string()),
            Some(other) => Err(format!("its version is {other}, and this program reads {VERSION}")),
            None => Err("it has no version".to_owned()),
        }
    }

    /// What computes otherwise than it did, so that scores are others.
    pub fn changes_of_arithmetic(&self, family: &str, machine: &Machine) -> Vec<Change> {
        let mut changes = self.machine.differences(machine, true);
        if self.family != family {
            changes.push(Change {
                what: "model family".to_owned(),
                study: format!("`{}`", self.family),
                here: format!("`{family}`"),
            });
        }
        changes
    }

    /// What computes otherwise than it did, so that the last bits of scores may be others.
    pub fn changes_of_rounding(&self, machine: &Machine) -> Vec<Change> {
        self.machine.differences(machine, false)
    }
}

/// The digest of the weights, and where adapters have changed them, of these files in their order as well.
fn digest_of_adapted(checkpoint: &Checkpoint) -> Result<String, crate::PipelineError> {
    let weights = digest_of_weights(checkpoint);
    if checkpoint.adapters().is_empty() {
        return Ok(weights);
    }
    let mut digests = vec![weights];
    for file in checkpoint.adapters().iter().flat_map(|it| &it.files) {
        digests.push(hub::sha256_of_file(file).map_err(crate::PipelineError::Digest)?);
    }
    Ok(hub::sha256(digests))
}

/// A digest as it is shown.
fn short(digest: &str) -> String {
    format!("`{}`", digest.get(..12).unwrap_or(digest))
}

fn digest_of_json(value: Option<&Value>) -> String {
    hub::sha256([value.map_or_else(String::new, Value::to_string)])
}

/// Digests of the configuration and of the tokenizer. A GGUF file has both in its metadata; the chat template is neither.
fn configuration_and_tokenizer(checkpoint: &Checkpoint) -> (String, String) {
    // Whoever adds an asset decides here where it belongs.
    let TextAssets {
        tokenizer,
        tokenizer_config,
        special_tokens_map,
        added_tokens,
        chat_template: _,
        named_chat_templates: _,
        generation_config: _,
    } = checkpoint.assets();
    let of_tokenizer = |key: &str| key.starts_with("tokenizer.");
    let is_template = |key: &str| key.starts_with("tokenizer.chat_template") || key == "chat_template";
    let metadata = checkpoint.config().as_object();
    let entries = |tokenizer: bool| {
        let entries = metadata.into_iter().flatten();
        let wanted = entries.filter(move |(key, _)| of_tokenizer(key) == tokenizer && !is_template(key));
        wanted.flat_map(|(key, value)| [key.clone(), value.to_string()])
    };
    let described = match tokenizer {
        Some(TokenizerSource::Json(text)) => text.clone(),
        Some(TokenizerSource::Gguf) | None => String::new(),
    };
    let config = tokenizer_config.as_ref().and_then(Value::as_object).into_iter().flatten();
    let config = config.filter(|(key, _)| !is_template(key));
    let config = config.flat_map(|(key, value)| [key.clone(), value.to_string()]);
    let special = [special_tokens_map, added_tokens];
    let special = special.map(|it| it.as_ref().map_or_else(String::new, Value::to_string));
    let tokenizer = entries(true).chain([described]).chain(config).chain(special);
    let with_ends = |it: String| [it, "\0".to_owned()];
    (hub::sha256(entries(false).flat_map(with_ends)), hub::sha256(tokenizer.flat_map(with_ends)))
}

/// The files that settings of scorers name, with their digests: a program or a text that was changed scores otherwise.
fn files(settings: &Settings) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for scorer in &settings.scorers {
        let configured = settings.of_scorer(scorer);
        let settings = configured.as_object().into_iter().flatten();
        let words = settings.flat_map(|(key, value)| match value {
            Value::String(text) => vec![text.as_str()],
            Value::Array(words) if key == "command" => words.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        });
        for word in words {
            let path = Path::new(word);
            if path.is_file()
                && let Ok(digest) = hub::sha256_of_file(path)
            {
                found.insert(word.to_owned(), digest);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_of_another_form_is_not_guessed_at() {
        let error = Identity::read(&serde_json::json!({"version": 2})).unwrap_err();
        assert!(error.contains("version is 2"), "{error}");
        assert!(Identity::read(&serde_json::json!("x")).unwrap_err().contains("no version"));
        assert!(Identity::read(&serde_json::json!({"version": 1})).unwrap_err().contains("missing field"));
    }
}
