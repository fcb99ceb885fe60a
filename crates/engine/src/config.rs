//! Reading hyper-parameters.

use serde_json::Value;

/// A checkpoint's hyper-parameters under the names of Hugging Face's `config.json`.
///
/// A key that is absent and one that is `null` mean the same, unless the family has a default for it: that stands for
/// an absent key only.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    value: &'a Value,
    defaults: Option<&'a Value>,
    /// Keys that count as absent where there is no default for them.
    hidden: &'static [&'static str],
    tensors: &'a dyn Tensors,
    architecture: &'a str,
}

/// What a family may ask of a checkpoint's tensors while it reads the configuration.
pub trait Tensors {
    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool;

    /// The numbers of a small tensor, if there is one.
    fn values(&self, name: &str) -> Option<Vec<f32>>;

    /// The shape of a tensor, if there is one.
    fn shape(&self, _name: &str) -> Option<Vec<usize>> {
        None
    }

    /// Whether two tensors that are there differ, in shape or in a number.
    fn differ(&self, _one: &str, _other: &str) -> bool {
        false
    }

    /// Whether there is a tensor whose name in the file is such.
    fn any(&self, _named: &dyn Fn(&str) -> bool) -> bool {
        false
    }
}

/// A checkpoint without tensors.
pub struct NoTensors;

impl Tensors for NoTensors {
    fn contains(&self, _name: &str) -> bool {
        false
    }

    fn values(&self, _name: &str) -> Option<Vec<f32>> {
        None
    }
}

/// Why hyper-parameters cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A key that the family needs is absent.
    #[error("the model's configuration has no `{key}`")]
    Missing {
        /// The key.
        key: String,
    },
    /// A value of the wrong kind.
    #[error("the model's configuration: expected `{key}` to be {expected}, found `{found}`")]
    Kind {
        /// The key.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A value that this program does not know.
    #[error("the model's configuration: `{key}` is `{found}`; known are {known}")]
    Unsupported {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The values that are known.
        known: String,
    },
}

impl ConfigError {
    /// A value that this program does not know, where there are others that it does.
    pub(crate) fn unsupported(
        key: &str,
        found: impl std::fmt::Display,
        known: impl std::fmt::Display,
    ) -> Self {
        Self::Unsupported { key: key.to_owned(), found: found.to_string(), known: known.to_string() }
    }
}

/// What a word means, one of those that are known.
fn meaning<T: Copy>(key: &str, found: &str, known: &[(&str, T)]) -> Result<T, ConfigError> {
    known.iter().find(|it| it.0 == found).map(|it| it.1).ok_or_else(|| {
        let known: Vec<String> = known.iter().map(|it| format!("`{}`", it.0)).collect();
        ConfigError::unsupported(key, shortened(found), known.join(", "))
    })
}

/// What a list of the kinds of layers says of one of them.
pub(crate) fn kind_of_layer<T: Copy>(
    list: &[Value],
    key: &str,
    layer: usize,
    known: &[(&str, T)],
) -> Result<T, ConfigError> {
    let found = list.get(layer).map_or("nothing for this layer", |it| it.as_str().unwrap_or("no text"));
    meaning(&format!("{key}[{layer}]"), found, known)
}

impl<'a> Config<'a> {
    /// A view of a JSON object and of the tensors that belong to it.
    pub fn new(value: &'a Value, tensors: &'a dyn Tensors) -> Self {
        Self { value, defaults: None, hidden: &[], tensors, architecture: "" }
    }

    /// The same for a model of this architecture, by the name that `config.json` or a GGUF file has for it.
    #[must_use]
    pub fn of_architecture(self, architecture: &'a str) -> Self {
        Self { architecture, ..self }
    }

