//! What the files of a folder say of how its weights were quantized.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::CheckpointError;
use crate::json::{read_object, unexpected};

/// The keys of `config.json` that describe quantized weights; the second is an older name.
pub(crate) const KEYS: [&str; 2] = ["quantization_config", "compression_config"];

/// Files that describe them in place of that, or once more.
pub(crate) const SIDE_FILES: [&str; 3] =
    ["quantize_config.json", "quant_config.json", "hf_quant_config.json"];

/// The description of a folder's quantized weights, and the file that it stands in.
pub(super) struct Found {
    file: PathBuf,
    settings: Map<String, Value>,
    /// The method, where the file says it by its name.
    method: Option<&'static str>,
}

/// Settings of a method.
pub(crate) struct Section<'a> {
    file: &'a Path,
    settings: &'a Map<String, Value>,
    method: Option<&'static str>,
}

/// Finds the description: in `config.json`, there in the part of the language model, or in a file beside it.
pub(super) fn find(folder: &Path, config: &Value) -> Result<Option<Found>, CheckpointError> {
    let file = folder.join("config.json");
    for part in [Some(config), config.get("text_config")].into_iter().flatten() {
        for key in KEYS {
            match part.get(key) {
                None | Some(Value::Null) => {}
                Some(Value::Object(settings)) => {
                    return Ok(Some(Found { file, settings: settings.clone(), method: None }));
                }
                Some(other) => return Err(unexpected(&file, &format!("`{key}`"), "an object", other)),
            }
        }
    }
    // AutoGPTQ's own file, and AutoAWQ's, of before transformers knew them.
    for (name, method) in [("quantize_config.json", "gptq"), ("quant_config.json", "awq")] {
        let file = folder.join(name);
        if let Some(settings) = read_object(&file)? {
            let method = (!settings.contains_key("quant_method")).then_some(method);
            return Ok(Some(Found { file, settings, method }));
        }
    }
    let file = folder.join("hf_quant_config.json");
    let Some(mut settings) = read_object(&file)? else { return Ok(None) };
    match settings.remove("quantization") {
        Some(Value::Object(settings)) => Ok(Some(Found { file, settings, method: Some("modelopt") })),
        other => Err(unexpected(&file, "`quantization`", "an object", &other.unwrap_or_default())),
    }
}

impl Found {
    pub(super) fn section(&self) -> Section<'_> {
        Section { file: &self.file, settings: &self.settings, method: self.method }
    }
}

impl<'a> Section<'a> {
    /// The file that it stands in.
    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    /// The name of the method. Old files of bitsandbytes leave it out.
    pub(super) fn method(&self) -> Result<String, CheckpointError> {
        let asked = |key| self.flag(key).map(|it| it == Some(true));
        Ok(match (self.method, self.text("quant_method")?) {
            (Some(method), _) | (None, Some(method)) => method.to_owned(),
            (None, None) if asked("load_in_8bit")? || asked("load_in_4bit")? => "bitsandbytes".to_owned(),
            (None, None) => "(none named)".to_owned(),
        })
    }

    /// A value, if it is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.settings.get(key).filter(|it| !it.is_null())
    }

    /// Whether there is such a key, be its value null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.settings.contains_key(key)
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &'static str,
        as_kind: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || unexpected(self.file, &format!("`{key}` of the quantization"), expected, value);
        as_kind(value).map(Some).ok_or_else(wrong)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        self.read(key, "a string", Value::as_str)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.read(key, "a whole number from 0", |it| it.as_u64().and_then(|it| usize::try_from(it).ok()))
    }

    /// Two positive whole numbers.
    pub(super) fn pair(&self, key: &str) -> Result<Option<[usize; 2]>, CheckpointError> {
        self.read(key, "a list of two whole numbers from 1", |it| {
            let [a, b] = it.as_array()?.as_slice() else { return None };
            let size = |it: &Value| usize::try_from(it.as_u64()?).ok().filter(|&it| it > 0);
            Some([size(a)?, size(b)?])
        })
    }

    /// A part of the settings.
    pub(super) fn section(&self, key: &str) -> Option<Section<'a>> {
        let settings = self.get(key)?.as_object()?;
        Some(Section { file: self.file, settings, method: None })
    }

    /// All parts of the settings that are objects.
    pub(super) fn sections(&self) -> impl Iterator<Item = Section<'a>> {
        let file = self.file;
        let objects = self.settings.values().filter_map(Value::as_object);
        objects.map(move |settings| Section { file, settings, method: None })
    }

    /// One of several known words, of which the first stands for an absent one.
    pub(super) fn word(&self, key: &str, known: &[&'static str]) -> Result<&'static str, CheckpointError> {
        let Some(found) = self.text(key)? else { return Ok(known[0]) };
        known.iter().find(|it| it.eq_ignore_ascii_case(found)).copied().ok_or_else(|| {
            self.unknown(key, found, &known.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", "))
        })
    }

    /// The error for a value that is not known here.
    pub(super) fn unknown(&self, key: &str, found: &str, known: &str) -> CheckpointError {
        CheckpointError::UnknownQuantization {
            path: self.file.to_owned(),
            key: key.to_owned(),
            found: found.to_owned(),
            known: known.to_owned(),
        }
    }
}
