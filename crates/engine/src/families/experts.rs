//! Where checkpoints have the experts of a layer: in tensors of their own, or all of them in one.

use super::decoder::Decoder;
use crate::blueprint::{Experts, FeedForward, Groups, Projection, Routing, Scores, Share};
use crate::{Config, ConfigError};

/// The tensors of a layer's experts.
#[derive(Clone, Copy)]
pub(super) enum Tensors {
    /// One for each projection of each expert, `module.number.name.weight`.
    Listed {
        /// What their names begin with.
        module: &'static str,
        /// How they end.
        names: Names,
    },
    /// One for the gate and up projections of all, and one for their down projections.
    Fused {
        /// `[experts, 2 width, d_model]`, gates first.
        gate_up: &'static str,
        /// `[experts, d_model, width]`
        down: &'static str,
    },
    /// The same, or the other way round: `[experts, d_model, 2 width]`, `[experts, width, d_model]`.
    Either {
        /// Gates first.
        gate_up: &'static str,
        /// The writers.
        down: &'static str,
    },
    /// One for each kind of projection, as in GGUF files: `[experts, outputs, inputs]`. What is called `….weight` has a
    /// bias where there is one.
    Stacked(Names),
    /// As [`Self::Fused`], but the other way round, `[experts, inputs, outputs]`, with a gate before each up projection's
    /// output, and with biases, whose names end with `_bias`.
    Alternating {
        /// `[experts, d_model, 2 width]`
        gate_up: &'static str,
        /// `[experts, width, d_model]`
        down: &'static str,
    },
    /// The same in microscaled blocks, `[experts, outputs, inputs / 32, 16]`, the names of which end with `_blocks`, those of
    /// their scales with `_scales`.
    AlternatingBlocks {
        /// The name without its end.
        gate_up: &'static str,
        /// The name without its end.
        down: &'static str,
    },
}

/// What the projections of an expert are called.
#[derive(Clone, Copy)]
pub(super) struct Names {
    /// `None`: there is no gate.
    gate: Option<&'static str>,
    up: &'static str,
    down: &'static str,
}

impl Names {
    const fn gated(gate: &'static str, up: &'static str, down: &'static str) -> Self {
        Self { gate: Some(gate), up, down }
    }

    /// Without gates.
    pub(super) const fn plain(up: &'static str, down: &'static str) -> Self {
        Self { gate: None, up, down }
    }
}

/// What routers are called within a layer.
const ROUTERS: [&str; 10] = [
    "moe.gate",
    "mlp.gate",
    "mixer.gate",
    "router.proj",
    "mlp.gate.wg",
    "mlp.router",
    "feed_forward.gate",
    "block_sparse_moe.gate",
    "block_sparse_moe.router",
    "block_sparse_moe.router.layer",
];

