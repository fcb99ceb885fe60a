//! Which tensors of a checkpoint the modules of an adapter are.
//!
//! Modules have the names of the transformers library, which differ between its versions: in what comes before the layers of
//! a language model, in routers, and in experts, which are modules of their own or parameters of one module. Tensors have the
//! names of the version that wrote the file. A GGUF adapter names tensors of GGUF files.

use std::collections::HashMap;

use checkpoint::adapter::{Adapter, AdapterError, Change, Factors, Part, Values};
use checkpoint::{Checkpoint, Format};

use super::experts::OfExperts;
use super::{change_of_embedding, change_of_linear, experts};
use crate::LoadError;
use crate::blueprint::{Block, Blueprint, Experts, FeedForward, Mlp, Projection};
use crate::families::{Names, Source};

/// What names of tensors and modules of a language model may begin with, longest first.
const ROOTS: [&str; 6] = [
    "model.language_model.",
    "language_model.model.",
    "model.text_model.",
    "language_model.",
    "backbone.",
    "model.",
];

/// Where an adapter's part belongs.
pub(super) enum Place {
    /// All of a tensor; the order is that of its rows in terms of the module's, where that is another.
    Tensor { name: String, order: Option<Vec<u32>> },
    /// The rows of a module of so many outputs within a tensor.
    Rows { name: String, first: usize, outputs: usize },
    /// A parameter of all experts.
    Experts(OfExperts),
}

impl Place {
    pub(super) fn tensor(&self) -> &str {
        match self {
            Self::Tensor { name, .. } | Self::Rows { name, .. } => name,
            Self::Experts(of) => of.tensor(),
        }
    }

    pub(super) fn is_of(&self, tensor: &str) -> bool {
        matches!(self, Self::Tensor { name, .. } if name == tensor)
    }

    pub(super) fn rename(&mut self, to: &str) {
        if let Self::Tensor { name, .. } = self {
            to.clone_into(name);
        }
    }

    /// The changes that factors make here.
    pub(super) fn changes(
        &self,
        checkpoint: &Checkpoint,
        adapter: &Adapter,
        part: &Part,
        factors: &Factors,
    ) -> Result<Vec<Change>, LoadError> {
        let base = checkpoint.tensor(self.tensor())?;
        Ok(match self {
            Self::Tensor { .. } if factors.of_embedding => {
                vec![change_of_embedding(adapter, part, factors, &base)?]
            }
            Self::Tensor { name, order } => {
                let width = base.row_len();
                let mut changes = match *base.shape() {
                    [outputs, inputs] => {
                        let order = order.as_deref();
                        let sizes = [outputs, inputs];
                        vec![change_of_linear(adapter, part, factors, (&base, 0), sizes, order)?]
                    }
                    // GGUF files have no dimension of size 1 at the end.
                    [inputs] => {
                        vec![change_of_linear(adapter, part, factors, (&base, 0), [1, inputs], None)?]
                    }
                    [count, rows, _] if factors.down.shape().len() == 3 => {
                        experts::stacked(adapter, part, factors, &base, [count, rows, width])?
                    }
                    _ => {
                        let what = format!("`{name}` has shape {:?}, which is no matrix", base.shape());
                        return Err(adapter.unusable(part, what).into());
                    }
                };
                if let Some(bias) = &factors.bias {
                    changes.push(bias_change(checkpoint, adapter, part, name, bias, factors.down.rows())?);
                }
                changes
            }
            Self::Rows { first, outputs, .. } => {
                if factors.bias.is_some() {
                    return Err(adapter
                        .unusable(part, "experts of one tensor have no biases of factors")
                        .into());
                }
                let sizes = [*outputs, base.row_len()];
                vec![change_of_linear(adapter, part, factors, (&base, *first), sizes, None)?]
            }
            Self::Experts(of) => of.changes(checkpoint, adapter, part, factors)?,
        })
    }
}

/// What a bias behind the second factor adds to the module's own.
fn bias_change(
    checkpoint: &Checkpoint,
    adapter: &Adapter,
    part: &Part,
    weight: &str,
    bias: &checkpoint::Tensor,
    rank: usize,
) -> Result<Change, LoadError> {
    let name = weight.strip_suffix(".weight").map(|it| format!("{it}.bias")).unwrap_or_default();
    if !checkpoint.contains(&name) {
        let what = format!("`{}` is added to a bias, and the base model has none there", bias.name());
        return Err(adapter.unusable(part, what).into());
    }
    let base = checkpoint.tensor(&name)?;
    super::expect_shape(adapter, part, bias, base.shape())?;
    Ok(Change::add(&name, 0..1, 1, vec![1.0], bias.to_f32(), adapter.scale(&part.module, rank)?))
}

/// A checkpoint's tensors by the names of modules.
pub(super) struct Places<'a> {
    source: &'a Source<'a>,
    blueprint: &'a Blueprint,
    /// Names of tensors by what follows on a root; `None`: there are several.
    tails: HashMap<String, Option<String>>,
}