    /// The architecture; in a container that of the language model. Empty where it is not known.
    pub fn architecture(&self) -> &'a str {
        self.architecture
    }

    /// Whether two tensors that are there differ, in shape or in a number.
    pub fn tensors_differ(&self, one: &str, other: &str) -> bool {
        self.tensors.differ(one, other)
    }

    /// The same with values for keys that are absent.
    #[must_use]
    pub fn with_defaults(self, defaults: Option<&'a Value>) -> Self {
        Self { defaults, ..self }
    }

    /// Its values by their keys, without those that are null.
    pub(crate) fn members(&self) -> serde_json::Map<String, Value> {
        let all = self.value.as_object().into_iter().flatten().filter(|it| !it.1.is_null());
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Whether the checkpoint has a tensor whose name is such.
    pub fn has_tensor_like(&self, named: &dyn Fn(&str) -> bool) -> bool {
        self.tensors.any(named)
    }

    /// The same without what the checkpoint has under some keys, because the family says it in another way.
    #[must_use]
    pub(crate) fn without(self, hidden: &'static [&'static str]) -> Self {
        Self { hidden, ..self }
    }

    /// Whether the checkpoint has a tensor.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains(name)
    }

    /// The shape of a tensor, if there is one.
    pub fn tensor_shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.shape(name)
    }

    /// The numbers of a small tensor, if there is one.
    pub fn tensor_values(&self, name: &str) -> Option<Vec<f32>> {
        self.tensors.values(name)
    }

    /// A value, if it is there and not null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        let default = || self.defaults.and_then(|it| it.get(key));
        let own = self.value.get(key).filter(|_| !self.hidden.contains(&key));
        own.or_else(default).filter(|it| !it.is_null())
    }

    /// Whether a key is there and null, where that does not mean the same as an absent one.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(Value::is_null)
    }

    /// Whether it has no values.
    pub(crate) fn is_empty(&self) -> bool {
        self.value.as_object().is_none_or(serde_json::Map::is_empty)
    }

    /// Whether any of its values is an object.
    pub(crate) fn holds_sections(&self) -> bool {
        self.value.as_object().is_some_and(|it| it.values().any(Value::is_object))
    }

    /// An object within the configuration, read by the same rules.
    pub fn section(&self, key: &str) -> Option<Config<'a>> {
        let value = self.get(key).filter(|it| it.is_object())?;
        Some(Config { value, defaults: None, hidden: &[], ..*self })
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &'static str,
        as_kind: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let shown = || special_float(value).map_or_else(|| value.to_string(), |it| it.to_string());
        let wrong = || ConfigError::Kind { key: key.to_owned(), expected, found: shortened(&shown()) };
        as_kind(value).map(Some).ok_or_else(wrong)
    }

    /// A whole number, if there is one.
    pub fn count(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.read(key, "a whole number from 0", |it| it.as_u64().and_then(|it| usize::try_from(it).ok()))
    }

    /// A positive whole number that must be there.
    pub fn size(&self, key: &str) -> Result<usize, ConfigError> {
        let size = self.count(key)?.ok_or_else(|| ConfigError::Missing { key: key.to_owned() })?;
        // Anything larger is a damaged file, and products of sizes must not overflow.
        if size == 0 || size > 1 << 31 {
            return Err(ConfigError::Kind {
                key: key.to_owned(),
                expected: "a whole number from 1 to 2,147,483,648",
                found: size.to_string(),
            });
        }
        Ok(size)
    }

    /// A number, if there is one.
    pub fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.read(key, "a number", Value::as_f64)
    }

    /// A number that may be infinite, if there is one: a limit of something.
    pub fn limit(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.read(key, "a number or an infinite one", number_or_infinite)
    }

    /// A truth value, if there is one.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A text, if there is one.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.read(key, "a text", Value::as_str)
    }

    /// A list, if there is one.
    pub fn list(&self, key: &str) -> Result<Option<&'a [Value]>, ConfigError> {
        self.read(key, "a list", |it| it.as_array().map(Vec::as_slice))
    }

    /// A list of numbers, if there is one.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, ConfigError> {
        self.read(key, "a list of numbers", |it| it.as_array()?.iter().map(Value::as_f64).collect())
    }

    /// One of several known words.
    pub fn word<T: Copy>(&self, key: &str, default: &str, known: &[(&str, T)]) -> Result<T, ConfigError> {
        let found = self.text(key)?.unwrap_or(default);
        meaning(key, found, known)
    }
}

/// A number, be it infinite: as JSON has it, as an object with its name, or by its name.
pub(crate) fn number_or_infinite(value: &Value) -> Option<f64> {
    let named = || special_float(value).or_else(|| infinity(value.as_str()?));
    value.as_f64().or_else(named).filter(|it| !it.is_nan())
}

/// `{"__float__": "Infinity"}`: a number that JSON does not have, as checkpoints are read and transformers 5 writes it.
fn special_float(value: &Value) -> Option<f64> {
    let name = value.as_object().filter(|it| it.len() == 1)?.get("__float__")?.as_str()?;
    if name == "NaN" { Some(f64::NAN) } else { infinity(name) }
}

fn infinity(name: &str) -> Option<f64> {
    match name.to_ascii_lowercase().as_str() {
        "infinity" | "inf" | "+inf" => Some(f64::INFINITY),
        "-infinity" | "-inf" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(80).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_stand_for_absent_keys_and_not_for_null() {
        let (value, defaults) = (json!({"a": 1, "b": null}), json!({"a": 2, "b": 2, "c": 2}));
        let config = Config::new(&value, &NoTensors).with_defaults(Some(&defaults));
        let found: Vec<_> = ["a", "b", "c", "d"].map(|it| config.count(it).unwrap()).into();
        assert_eq!(found, [Some(1), None, Some(2), None]);
    }

    #[test]
    fn a_key_that_is_hidden_counts_as_absent_and_its_default_stands() {
        let (value, defaults) = (json!({"a": [1], "b": 1}), json!({"b": 2}));
        let config = Config::new(&value, &NoTensors).with_defaults(Some(&defaults)).without(&["a", "b"]);
        assert_eq!((config.count("a").unwrap(), config.count("b").unwrap()), (None, Some(2)));
    }

    #[test]
    fn errors_name_the_key_and_what_stands_there() {
        let value = json!({"hidden_size": "wide", "num_layers": 0, "act": "relu9", "nothing": null});
        let config = Config::new(&value, &NoTensors);
        let message = |error: ConfigError| error.to_string();
        assert!(message(config.size("hidden_size").unwrap_err()).contains("`hidden_size`"));
        assert!(message(config.size("hidden_size").unwrap_err()).contains("wide"));
        assert!(message(config.size("num_layers").unwrap_err()).contains("found `0`"));
        assert!(message(config.size("nothing").unwrap_err()).contains("no `nothing`"));
        let error = config.word("act", "silu", &[("silu", 1), ("gelu", 2)]).unwrap_err();
        assert_eq!(message(error), "the model's configuration: `act` is `relu9`; known are `silu`, `gelu`");
    }
}
