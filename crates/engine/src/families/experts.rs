//! Where checkpoints have the experts of a layer: in tensors of their own, or all of them in one.

use super::decoder::Decoder;
use crate::blueprint::{Experts, Gated, Projection, Routing, Share};
use crate::{Config, ConfigError};

/// The tensors of a layer's experts.
#[derive(Clone, Copy)]
pub(super) enum Tensors {
    /// Three for each expert: those of gate, up and down projection are called `module.number.name.weight`.
    Listed {
        /// What their names begin with.
        module: &'static str,
        /// How they end.
        names: [&'static str; 3],
    },
    /// One for the gate and up projections of all, and one for their down projections.
    Fused {
        /// `[experts, 2 width, d_model]`, gates first.
        gate_up: &'static str,
        /// `[experts, d_model, width]`
        down: &'static str,
    },
    /// One for each kind of projection, as in GGUF files: `[experts, outputs, inputs]`.
    Stacked([&'static str; 3]),
}

/// What routers are called within a layer.
const ROUTERS: [&str; 6] = [
    "mlp.gate",
    "router.proj",
    "mlp.router",
    "block_sparse_moe.gate",
    "block_sparse_moe.router",
    "block_sparse_moe.router.layer",
];

/// What experts are called: as transformers 4 and 5 hold those of most families, of Mixtral and Phi, and of Granite; and
/// what [`super::gguf`] has names for.
const TENSORS: [Tensors; 7] = [
    Tensors::Listed { module: "mlp.experts", names: ["gate_proj", "up_proj", "down_proj"] },
    Tensors::Fused { gate_up: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj" },
    Tensors::Listed { module: "block_sparse_moe.experts", names: ["w1", "w3", "w2"] },
    Tensors::Fused {
        gate_up: "block_sparse_moe.input_linear.weight",
        down: "block_sparse_moe.output_linear.weight",
    },
    Tensors::Fused {
        gate_up: "block_sparse_moe.experts.gate_up_proj",
        down: "block_sparse_moe.experts.down_proj",
    },
    Tensors::Fused { gate_up: "experts.gate_up_proj", down: "experts.down_proj" },
    Tensors::Stacked([
        "mlp.experts.gate_proj.weight",
        "mlp.experts.up_proj.weight",
        "mlp.experts.down_proj.weight",
    ]),
];

impl Decoder<'_> {
    /// A layer's experts with `width` hidden numbers each, without one for every token.
    pub(super) fn experts(
        &self,
        layer: usize,
        width: usize,
        routing: Routing,
    ) -> Result<Experts, ConfigError> {
        let count = count(&self.config, &routing)?;
        let has = |name: &str| self.config.has_tensor(&self.name(layer, name));
        let there = |tensors: &Tensors| match tensors {
            Tensors::Listed { module, names } => has(&format!("{module}.{}.{}.weight", count - 1, names[2])),
            Tensors::Fused { down, .. } | Tensors::Stacked([_, _, down]) => has(down),
        };
        // Without this, a damaged number would make a list of experts that nobody has.
        let tensors = TENSORS.into_iter().find(there).ok_or_else(|| ConfigError::Unsupported {
            key: "number of experts".to_owned(),
            found: count.to_string(),
            known: format!("as many as layer {layer} has tensors for"),
        })?;
        let router = ROUTERS.into_iter().find(|it| has(&format!("{it}.weight"))).unwrap_or(ROUTERS[0]);
        let expert = |index| self.expert(layer, (index, count), width, tensors);
        Ok(Experts {
            router: self.projection(layer, router, false, count, self.d_model),
            correction: None,
            routing,
            experts: (0..count).map(expert).collect::<Result<_, _>>()?,
            shared: None,
        })
    }

    fn expert(
        &self,
        layer: usize,
        expert: (usize, usize),
        width: usize,
        tensors: Tensors,
    ) -> Result<Gated, ConfigError> {
        let (d_model, activation) = (self.d_model, self.activation()?);
        let part = |name: &str, first, outputs, of, inputs| Projection {
            weight: self.name(layer, name),
            share: Some(Share { expert: Some(expert), first, step: 1, of, transposed: false, scales: None }),
            bias: None,
            outputs,
            inputs,
        };
        Ok(match tensors {
            Tensors::Listed { module, names } => {
                let [gate, up, down] = names.map(|name| format!("{module}.{}.{name}", expert.0));
                Gated {
                    gate: self.projection(layer, &gate, false, width, d_model),
                    up: self.projection(layer, &up, false, width, d_model),
                    activation,
                    down: self.projection(layer, &down, false, d_model, width),
                }
            }
            Tensors::Fused { gate_up, down } => Gated {
                gate: part(gate_up, 0, width, 2 * width, d_model),
                up: part(gate_up, width, width, 2 * width, d_model),
                activation,
                down: part(down, 0, d_model, d_model, width),
            },
            Tensors::Stacked([gate, up, down]) => Gated {
                gate: part(gate, 0, width, width, d_model),
                up: part(up, 0, width, width, d_model),
                activation,
                down: part(down, 0, d_model, d_model, width),
            },
        })
    }
}

/// How many experts a layer has; whether there are as many as a token is sent to, and groups of equal size.
pub(super) fn count(config: &Config<'_>, routing: &Routing) -> Result<usize, ConfigError> {
    const KEYS: [&str; 3] = ["num_local_experts", "num_experts", "n_routed_experts"];
    // Twice of what any model has.
    const MOST: usize = 1024;
    let key = KEYS.into_iter().find(|it| config.get(it).is_some()).unwrap_or(KEYS[0]);
    let count = config.size(key)?;
    let unsupported = |key: &str, found: String, known: String| {
        Err(ConfigError::Unsupported { key: key.to_owned(), found, known })
    };
    if count > MOST {
        return unsupported(key, count.to_string(), format!("1 to {MOST}"));
    }
    let within = match routing.groups {
        None => count,
        Some(groups) => {
            if !count.is_multiple_of(groups.count) || groups.best > count / groups.count {
                let known = format!("groups of equal size, of at least {} experts", groups.best);
                return unsupported("n_group", groups.count.to_string(), known);
            }
            if !(1..=groups.count).contains(&groups.chosen) {
                let known = format!("1 to n_group = {}", groups.count);
                return unsupported("topk_group", groups.chosen.to_string(), known);
            }
            groups.chosen * (count / groups.count)
        }
    };
    if !(1..=within).contains(&routing.chosen) {
        let known = format!("1 to {within}, the experts that there is a choice of");
        return unsupported("num_experts_per_tok", routing.chosen.to_string(), known);
    }
    Ok(count)
}
