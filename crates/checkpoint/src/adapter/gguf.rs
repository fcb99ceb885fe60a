//! A GGUF file as llama.cpp reads adapters: `NAME.lora_a` `[rank, d_in]` and `NAME.lora_b` `[d_out, rank]` for the tensor
//! `NAME` of the base model, of all experts of a layer with their number before that. The scale is
//! `adapter.lora.alpha / rank`, or 1 where alpha is 0.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{Adapter, AdapterError, Factors, Named, Part, Settings, Values};
use crate::{Checkpoint, Format};

const TYPE: &str = "general.type";
const ADAPTER: &str = "adapter";

/// Whether a file says that it is an adapter.
pub(super) fn is_adapter(path: &Path) -> bool {
    Checkpoint::open(path).is_ok_and(|it| says_so(&it))
}

fn says_so(file: &Checkpoint) -> bool {
    file.format() == Format::Gguf && file.config().get(TYPE).and_then(Value::as_str) == Some(ADAPTER)
}

pub(super) fn open(path: &Path) -> Result<Adapter, AdapterError> {
    let file = Checkpoint::open(path)?;
    let config = file.config();
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    if !says_so(&file) {
        let found = text(TYPE)
            .map_or("a GGUF file of a model".to_owned(), |it| format!("a GGUF file of type `{it}`"));
        let hint = "name a GGUF file whose `general.type` is `adapter`, or a folder of peft".to_owned();
        return Err(AdapterError::NotAnAdapter { path: path.to_owned(), found, hint });
    }
    let unsupported = |key: &str, found: String, known: &str| AdapterError::Unsupported {
        path: path.to_owned(),
        key: key.to_owned(),
        found,
        known: known.to_owned(),
    };
    let kind = text("adapter.type").unwrap_or("(none named)");
    if kind != "lora" {
        return Err(unsupported("adapter.type", format!("`{kind}`"), "only `lora` is known"));
    }
    let known = ["adapter.type", "adapter.lora.alpha"];
    let object = config.as_object().into_iter().flatten();
    for (key, value) in object.filter(|it| it.0.starts_with("adapter.")) {
        if !known.contains(&key.as_str())
            && !key.starts_with("adapter.lora.task_name")
            && !key.starts_with("adapter.lora.prompt_prefix")
        {
            return Err(unsupported(key, value.to_string(), "what it changes is not known here"));
        }
    }
    let alpha = config.get("adapter.lora.alpha").and_then(Value::as_f64).unwrap_or(0.0);
    let architecture = text("general.architecture").unwrap_or("(none named)").to_owned();
    let mut tensors = Named::new();
    for name in file.names() {
        tensors.insert(name.to_owned(), file.tensor(name)?);
    }
    let mut pairs: BTreeMap<String, [Option<crate::Tensor>; 2]> = BTreeMap::new();
    for (name, tensor) in tensors {
        let of = [".lora_a", ".lora_b"].iter().position(|end| name.ends_with(end));
        let Some(place) = of else {
            return Err(AdapterError::Tensor {
                path: path.to_owned(),
                tensor: name,
                what: "its name ends neither with `.lora_a` nor with `.lora_b`".to_owned(),
            });
        };
        let module = name[..name.len() - ".lora_a".len()].to_owned();
        pairs.entry(module).or_default()[place] = Some(tensor);
    }
    let mut parts = Vec::with_capacity(pairs.len());
    for (module, pair) in pairs {
        match pair {
            [Some(down), Some(up)] => {
                let tensor = up.name().to_owned();
                let factors = Factors { down, up, bias: None, magnitude: None, of_embedding: false };
                parts.push(Part { module, depth: 0, tensor, values: Values::Factors(Box::new(factors)) });
            }
            [one, other] => {
                let tensor = one.or(other).map_or(module, |it| it.name().to_owned());
                let what = "the other factor of its product is not in the file".to_owned();
                return Err(AdapterError::Tensor { path: path.to_owned(), tensor, what });
            }
        }
    }
    if parts.is_empty() {
        let (found, hint) = ("it has no tensors".to_owned(), "fetch the adapter again".to_owned());
        return Err(AdapterError::NotAnAdapter { path: path.to_owned(), found, hint });
    }
    let files = vec![path.to_owned()];
    Ok(Adapter { path: path.to_owned(), files, settings: Settings::Gguf { architecture, alpha }, parts })
}