impl<'a> Places<'a> {
    pub(super) fn new(source: &'a Source<'a>, blueprint: &'a Blueprint) -> Self {
        let mut tails: HashMap<String, Option<String>> = HashMap::new();
        for name in source.checkpoint().names() {
            let several = tails.contains_key(tail(name));
            tails.insert(tail(name).to_owned(), (!several).then(|| name.to_owned()));
        }
        Self { source, blueprint, tails }
    }

    /// Checks that a GGUF adapter is one of models like this one.
    pub(super) fn expect_architecture(&self, adapter: &Adapter) -> Result<(), LoadError> {
        let Some(found) = adapter.architecture() else { return Ok(()) };
        let names = Names::of(self.source.checkpoint(), self.source.family.name)?;
        let expected = names.gguf_architecture().unwrap_or_else(|| "(none in GGUF files)".to_owned());
        if found == expected {
            return Ok(());
        }
        let (path, base) = (adapter.path().to_owned(), self.source.checkpoint().path().to_owned());
        Err(AdapterError::Architecture { path, base, expected, found: found.to_owned() }.into())
    }

    /// Checks that an adapter that lists its modules by name has something for each name that the model has a weight of.
    pub(super) fn expect_all_targets(&self, adapter: &Adapter) -> Result<(), LoadError> {
        let named = |module: &str, end: &str| {
            module == end || module.strip_suffix(end).is_some_and(|it| it.ends_with('.'))
        };
        let factors = |it: &&Part| matches!(it.values, Values::Factors(_));
        for name in adapter.target_modules() {
            if adapter.parts().iter().filter(factors).any(|it| named(&it.module, name)) {
                continue;
            }
            let weight = |it: &str| it.strip_suffix(".weight").is_some_and(|it| named(it, name));
            if self.source.checkpoint().names().any(weight) {
                return Err(adapter.incomplete(name).into());
            }
        }
        Ok(())
    }

    /// The embedding's tensor.
    pub(super) fn embedding(&self) -> String {
        self.stored(&self.blueprint.embedding.weight).map_or_else(String::new, |it| it.0)
    }

    /// What a head of its own is called.
    pub(super) fn head(&self) -> String {
        let container = self.blueprint.embedding.weight.starts_with("language_model.");
        if container { "language_model.lm_head.weight" } else { "lm_head.weight" }.to_owned()
    }

    pub(super) fn is_head(module: &str) -> bool {
        tail(module) == "lm_head"
    }

    /// Where a part belongs.
    pub(super) fn of(&self, adapter: &Adapter, part: &Part) -> Result<Vec<Place>, LoadError> {
        let checkpoint = self.source.checkpoint();
        let missing = || {
            let path = checkpoint.path().display();
            adapter.unusable(part, format!("`{path}` has no such module"))
        };
        if adapter.format() == Format::Gguf {
            return Ok(vec![self.of_gguf(part).ok_or_else(missing)?]);
        }
        let parameter = match &part.values {
            Values::Whole { parameter, .. } => parameter.as_str(),
            Values::Factors(_) | Values::Rows(_) => "weight",
        };
        if checkpoint.format() == Format::Gguf {
            let linear = matches!(&part.values, Values::Factors(it) if !it.of_embedding);
            if !linear {
                let what =
                    "of a GGUF file only weights of linear modules are changed, and this is something else";
                return Err(adapter.unusable(part, what).into());
            }
        }
        if part.depth == 0
            && let Some((name, order)) = self.parameter(&part.module, parameter)
        {
            return Ok(vec![Place::Tensor { name, order: order.map(|it| inverse(&it)) }]);
        }
        // A tied head has no tensor yet.
        if Self::is_head(&part.module) && parameter == "weight" {
            let (name, order) = self.stored(&self.blueprint.head.weight).ok_or_else(missing)?;
            return Ok(vec![Place::Tensor { name, order }]);
        }
        let found = match &part.values {
            Values::Factors(_) => self.of_expert(part).or(self.of_experts(adapter, part)),
            Values::Whole { .. } | Values::Rows(_) => None,
        };
        Ok(found.ok_or_else(missing)?)
    }

    /// The tensor of a module's parameter, and where its rows lie.
    fn parameter(&self, module: &str, parameter: &str) -> Option<(String, Option<Vec<u32>>)> {
        let checkpoint = self.source.checkpoint();
        let whole = format!("{module}.{parameter}");
        if checkpoint.format() == Format::Gguf {
            return self.stored(&format!("model.{}", tail(&whole))).or_else(|| self.stored(tail(&whole)));
        }
        if checkpoint.contains(&whole) {
            return Some((whole, None));
        }
        if let Some(Some(name)) = self.tails.get(tail(&whole)) {
            return Some((name.clone(), None));
        }
        // Routers have other names in files than in modules.
        let router = [".gate", ".router", ".router.layer"].iter().any(|end| module.ends_with(end));
        let router = router.then(|| self.experts_of(module)).flatten().map(|it| &it.router)?;
        (parameter == "weight").then(|| self.stored(&router.weight)).flatten()
    }

