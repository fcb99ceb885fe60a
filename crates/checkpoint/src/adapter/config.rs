//! `adapter_config.json` of Python's peft.
//!
//! Keys fall into three groups: those that are read here; those that only matter for training, for the initial values of
//! factors that the file then replaces, or for where things run; and those that change what is computed in a way that is not
//! known here, which are refused by name. A key of a later peft is refused unless its value says that it is not used.

use std::path::{Path, PathBuf};

use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::AdapterError;

/// The file.
pub(super) const FILE: &str = "adapter_config.json";

/// Keys that change nothing in a loaded adapter.
const WITHOUT_EFFECT: &[&str] = &[
    "auto_mapping",
    "base_model_class",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out", // peft itself sets it right for linear layers
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "parent_library",
    "peft_version",
    "qalora_group_size", // counts with `use_qalora` alone
    "revision",
    "runtime_config",
    "task_type",
    "unsloth_fixed",
    "velora_config", // another backward pass
];

/// Keys that are read.
const READ: &[&str] = &[
    "alpha_pattern",
    "init_lora_weights",
    "lora_alpha",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
];

/// Initial values that leave the base model's weights as they are. The others take a part out of them, which an adapter in
/// their form does not tell.
const INITIAL: &[&str] = &["true", "false", "gaussian", "eva", "orthogonal", "mica"];

/// What the file says.
#[derive(Debug)]
pub(super) struct Config {
    path: PathBuf,
    pub(super) base: Option<String>,
    pub(super) revision: Option<String>,
    rank: usize,
    alpha: f64,
    rank_stabilized: bool,
    pub(super) use_dora: bool,
    rank_pattern: Vec<(Regex, f64)>,
    alpha_pattern: Vec<(Regex, f64)>,
    pub(super) target_modules: Targets,
    pub(super) modules_to_save: Vec<String>,
    pub(super) target_parameters: Vec<String>,
    token_indices: TokenIndices,
}

/// Which modules have factors.
#[derive(Debug)]
pub(super) enum Targets {
    /// Those that peft chooses for the architecture, or all linear ones.
    Unnamed,
    /// Those whose whole name matches.
    Matching(Regex),
    /// Those whose name is, or ends with, one of these.
    Named(Vec<String>),
}

impl Targets {
    /// Whether they name a module; `None`: they do not say.
    pub(super) fn name(&self, module: &str) -> Option<bool> {
        match self {
            Self::Unnamed => None,
            Self::Matching(regex) => regex.is_match(module).ok(),
            Self::Named(names) => Some(names.iter().any(|it| is_or_ends_with(module, it))),
        }
    }

    /// The names, where there are some.
    pub(super) fn names(&self) -> &[String] {
        if let Self::Named(names) = self { names } else { &[] }
    }
}

/// Rows of embeddings that an adapter replaces.
#[derive(Debug)]
enum TokenIndices {
    None,
    /// Of the model's embedding.
    Embedding(Vec<usize>),
    /// Of modules by the end of their names.
    Named(Vec<(String, Vec<usize>)>),
}

impl Config {
    pub(super) fn read(path: &Path, object: &Map<String, Value>) -> Result<Self, AdapterError> {
        let reader = Reader { path, object };
        let kind = reader.text("peft_type")?.unwrap_or_else(|| "(none named)".to_owned());
        if !kind.eq_ignore_ascii_case("LORA") {
            return Err(reader.unsupported(
                "peft_type",
                &format!("`{kind}`"),
                "only LORA (and DoRA) is known",
            ));
        }
        reader.refuse_unknown()?;
        Ok(Self {
            path: path.to_owned(),
            base: reader.text("base_model_name_or_path")?.filter(|it| !it.is_empty()),
            revision: reader.text("revision")?.filter(|it| !it.is_empty()),
            rank: reader.size("r", object.get("r"))?.unwrap_or(8),
            alpha: reader.number("lora_alpha", object.get("lora_alpha"))?.unwrap_or(8.0),
            rank_stabilized: reader.flag("use_rslora")?,
            use_dora: reader.flag("use_dora")?,
            rank_pattern: reader.pattern("rank_pattern")?,
            alpha_pattern: reader.pattern("alpha_pattern")?,
            target_modules: reader.targets()?,
            modules_to_save: reader.names("modules_to_save")?,
            target_parameters: reader.names("target_parameters")?,
            token_indices: reader.token_indices()?,
        })
    }

    /// What the product of factors of this rank is multiplied with in a module (or, of a parameter, by its whole name).
    pub(super) fn scale(&self, module: &str, rank: usize) -> Result<f64, AdapterError> {
        let of = |pattern: &[(Regex, f64)], otherwise: f64| {
            let found = pattern.iter().find(|it| it.0.is_match(module).unwrap_or(false));
            found.map_or(otherwise, |it| it.1)
        };
        let expected = of(&self.rank_pattern, self.rank as f64);
        if expected.to_bits() != (rank as f64).to_bits() {
            return Err(AdapterError::Setting {
                path: self.path.clone(),
                key: format!("r (of `{module}`)"),
                expected: format!("{rank}, the rank of its tensors"),
                found: expected.to_string(),
            });
        }
        let alpha = of(&self.alpha_pattern, self.alpha);
        Ok(if self.rank_stabilized { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 })
    }

