//! The text assets of a checkpoint: tokenizer, chat templates, generation settings. Found, not interpreted.

use std::path::Path;

use serde_json::{Map, Value};

use crate::CheckpointError;
use crate::hugging_face::files_with_extension;
use crate::json::{read_object, read_text, read_text_within, unexpected};
use crate::links::way_out_of_link;

/// What a checkpoint holds beside its weights for turning text into tokens and back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextAssets {
    /// Where the tokenizer is described.
    pub tokenizer: Option<TokenizerSource>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Value>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<Value>,
    /// `added_tokens.json`.
    pub added_tokens: Option<Value>,
    /// The chat template. In a folder the first of: `chat_template.jinja`; `chat_template` of
    /// `tokenizer_config.json` (of a list the one named `default`); that of `chat_template.json`. In a GGUF file
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
    /// Chat templates for other uses (`tool_use`, `rag`), by name: `additional_chat_templates/*.jinja`, or the
    /// others of the list in `tokenizer_config.json`; in a GGUF file `tokenizer.chat_template.*`.
    pub named_chat_templates: Vec<(String, String)>,
    /// `generation_config.json`.
    pub generation_config: Option<Value>,
}

/// Where a tokenizer is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerSource {
    /// The text of `tokenizer.json` (or, in a GGUF file, of the key `tokenizer.huggingface.json`).
    Json(String),
    /// The `tokenizer.ggml.*` keys of a GGUF file, in [`Checkpoint::config`](crate::Checkpoint::config).
    Gguf,
}

/// The name of the template that is used when none is asked for.
const DEFAULT: &str = "default";

impl TextAssets {
    pub(crate) fn of_folder(folder: &Path) -> Result<Self, CheckpointError> {
        let object = |name: &str| Ok(read_object(&folder.join(name))?.map(Value::Object));
        let config_path = folder.join("tokenizer_config.json");
        let tokenizer_config = object("tokenizer_config.json")?;
        let configured = tokenizer_config.as_ref().and_then(|it| it.get("chat_template"));
        let mut configured = templates(&config_path, configured)?;
        let own_file = read_text(&folder.join("chat_template.jinja"))?;
        let mut named_chat_templates = additional_templates(folder)?;
        let in_config = take_default(&mut configured);
        if named_chat_templates.is_empty() && own_file.is_none() {
            named_chat_templates = configured;
        }
        let chat_template = match own_file.or_else(|| take_default(&mut named_chat_templates)).or(in_config) {
            None => template_of_json_file(&folder.join("chat_template.json"))?,
            found => found,
        };
        Ok(Self {
            tokenizer: read_text(&folder.join("tokenizer.json"))?.map(TokenizerSource::Json),
            tokenizer_config,
            special_tokens_map: object("special_tokens_map.json")?,
            added_tokens: object("added_tokens.json")?,
            chat_template,
            named_chat_templates,
            generation_config: object("generation_config.json")?,
        })
    }

    pub(crate) fn of_gguf(path: &Path, metadata: &Map<String, Value>) -> Result<Self, CheckpointError> {
        let text = |key: &str| match metadata.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(unexpected(path, &format!("`{key}`"), "a string", other)),
        };
        let mut named_chat_templates = Vec::new();
        for key in metadata.keys() {
            if let Some(name) = key.strip_prefix("tokenizer.chat_template.")
                && let Some(template) = text(key)?
            {
                named_chat_templates.push((name.to_owned(), template));
            }
        }
        let json = text("tokenizer.huggingface.json")?.map(TokenizerSource::Json);
        let described = metadata.contains_key("tokenizer.ggml.tokens");
        Ok(Self {
            tokenizer: json.or_else(|| described.then_some(TokenizerSource::Gguf)),
            chat_template: text("tokenizer.chat_template")?,
            named_chat_templates,
            ..Self::default()
        })
    }
}

/// The templates of a `chat_template` value: a string is the default one, a list names each.
fn templates(path: &Path, value: Option<&Value>) -> Result<Vec<(String, String)>, CheckpointError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(template)) => Ok(vec![(DEFAULT.to_owned(), template.clone())]),
        Some(Value::Array(entries)) => entries.iter().map(|it| named_template(path, it)).collect(),
        Some(other) => Err(unexpected(path, "`chat_template`", "a string or a list", other)),
    }
}

fn named_template(path: &Path, entry: &Value) -> Result<(String, String), CheckpointError> {
    match (entry.get("name"), entry.get("template")) {
        (Some(Value::String(name)), Some(Value::String(template))) => Ok((name.clone(), template.clone())),
        _ => {
            Err(unexpected(path, "an entry of `chat_template`", "an object of `name` and `template`", entry))
        }
    }
}

fn take_default(templates: &mut Vec<(String, String)>) -> Option<String> {
    let place = templates.iter().position(|(name, _)| name == DEFAULT)?;
    Some(templates.remove(place).1)
}

fn additional_templates(model: &Path) -> Result<Vec<(String, String)>, CheckpointError> {
    let folder = model.join("additional_chat_templates");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    if let Some(target) = way_out_of_link(model, &folder) {
        return Err(CheckpointError::LinkOutside { path: folder, target });
    }
    let mut templates = Vec::new();
    for path in files_with_extension(&folder, "jinja")? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(template) = read_text_within(model, &path)? {
            templates.push((name, template));
        }
    }
    Ok(templates)
}

fn template_of_json_file(path: &Path) -> Result<Option<String>, CheckpointError> {
    let object = read_object(path)?;
    let mut found = templates(path, object.as_ref().and_then(|it| it.get("chat_template")))?;
    Ok(take_default(&mut found))
}
