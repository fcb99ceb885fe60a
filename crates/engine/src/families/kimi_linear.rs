//! Kimi Linear: delta nets in which each number of a key decays by itself (KDA), and in every few layers latent attention as in
//! DeepSeek V3, which is not rotated; a dense layer, then experts by logistic scores, and one for every token.
//!
//! What gates and decays are made of is a projection to the width of a head first.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::experts;
use super::latent::refuse_alternation;
use super::recurrent::size_within;
use crate::blueprint::{
    Blueprint, Convolution, Experts, GatedNorm, Gating, LatentAttention, Mixer, Mlp, Pairing, Rate,
    Recurrence, RecurrenceShape, Rope, Routing, Rule, Scores,
};
use crate::config::kind_of_layer;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "kimi_linear", architectures: &["KimiLinearForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), ..decoder::LLAMA };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "moe_intermediate_size": 1024,
        "routed_scaling_factor": 2.446,
        "topk_group": 1,
    })
});

/// What the released configuration calls some of the numbers.
const RELEASED: [(&str, &str); 5] = [
    ("max_position_embeddings", "model_max_length"),
    ("norm_topk_prob", "moe_renormalize"),
    ("n_group", "num_expert_group"),
    ("num_experts_per_tok", "num_experts_per_token"),
    ("n_shared_experts", "num_shared_experts"),
];

/// Kinds of layers: whether a layer attends.
const LAYERS: &[(&str, bool)] = &[(decoder::FULL, true), ("linear_attention", false)];

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let mut defaults = DEFAULTS.clone();
    let usual = [json!(1_048_576), json!(true), json!(1), json!(8), json!(1)];
    for ((key, released), usual) in RELEASED.into_iter().zip(usual) {
        defaults[key] = config.get(released).cloned().unwrap_or(usual);
    }
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, TRAITS, Some(&defaults))? };
    let config = &decoder.config;
    refuse_alternation(config)?;
    config.word("moe_router_activation_func", "sigmoid", &[("sigmoid", ())])?;
    if config.flag("mla_use_nope")? == Some(false) {
        return Err(ConfigError::unsupported("mla_use_nope", "false", "`true`"));
    }
    let (net, dense) = (DeltaNet::read(config)?, config.count("first_k_dense_replace")?.unwrap_or(1));
    let routing = experts::in_told_groups(config, Scores::Sigmoid)?;
    let attends = Attends::read(config)?;
    decoder.blueprint(|layer| {
        let mixer: Mixer = if attends.layer(config, layer)? {
            attention(&decoder, layer)?.into()
        } else {
            Mixer::Recurrence(net.layer(&decoder, layer))
        };
        let dense = decoder.is_dense(layer, |layer| layer < dense)?;
        let mlp = if dense {
            // transformers writes dense layers under the name of the others.
            let module = decoder.either_module(layer, ["mlp", "block_sparse_moe"], "down_proj.weight");
            Mlp::Dense(decoder.gated_in(layer, module, decoder.d_mlp)?)
        } else {
            sparse(&decoder, layer, routing)?
        };
        decoder.block(layer, mixer, mlp, decoder::BEFORE)
    })
}

/// Which layers attend.
struct Attends {
    /// Of the released configuration, counted from 1: those that do, and those that do not.
    listed: Option<[Vec<usize>; 2]>,
}

impl Attends {
    fn read(config: &Config<'_>) -> Result<Self, ConfigError> {
        let Some(net) = config.section("linear_attn_config") else { return Ok(Self { listed: None }) };
        let of = |key: &str| {
            let list = net.numbers(key)?;
            Ok::<_, ConfigError>(list.map(|it| it.into_iter().map(|it| it as usize).collect()))
        };
        Ok(Self { listed: of("full_attn_layers")?.zip(of("kda_layers")?).map(|(full, net)| [full, net]) })
    }

    fn layer(&self, config: &Config<'_>, layer: usize) -> Result<bool, ConfigError> {
        if let Some(types) = config.list("layer_types")? {
            return kind_of_layer(types, "layer_types", layer, LAYERS);
        }
        let Some([full, net]) = &self.listed else { return Ok(layer > 0 && layer.is_multiple_of(4)) };
        match (full.contains(&(layer + 1)), net.contains(&(layer + 1))) {
            (attends, other) if attends != other => Ok(attends),
            (both, _) => {
                let found = format!("layer {} in {}", layer + 1, if both { "both lists" } else { "none" });
                Err(ConfigError::unsupported("linear_attn_config", found, "each layer in one of the lists"))
            }
        }
    }
}