    /// Where a tensor lies that the blueprint names.
    fn stored(&self, name: &str) -> Option<(String, Option<Vec<u32>>)> {
        let (name, order) = self.source.stored(name)?;
        self.source.checkpoint().contains(&name).then_some((name, order))
    }

    fn of_gguf(&self, part: &Part) -> Option<Place> {
        let checkpoint = self.source.checkpoint();
        if checkpoint.format() == Format::Gguf {
            let found = checkpoint.contains(&part.module).then(|| part.module.clone());
            return found
                .filter(|it| *it != self.embedding())
                .map(|name| Place::Tensor { name, order: None });
        }
        let names = Names::of(checkpoint, self.source.family.name).ok()?;
        let all = checkpoint.names().find_map(|it| {
            let stored = names.gguf_stored(it)?;
            (stored.name == part.module).then(|| (it.to_owned(), stored.row_order))
        });
        let (name, order) = all?;
        // Row i of the folder's tensor is row order[i] of the file's.
        (name != self.embedding()).then_some(Place::Tensor { name, order })
    }

    /// The experts of the layer that a module belongs to.
    fn experts_of(&self, module: &str) -> Option<&'a Experts> {
        let (_, rest) = module.split_once("layers.")?;
        let layer: usize = rest.split('.').next()?.parse().ok()?;
        let Block { mlp, .. } = self.blueprint.blocks.get(layer)?;
        match &mlp.inner {
            Mlp::Experts(experts) => Some(experts),
            Mlp::Beside(beside) => Some(&beside.experts),
            _ => None,
        }
    }

    /// One expert's module where all of them are in one tensor: `….experts.3.gate_proj`.
    fn of_expert(&self, part: &Part) -> Option<Vec<Place>> {
        let (module, name) = part.module.rsplit_once('.')?;
        let (module, expert) = module.rsplit_once('.')?;
        if !module.ends_with(".experts") || part.depth > 0 {
            return None;
        }
        let FeedForward { gate, up, down, .. } =
            self.experts_of(module)?.experts.get(expert.parse::<usize>().ok()?)?;
        let projection = match name {
            "gate_proj" | "w1" => gate.as_ref()?,
            "up_proj" | "w3" => up,
            "down_proj" | "w2" => down,
            _ => return None,
        };
        let share = projection.share.as_ref()?;
        if share.transposed || share.step != 1 || share.together != 1 || share.scales.is_some() {
            return None;
        }
        let (name, None) = self.stored(&projection.weight)? else { return None };
        let first = share.expert.map_or(0, |it| it.0) * share.of + share.first;
        Some(vec![Place::Rows { name, first, outputs: projection.outputs }])
    }

    /// A parameter of all experts: `….experts`, by what the adapter says of parameters.
    fn of_experts(&self, adapter: &Adapter, part: &Part) -> Option<Vec<Place>> {
        part.module.ends_with(".experts").then_some(())?;
        let experts = &self.experts_of(&part.module)?.experts;
        let FeedForward { gate, .. } = experts.first()?;
        // In the order in which the module has them.
        let all = if gate.is_some() { ["gate_up_proj", "down_proj"] } else { ["up_proj", "down_proj"] };
        let targeted = |it: &&str| adapter.targets_parameter(&format!("{}.{it}", part.module));
        let targeted: Vec<&str> = all.into_iter().filter(targeted).collect();
        let parts = adapter.parts().iter().filter(|it| it.module == part.module).count();
        if parts != targeted.len() {
            return None;
        }
        let parameter = *targeted.get(targeted.len().checked_sub(1 + part.depth)?)?;
        let own = |it: &'a FeedForward| -> Vec<&'a Projection> {
            if parameter == "down_proj" { vec![&it.down] } else { it.inputs() }
        };
        let stored = |it: &Projection| {
            if it.share.as_ref().is_some_and(|it| it.scales.is_some()) {
                return None;
            }
            Some(self.stored(&it.weight)?.0)
        };
        let of = OfExperts::new(&format!("{}.{parameter}", part.module), experts, own, stored)?;
        Some(vec![Place::Experts(of)])
    }
}

/// What follows on a root.
fn tail(name: &str) -> &str {
    ROOTS.into_iter().find_map(|root| name.strip_prefix(root)).unwrap_or(name)
}

/// For each row of a file's tensor, which of the module it is: rows of the module lie at `order`.
fn inverse(order: &[u32]) -> Vec<u32> {
    let mut inverse = vec![0; order.len()];
    for (row, &place) in order.iter().enumerate() {
        inverse[place as usize] = row as u32;
    }
    inverse
}
