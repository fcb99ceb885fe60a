//! The tensors of an adapter, put together by the modules that they change.
//!
//! | after the module's name | what it is |
//! |---|---|
//! | `lora_A.weight` `[rank, d_in]`, `lora_B.weight` `[d_out, rank]` | factors |
//! | `lora_B.bias` `[d_out]` | a bias of the second factor |
//! | `lora_embedding_A` `[rank, vocab]`, `lora_embedding_B` `[d_model, rank]` | factors of an embedding |
//! | `lora_magnitude_vector`, also with `.weight` | the lengths of a DoRA |
//! | `token_adapter.trainable_tokens_delta`, `trainable_tokens_delta` `[tokens, d_model]` | rows in place of some |
//! | `weight`, `bias`, also in `modules_to_save` or `base_layer` | in place of the module's own |
//!
//! Factors of a parameter that is no module's `weight`, all experts of a layer for instance, stand under the module's name,
//! and where it has several under `base_layer` once more for each that comes later in the module.

use std::collections::BTreeMap;
use std::path::Path;

use super::{AdapterError, Values};
use crate::Tensor;

/// The prefix of all names in a file that peft has written.
const PREFIX: &str = "base_model.model.";

/// What wraps a module.
const BASE_LAYER: &str = ".base_layer";

/// Names that a file may have for the adapter itself, between a factor's name and `weight`.
const ADAPTER_NAMES: [&str; 2] = [".default", ".adapter"];

/// What an adapter has of one module.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    down: Option<Tensor>,
    up: Option<Tensor>,
    up_bias: Option<Tensor>,
    magnitude: Option<Tensor>,
    embedding_down: Option<Tensor>,
    embedding_up: Option<Tensor>,
    rows: Option<Tensor>,
    /// By the names of parameters; `true`: those of the module that factors are added to.
    whole: BTreeMap<String, (Tensor, bool)>,
}

/// Two factors, and what belongs to them.
#[derive(Clone, Debug)]
pub struct Factors {
    /// `[rank, d_in]`; of an embedding `[rank, vocab]`.
    pub down: Tensor,
    /// `[d_out, rank]`; of an embedding `[d_model, rank]`.
    pub up: Tensor,
    /// A bias behind the second factor.
    pub bias: Option<Tensor>,
    /// The lengths of the changed weight's rows; of an embedding those of its columns.
    pub magnitude: Option<Tensor>,
    /// Whether they are those of an embedding.
    pub of_embedding: bool,
}

/// Puts all tensors together.
pub(super) fn by_module(
    path: &Path,
    tensors: impl Iterator<Item = Tensor>,
) -> Result<BTreeMap<(String, usize), Tensors>, AdapterError> {
    let mut modules: BTreeMap<(String, usize), Tensors> = BTreeMap::new();
    for tensor in tensors {
        let name = tensor.name().to_owned();
        let error = |what: &str| AdapterError::Tensor {
            path: path.to_owned(),
            tensor: name.clone(),
            what: what.to_owned(),
        };
        let plain = name.strip_prefix(PREFIX).unwrap_or(&name);
        let (module, part) = split(plain).ok_or_else(|| error("its name says of no module what it is"))?;
        let (module, depth) = unwrapped(module);
        let of_parameter = matches!(part, Part::Down | Part::Up);
        let entry = modules.entry((module, if of_parameter { depth } else { 0 })).or_default();
        let place = match part {
            Part::Down => &mut entry.down,
            Part::Up => &mut entry.up,
            Part::UpBias => &mut entry.up_bias,
            Part::Magnitude => &mut entry.magnitude,
            Part::EmbeddingDown => &mut entry.embedding_down,
            Part::EmbeddingUp => &mut entry.embedding_up,
            Part::Rows => &mut entry.rows,
            Part::Whole(parameter) => {
                if entry.whole.insert(parameter, (tensor, depth > 0)).is_some() {
                    return Err(error("there is another tensor for the same parameter"));
                }
                continue;
            }
        };
        if place.replace(tensor).is_some() {
            return Err(error("there is another tensor for the same part of the module"));
        }
    }
    Ok(modules)
}

enum Part {
    Down,
    Up,
    UpBias,
    Magnitude,
    EmbeddingDown,
    EmbeddingUp,
    Rows,
    Whole(String),
}