/// Latent attention whose shared key is not rotated.
fn attention(decoder: &Decoder<'_>, layer: usize) -> Result<LatentAttention, ConfigError> {
    let shape = decoder.latent_shape()?;
    // Read all the same, so that one that nobody knows is refused.
    let rope = decoder.latent_rope(&shape, Pairing::Halves, shape.d_rope)?;
    let rope = Rope { frequencies: Vec::new(), limit: None, ..rope };
    // Another scaling of scores comes with a rotation that is scaled.
    let scale = (1.0 / (shape.d_query() as f64).sqrt()) as f32;
    decoder.latent_attention_with(layer, crate::backend::LatentShape { scale, ..shape }, rope)
}

fn sparse(decoder: &Decoder<'_>, layer: usize, routing: Routing) -> Result<Mlp, ConfigError> {
    let config = &decoder.config;
    let width = config.size("moe_intermediate_size")?;
    let shared = config.count("n_shared_experts")?.unwrap_or(0).saturating_mul(width);
    let modules = ["block_sparse_moe.shared_experts", "mlp.shared_experts"];
    let module = decoder.either_module(layer, modules, "down_proj.weight");
    let correction = ["block_sparse_moe.gate.e_score_correction_bias", "mlp.gate.e_score_correction_bias"];
    Ok(Mlp::Experts(Experts {
        correction: Some(decoder.either(layer, correction)),
        shared: decoder.shared(layer, module, shared)?,
        ..decoder.experts(layer, width, routing)?
    }))
}

/// The sizes of the delta nets.
struct DeltaNet {
    shape: RecurrenceShape,
    taps: usize,
    epsilon: f32,
}

impl DeltaNet {
    fn read(config: &Config<'_>) -> Result<Self, ConfigError> {
        // The released configuration has them in a section.
        let section = config.section("linear_attn_config");
        let size = |key: &str, released: &str, usual| match &section {
            Some(section) if section.get(released).is_some() => size_within(section, released, usual),
            _ => size_within(config, key, usual),
        };
        let heads = size("linear_num_heads", "num_heads", 32)?;
        let width = size("linear_head_dim", "head_dim", 128)?;
        let all = heads.saturating_mul(width);
        let shape = RecurrenceShape {
            heads,
            groups: heads,
            d_key: width,
            d_value: width,
            queries: 0,
            keys: all,
            values: all.saturating_mul(2),
        };
        if shape.channels() > decoder::WIDEST {
            let known = format!("up to {} channels in all", decoder::WIDEST);
            return Err(ConfigError::unsupported("linear_num_heads", heads, known));
        }
        Ok(Self {
            shape,
            taps: size("linear_conv_kernel_dim", "short_conv_kernel_size", 4)?,
            epsilon: config.number("rms_norm_eps")?.unwrap_or(TRAITS.epsilon.1) as f32,
        })
    }

    fn layer(&self, decoder: &Decoder<'_>, layer: usize) -> Recurrence {
        let RecurrenceShape { heads, d_value: width, .. } = self.shape;
        let all = heads * width;
        let name = |it: &str| format!("self_attn.{it}");
        let either = |[first, second]: [&str; 2]| decoder.either(layer, [&name(first), &name(second)]);
        let projection =
            |it: &str, outputs, inputs| decoder.projection(layer, &name(it), false, outputs, inputs);
        let of_stream = |it: &str, outputs| projection(it, outputs, decoder.d_model);
        let module = decoder.either_module(layer, ["self_attn", "self_attn.forget_gate"], "f_a_proj.weight");
        let forget = |it: &str, outputs, inputs| {
            decoder.projection(layer, &format!("{module}.{it}"), false, outputs, inputs)
        };
        let fused = decoder.name(layer, &name("conv1d.weight"));
        let weights = if decoder.config.has_tensor(&fused) {
            vec![fused]
        } else {
            ["q_conv1d", "k_conv1d", "v_conv1d"]
                .map(|it| decoder.name(layer, &name(&format!("{it}.weight"))))
                .into()
        };
        Recurrence {
            shape: self.shape,
            convolved: ["q_proj", "k_proj", "v_proj"].map(|it| of_stream(it, all)).into(),
            convolution: Convolution {
                weights,
                bias: None,
                channels: self.shape.channels(),
                taps: self.taps,
            },
            latents: Some([of_stream("g_a_proj", width), forget("f_a_proj", width, decoder.d_model)]),
            gate: vec![projection("g_b_proj", all, width)],
            decay: vec![forget("f_b_proj", all, width)],
            decay_bias: either(["dt_bias", "forget_gate.dt_bias"]),
            rate: Rate::Logarithm(either(["A_log", "forget_gate.A_log"])),
            rule: Rule::Delta { strength: vec![of_stream("b_proj", heads)], scale: 1.0, by_channel: true },
            gating: Gating {
                norm: Some(GatedNorm {
                    gain: decoder.name(layer, &name("o_norm.weight")),
                    shared: true,
                    width,
                    epsilon: self.epsilon,
                }),
                gate_first: false,
                sigmoid: true,
            },
            output: projection("o_proj", decoder.d_model, all),
        }
    }
}