/// What experts are called: as transformers 4 and 5 hold those of most families, of Mixtral and Phi, and of Granite; and in
/// GGUF files.
const TENSORS: &[Tensors] = &[
    Tensors::Listed { module: "mlp.experts", names: Names::gated("gate_proj", "up_proj", "down_proj") },
    Tensors::Fused { gate_up: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj" },
    Tensors::Listed { module: "block_sparse_moe.experts", names: Names::gated("w1", "w3", "w2") },
    Tensors::Listed { module: "feed_forward.experts", names: Names::gated("w1", "w3", "w2") },
    Tensors::Fused { gate_up: "feed_forward.experts.gate_up_proj", down: "feed_forward.experts.down_proj" },
    Tensors::Fused {
        gate_up: "block_sparse_moe.input_linear.weight",
        down: "block_sparse_moe.output_linear.weight",
    },
    Tensors::Fused {
        gate_up: "block_sparse_moe.experts.gate_up_proj",
        down: "block_sparse_moe.experts.down_proj",
    },
    Tensors::Fused { gate_up: "experts.gate_up_proj", down: "experts.down_proj" },
    STACKED,
];

/// What Qwen 3 VL calls experts.
pub(super) const EITHER: &[Tensors] =
    &[Tensors::Either { gate_up: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj" }];

/// What Step 3.7 calls experts, as it was released and as transformers holds them.
pub(super) const STEP: &[Tensors] = &[
    Tensors::Stacked(Names::gated("moe.gate_proj.weight", "moe.up_proj.weight", "moe.down_proj.weight")),
    Tensors::Fused { gate_up: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj" },
];

/// What gpt-oss calls experts, as transformers writes them and as they were released.
pub(super) const ALTERNATING: &[Tensors] = &[
    Tensors::Alternating { gate_up: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj" },
    Tensors::AlternatingBlocks { gate_up: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj" },
    STACKED,
];

/// What [`super::gguf`] has names for.
const STACKED: Tensors = Tensors::Stacked(Names::gated(
    "mlp.experts.gate_proj.weight",
    "mlp.experts.up_proj.weight",
    "mlp.experts.down_proj.weight",
));

impl Decoder<'_> {
    /// A layer's experts with `width` hidden numbers each, without one for every token.
    pub(super) fn experts(
        &self,
        layer: usize,
        width: usize,
        routing: Routing,
    ) -> Result<Experts, ConfigError> {
        self.experts_as(TENSORS, layer, width, routing)
    }

    /// The same, in the first of these tensors that there are.
    pub(super) fn experts_as(
        &self,
        known: &[Tensors],
        layer: usize,
        width: usize,
        routing: Routing,
    ) -> Result<Experts, ConfigError> {
        let count = count(&self.config, &routing)?;
        let has = |name: &str| self.config.has_tensor(&self.name(layer, name));
        let there = |tensors: &Tensors| match tensors {
            Tensors::Listed { module, names } => {
                has(&format!("{module}.{}.{}.weight", count - 1, names.down))
            }
            Tensors::Fused { down, .. }
            | Tensors::Either { down, .. }
            | Tensors::Stacked(Names { down, .. })
            | Tensors::Alternating { down, .. } => has(down),
            Tensors::AlternatingBlocks { down, .. } => has(&format!("{down}_blocks")),
        };
        // Without this, a damaged number would make a list of experts that nobody has.
        let tensors = known.iter().copied().find(there).ok_or_else(|| {
            ConfigError::unsupported(
                "number of experts",
                count,
                format!("as many as layer {layer} has tensors for"),
            )
        })?;
        let router = ROUTERS.into_iter().find(|it| has(&format!("{it}.weight"))).unwrap_or(ROUTERS[0]);
        let expert = |index| self.expert(layer, (index, count), width, tensors);
        Ok(Experts {
            router: self.projection(layer, router, false, count, self.d_model),
            correction: None,
            routing,
            experts: (0..count).map(expert).collect::<Result<_, _>>()?,
            shared: None,
            shared_gate: None,
        })
    }

    fn expert(
        &self,
        layer: usize,
        expert: (usize, usize),
        width: usize,
        tensors: Tensors,
    ) -> Result<FeedForward, ConfigError> {
        let (d_model, activation) = (self.d_model, self.activation()?);
        let named = |names: Names, own: &dyn Fn(&str, usize, usize) -> Projection| FeedForward {
            gate: names.gate.map(|it| own(it, width, d_model)),
            up: own(names.up, width, d_model),
            activation,
            down: own(names.down, d_model, width),
        };
        let part = |name: &str, first, outputs, of, inputs| {
            let weight = self.name(layer, name);
            // As the reference stack reads them: where both ways fit, as transformers 5 holds them.
            let shape = matches!(tensors, Tensors::Either { .. }).then(|| self.config.tensor_shape(&weight));
            let transposed = shape.flatten().is_some_and(|it| it != [expert.1, of, inputs]);
            Projection {
                weight,
                share: Some(Share { expert: Some(expert), transposed, ..Share::part(first, of) }),
                bias: None,
                scale: 1.0,
                outputs,
                inputs,
            }
        };
        Ok(match tensors {
            Tensors::Listed { module, names } => named(names, &|name, outputs, inputs| {
                let name = format!("{module}.{}.{name}", expert.0);
                self.projection(layer, &name, false, outputs, inputs)
            }),
            Tensors::Fused { gate_up, down } | Tensors::Either { gate_up, down } => FeedForward {
                gate: Some(part(gate_up, 0, width, 2 * width, d_model)),
                up: part(gate_up, width, width, 2 * width, d_model),
                activation,
                down: part(down, 0, d_model, d_model, width),
            },
            Tensors::Stacked(names) => named(names, &|name, outputs, inputs| {
                let bias = name.strip_suffix(".weight").map(|it| self.name(layer, &format!("{it}.bias")));
                let bias = bias.filter(|it| self.config.has_tensor(it));
                Projection { bias, ..part(name, 0, outputs, outputs, inputs) }
            }),
            Tensors::Alternating { gate_up, down } | Tensors::AlternatingBlocks { gate_up, down } => {
                let blocks = matches!(tensors, Tensors::AlternatingBlocks { .. });
                let part = |name: &str, first, step, outputs, inputs| {
                    let named = |end: &str| self.name(layer, &format!("{name}{end}"));
                    Projection {
                        weight: named(if blocks { "_blocks" } else { "" }),
                        share: Some(Share {
                            expert: Some(expert),
                            step,
                            transposed: !blocks,
                            scales: blocks.then(|| named("_scales")),
                            ..Share::part(first, step * outputs)
                        }),
                        bias: Some(named("_bias")),
                        scale: 1.0,
                        outputs,
                        inputs,
                    }
                };
                FeedForward {
                    gate: Some(part(gate_up, 0, 2, width, d_model)),
                    up: part(gate_up, 1, 2, width, d_model),
                    activation,
                    down: part(down, 0, 1, d_model, width),
                }
            }
        })
    }

    /// The one of these names within a layer that there is a tensor of; the first where there is none.
    pub(super) fn either(&self, layer: usize, names: [&str; 2]) -> String {
        let [first, second] = names.map(|it| self.name(layer, it));
        if self.config.has_tensor(&second) && !self.config.has_tensor(&first) { second } else { first }
    }

    /// The one of these modules within a layer that has a tensor of this name; the first where neither has.
    pub(super) fn either_module<'m>(
        &self,
        layer: usize,
        [first, second]: [&'m str; 2],
        tensor: &str,
    ) -> &'m str {
        let has = |module: &str| self.config.has_tensor(&self.name(layer, &format!("{module}.{tensor}")));
        if has(second) && !has(first) { second } else { first }
    }

    /// An expert of every token with so many hidden numbers, in a module of a layer; `None` without any.
    pub(super) fn shared(
        &self,
        layer: usize,
        module: &str,
        width: usize,
    ) -> Result<Option<FeedForward>, ConfigError> {
        (width > 0).then(|| self.gated_in(layer, module, width)).transpose()
    }
}

/// Experts after a choice among groups of them, with what most configurations say of their shares.
pub(super) fn in_groups(config: &Config<'_>, scores: Scores, groups: Groups) -> Result<Routing, ConfigError> {
    Ok(Routing {
        chosen: config.size("num_experts_per_tok")?,
        softcap: None,
        scores,
        groups: Some(groups),
        normalized: config.flag("norm_topk_prob")?.unwrap_or(false),
        scale: config.number("routed_scaling_factor")?.unwrap_or(1.0) as f32,
    })
}

/// The same where the configuration has to say how many groups there are; they are chosen by the two best of each.
pub(super) fn in_told_groups(config: &Config<'_>, scores: Scores) -> Result<Routing, ConfigError> {
    let groups = Groups { count: config.size("n_group")?, chosen: config.size("topk_group")?, best: 2 };
    in_groups(config, scores, groups)
}

/// How many experts a layer has; whether there are as many as a token is sent to, and groups of equal size.
pub(super) fn count(config: &Config<'_>, routing: &Routing) -> Result<usize, ConfigError> {
    const KEYS: [&str; 4] = ["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"];
    // Twice of what any model has.
    const MOST: usize = 1024;
    let key = KEYS.into_iter().find(|it| config.get(it).is_some()).unwrap_or(KEYS[0]);
    let count = config.size(key)?;
    if count > MOST {
        return Err(ConfigError::unsupported(key, count, format!("1 to {MOST}")));
    }
    let within = match routing.groups {
        None => count,
        Some(groups) => {
            if groups.count == 0 || !count.is_multiple_of(groups.count) || groups.best > count / groups.count
            {
                let known = format!("groups of equal size, of at least {} experts", groups.best);
                return Err(ConfigError::unsupported("n_group", groups.count, known));
            }
            if !(1..=groups.count).contains(&groups.chosen) {
                let known = format!("1 to n_group = {}", groups.count);
                return Err(ConfigError::unsupported("topk_group", groups.chosen, known));
            }
            groups.chosen * (count / groups.count)
        }
    };
    if !(1..=within).contains(&routing.chosen) {
        let known = format!("1 to {within}, the experts that there is a choice of");
        return Err(ConfigError::unsupported("num_experts_per_tok", routing.chosen, known));
    }
    Ok(count)
}