/// The module of a tensor's name, and which part of it the tensor is.
fn split(name: &str) -> Option<(&str, Part)> {
    /// An ending, whether `.weight` may follow, and what it is.
    type Rule = (&'static str, bool, fn() -> Part);
    const RULES: &[Rule] = &[
        (".lora_A", true, || Part::Down),
        (".lora_B", true, || Part::Up),
        (".lora_magnitude_vector", true, || Part::Magnitude),
        (".lora_embedding_A", false, || Part::EmbeddingDown),
        (".lora_embedding_B", false, || Part::EmbeddingUp),
        (".token_adapter.trainable_tokens_delta", false, || Part::Rows),
        (".trainable_tokens_delta", false, || Part::Rows),
    ];
    let named = |name: &'_ str, end: &str| -> Option<usize> {
        let names = ADAPTER_NAMES.into_iter().chain([""]);
        names.into_iter().find_map(|it| name.strip_suffix(&format!("{end}{it}"))).map(str::len)
    };
    if let Some(rest) = name.strip_suffix(".bias")
        && let Some(len) = named(rest, ".lora_B")
    {
        return Some((&name[..len], Part::UpBias));
    }
    for (end, weighted, part) in RULES {
        let rest = name.strip_suffix(".weight").filter(|_| *weighted).unwrap_or(name);
        if let Some(len) = named(rest, end) {
            return Some((&name[..len], part()));
        }
    }
    if name.contains("lora_") || name.contains("original_module") || name.contains("token_adapter") {
        return None;
    }
    let (module, parameter) = name.rsplit_once('.')?;
    let module = ADAPTER_NAMES.into_iter().find_map(|it| module.strip_suffix(it)).unwrap_or(module);
    let module = module.strip_suffix(".modules_to_save").unwrap_or(module);
    Some((module, Part::Whole(parameter.to_owned())))
}

/// A module without what wraps it, and how often factors are wrapped: a parameter's in those of another of the module.
fn unwrapped(module: &str) -> (String, usize) {
    let (mut module, mut depth) = (module, 0);
    while let Some(inner) = module.strip_suffix(BASE_LAYER) {
        module = inner;
        depth += 1;
    }
    (module.to_owned(), depth)
}

impl Tensors {
    /// What they do to the module, each with the name of a tensor; `use_dora`: whether lengths must be there.
    pub(super) fn values(self, path: &Path, use_dora: bool) -> Result<Vec<(String, Values)>, AdapterError> {
        let error = |tensor: &Tensor, what: &str| AdapterError::Tensor {
            path: path.to_owned(),
            tensor: tensor.name().to_owned(),
            what: what.to_owned(),
        };
        let Self { down, up, up_bias, magnitude, embedding_down, embedding_up, rows, whole } = self;
        let mut values = Vec::new();
        // What replaces a weight comes before what is added to it.
        for (parameter, (tensor, of_base)) in whole {
            values.push((tensor.name().to_owned(), Values::Whole { parameter, tensor, of_base }));
        }
        if let Some(tensor) = rows {
            values.push((tensor.name().to_owned(), Values::Rows(tensor)));
        }
        let pairs = [(down, up, false), (embedding_down, embedding_up, true)];
        let mut factors: Option<Factors> = None;
        for (down, up, of_embedding) in pairs {
            match (down, up) {
                (None, None) => {}
                (Some(down), Some(up)) if factors.is_none() => {
                    factors = Some(Factors { down, up, bias: None, magnitude: None, of_embedding });
                }
                (Some(one), None) | (None, Some(one)) => {
                    return Err(error(&one, "the other factor of its product is not in the file"));
                }
                (Some(one), Some(_)) => return Err(error(&one, "the module has other factors, too")),
            }
        }
        match factors {
            None => {
                if let Some(alone) = up_bias.or(magnitude) {
                    return Err(error(&alone, "the factors that it belongs to are not in the file"));
                }
            }
            Some(mut factors) => {
                match (&magnitude, use_dora) {
                    (Some(magnitude), false) => {
                        return Err(error(magnitude, "`use_dora` is not true, and it belongs to a DoRA"));
                    }
                    (None, true) => {
                        return Err(error(
                            &factors.up,
                            "`use_dora` is true, and its `lora_magnitude_vector` is not in the file",
                        ));
                    }
                    _ => {}
                }
                if let (Some(bias), true) = (&up_bias, use_dora) {
                    return Err(error(bias, "a DoRA has no bias behind its factors"));
                }
                (factors.bias, factors.magnitude) = (up_bias, magnitude);
                let [rank_down, _] =
                    matrix(&factors.down).ok_or_else(|| error(&factors.down, "it is no matrix"))?;
                let [_, rank_up] =
                    matrix(&factors.up).ok_or_else(|| error(&factors.up, "it is no matrix"))?;
                if rank_down != rank_up || rank_down == 0 {
                    let what = format!(
                        "shape {:?} does not fit `{}` with {:?}",
                        factors.up.shape(),
                        factors.down.name(),
                        factors.down.shape()
                    );
                    return Err(error(&factors.up, &what));
                }
                values.push((factors.up.name().to_owned(), Values::Factors(Box::new(factors))));
            }
        }
        Ok(values)
    }
}

fn matrix(tensor: &Tensor) -> Option<[usize; 2]> {
    <[usize; 2]>::try_from(tensor.shape()).ok()
}