    /// The rows of a module that the adapter replaces.
    pub(super) fn token_indices(&self, module: &str) -> Option<&[usize]> {
        match &self.token_indices {
            TokenIndices::None => None,
            TokenIndices::Embedding(rows) => Some(rows),
            TokenIndices::Named(all) => {
                all.iter().find(|it| is_or_ends_with(module, &it.0)).map(|it| it.1.as_slice())
            }
        }
    }

    /// The modules whose rows it replaces.
    pub(super) fn token_modules(&self) -> Vec<&str> {
        match &self.token_indices {
            TokenIndices::None => Vec::new(),
            TokenIndices::Embedding(_) => vec![""],
            TokenIndices::Named(all) => all.iter().map(|it| it.0.as_str()).collect(),
        }
    }
}

/// Whether a dotted name is another one or ends with it.
pub(super) fn is_or_ends_with(name: &str, end: &str) -> bool {
    name == end || name.strip_suffix(end).is_some_and(|it| it.ends_with('.'))
}

struct Reader<'a> {
    path: &'a Path,
    object: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn refuse_unknown(&self) -> Result<(), AdapterError> {
        for (key, value) in self.object {
            if WITHOUT_EFFECT.contains(&key.as_str()) || READ.contains(&key.as_str()) {
                continue;
            }
            let unused = match value {
                Value::Null => true,
                Value::Bool(value) => !value,
                Value::String(text) => text.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Object(object) => object.is_empty(),
                Value::Number(_) => false,
            };
            if !unused {
                let mut found = value.to_string();
                if let Some((end, _)) = found.char_indices().nth(60) {
                    found.truncate(end);
                    found.push('…');
                }
                return Err(self.unsupported(key, &found, "what it changes is not known here"));
            }
        }
        let initial = match self.object.get("init_lora_weights") {
            None | Some(Value::Null) => "true".to_owned(),
            Some(Value::String(text)) => text.to_lowercase(),
            Some(other) => other.to_string(),
        };
        if !INITIAL.contains(&initial.as_str()) {
            return Err(self.unsupported(
                "init_lora_weights",
                &format!("`{initial}`"),
                "the adapter is relative to changed weights of the base model, which it does not hold",
            ));
        }
        Ok(())
    }

    fn unsupported(&self, key: &str, found: &str, known: &str) -> AdapterError {
        AdapterError::Unsupported {
            path: self.path.to_owned(),
            key: key.to_owned(),
            found: found.to_owned(),
            known: known.to_owned(),
        }
    }

    fn setting(&self, key: &str, expected: &str, found: &Value) -> AdapterError {
        AdapterError::Setting {
            path: self.path.to_owned(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|it| !it.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<String>, AdapterError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.setting(key, "a string", other)),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, AdapterError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(self.setting(key, "true or false", other)),
        }
    }

    fn size(&self, key: &str, value: Option<&Value>) -> Result<Option<usize>, AdapterError> {
        let Some(value) = value.filter(|it| !it.is_null()) else { return Ok(None) };
        let size = value.as_u64().and_then(|it| usize::try_from(it).ok()).filter(|&it| it > 0);
        size.map(Some).ok_or_else(|| self.setting(key, "a positive whole number", value))
    }

    fn number(&self, key: &str, value: Option<&Value>) -> Result<Option<f64>, AdapterError> {
        let Some(value) = value.filter(|it| !it.is_null()) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.setting(key, "a number", value))
    }

    /// Values for modules by regular expressions, as peft matches them: `(.*\.)?(KEY)$` from the start.
    fn pattern(&self, key: &str) -> Result<Vec<(Regex, f64)>, AdapterError> {
        let object = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Object(object)) => object,
            Some(other) => return Err(self.setting(key, "an object", other)),
        };
        let entry = |(name, value): (&String, &Value)| {
            let regex = Regex::new(&format!("^(?:(?:.*\\.)?(?:{name}))$"));
            let regex =
                regex.map_err(|_| self.setting(key, "regular expressions", &Value::from(name.as_str())))?;
            let number = self.number(key, Some(value))?;
            Ok((regex, number.ok_or_else(|| self.setting(key, "a number for each module", value))?))
        };
        object.iter().map(entry).collect()
    }

    fn names(&self, key: &str) -> Result<Vec<String>, AdapterError> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(value) => {
                let name = |it: &Value| it.as_str().map(str::to_owned);
                let names: Option<Vec<String>> =
                    value.as_array().and_then(|list| list.iter().map(name).collect());
                names.ok_or_else(|| self.setting(key, "a list of names", value))
            }
        }
    }

    fn targets(&self) -> Result<Targets, AdapterError> {
        const KEY: &str = "target_modules";
        match self.get(KEY) {
            None => Ok(Targets::Unnamed),
            Some(Value::String(all)) if all.eq_ignore_ascii_case("all-linear") => Ok(Targets::Unnamed),
            Some(found @ Value::String(regex)) => Regex::new(&format!("^(?:{regex})$"))
                .map(Targets::Matching)
                .map_err(|_| self.setting(KEY, "a list of names or a regular expression", found)),
            Some(_) => self.names(KEY).map(Targets::Named),
        }
    }

    fn token_indices(&self) -> Result<TokenIndices, AdapterError> {
        const KEY: &str = "trainable_token_indices";
        let rows = |list: &Value| -> Result<Vec<usize>, AdapterError> {
            let wrong = || self.setting(KEY, "lists of rows", list);
            let list = list.as_array().ok_or_else(wrong)?;
            let row = |it: &Value| it.as_u64().and_then(|it| usize::try_from(it).ok());
            list.iter().map(row).collect::<Option<_>>().ok_or_else(wrong)
        };
        Ok(match self.get(KEY) {
            None => TokenIndices::None,
            Some(list @ Value::Array(_)) => TokenIndices::Embedding(rows(list)?),
            Some(Value::Object(object)) => {
                let named = object.iter().map(|(name, list)| Ok((name.clone(), rows(list)?)));
                TokenIndices::Named(named.collect::<Result<_, AdapterError>>()?)
            }
            Some(other) => return Err(self.setting(KEY, "a list or an object of lists", other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Config, AdapterError> {
        Config::read(Path::new("x/adapter_config.json"), value.as_object().unwrap())
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "the same divisions")]
    fn scales_follow_rank_alpha_and_their_patterns() {
        let config = json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 6,
            "rank_pattern": {"layers.[01].self_attn.q_proj": 9, "down_proj": 2},
            "alpha_pattern": {"^model.layers.1.mlp.down_proj": 5},
        });
        let plain = read(&config).unwrap();
        assert_eq!(plain.scale("model.layers.0.self_attn.k_proj", 4).unwrap(), 1.5); // 6/4
        assert_eq!(plain.scale("model.layers.1.self_attn.q_proj", 9).unwrap(), 6.0 / 9.0);
        assert_eq!(plain.scale("model.layers.1.mlp.down_proj", 2).unwrap(), 2.5); // 5/2
        assert_eq!(plain.scale("model.layers.2.mlp.down_proj", 2).unwrap(), 3.0); // 6/2
        let said = plain.scale("model.layers.2.self_attn.q_proj", 9).unwrap_err().to_string();
        assert!(said.contains("`model.layers.2.self_attn.q_proj`") && said.contains('9'), "{said}");
        let mut stabilized = config;
        stabilized["use_rslora"] = json!(true);
        assert_eq!(read(&stabilized).unwrap().scale("model.layers.1.self_attn.q_proj", 9).unwrap(), 2.0); // 6/√9
    }

    #[test]
    fn what_would_compute_otherwise_is_refused_by_name_and_what_would_not_is_ignored() {
        let with = |key: &str, value: Value| {
            let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 2});
            config[key] = value;
            read(&config)
        };
        for (key, value) in [
            ("peft_type", json!("IA3")),
            ("peft_type", Value::Null),
            ("init_lora_weights", json!("pissa_niter_16")),
            ("init_lora_weights", json!("olora")),
            ("init_lora_weights", json!("loftq")),
            ("use_qalora", json!(true)),
            ("alora_invocation_tokens", json!([1, 2])),
            ("layer_replication", json!([[0, 4], [2, 5]])),
            ("use_bdlora", json!({"nblocks": 2})),
            ("kasa_config", json!({"beta": 1e-4})),
            ("some_later_key", json!(3)),
        ] {
            let said = with(key, value).unwrap_err().to_string();
            assert!(said.contains(&format!("`{key}`")) && said.contains("hint: "), "{said}");
        }
        for (key, value) in [
            ("init_lora_weights", json!("gaussian")),
            ("init_lora_weights", json!(false)),
            ("use_qalora", json!(false)),
            ("lora_dropout", json!(0.1)),
            ("megatron_core", json!("megatron.core")),
            ("loftq_config", json!({})),
            ("runtime_config", json!({"ephemeral_gpu_offload": false})),
            ("some_later_key", json!(null)),
            ("some_later_config", json!({})),
        ] {
            with(key, value).unwrap();
        }
        for (key, value) in
            [("r", json!(0)), ("r", json!(-3)), ("lora_alpha", json!("x")), ("rank_pattern", json!({"(": 1}))]
        {
            let said = with(key, value).unwrap_err().to_string();
            assert!(said.contains(&format!("`{key}`")), "{said}");
        }
    }
}
