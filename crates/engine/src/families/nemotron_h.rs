//! Nemotron-H, Nemotron Nano 2, Nemotron 3 Nano: blocks of one branch each, a Mamba-2, attention without rotary positions, an
//! MLP without a gate, or a mixture of such.

use serde_json::{Value, json};

use super::decoder::{self, Decoder, Norms, Traits};
use super::experts::{Names, Tensors};
use super::recurrent::{Mamba, MambaNorm, size_within, step_limits};
use super::{Family, experts};
use crate::blueprint::{Attention, Block, Blueprint, Experts, Mixer, Mlp, Scores};
use crate::config::kind_of_layer;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "nemotron_h", architectures: &["NemotronHForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits {
    epsilon: ("layer_norm_epsilon", 1e-5),
    activation: ("mlp_hidden_act", "relu2"),
    ..decoder::LLAMA
};

/// What the decoder's names begin with as transformers holds it, and in files.
const ROOTS: [&str; 2] = ["model", "backbone"];

const HEAD: &str = "lm_head.weight";

/// What a block does.
#[derive(Clone, Copy)]
enum Kind {
    Mamba,
    Attention,
    Mlp,
    Experts,
}

/// Kinds of blocks in lists, as transformers 4 and 5 have them, and the letters of a pattern.
const KINDS: &[(&str, Kind)] = &[
    ("mamba", Kind::Mamba),
    ("linear_attention", Kind::Mamba),
    ("M", Kind::Mamba),
    ("attention", Kind::Attention),
    ("full_attention", Kind::Attention),
    ("*", Kind::Attention),
    ("mlp", Kind::Mlp),
    ("-", Kind::Mlp),
    ("moe", Kind::Experts),
    ("E", Kind::Experts),
];

/// What experts are called in files, and as transformers 5 holds them.
const EXPERTS: &[Tensors] = &[
    Tensors::Listed { module: "mixer.experts", names: Names::plain("up_proj", "down_proj") },
    Tensors::Stacked(Names::plain("mixer.experts.up_proj", "mixer.experts.down_proj")),
];

const NO_NORMS: Norms =
    Norms { before_attention: None, after_attention: None, before_mlp: None, after_mlp: None };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let pattern: Vec<Value>;
    let (key, kinds) = match (config.list("layers_block_type")?, config.list("layer_types")?) {
        (Some(list), _) => ("layers_block_type", list),
        (None, Some(list)) => ("layer_types", list),
        (None, None) => {
            let key = "hybrid_override_pattern";
            let text = config.text(key)?.ok_or_else(|| ConfigError::Missing { key: key.to_owned() })?;
            pattern = text.chars().map(|it| json!(it.to_string())).collect();
            (key, pattern.as_slice())
        }
    };
    let defaults = json!({
        "num_hidden_layers": kinds.len(),
        "num_experts_per_tok": 2,
        "norm_topk_prob": true,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 7688,
        "moe_shared_expert_intermediate_size": 7688,
    });
    let decoder = Decoder::read(config, TRAITS, Some(&defaults))?;
    if decoder.n_layers != kinds.len() {
        return Err(ConfigError::unsupported(
            key,
            format!("{} blocks", kinds.len()),
            format!("{} of them", decoder.n_layers),
        ));
    }
    let held = |root: &&&str| config.has_tensor(&format!("{root}.embeddings.weight"));
    let root = ROOTS.iter().find(held).unwrap_or(&ROOTS[0]);
    // The head is one of its own whatever the configuration says of ties.
    let head = config.has_tensor(HEAD).then_some(HEAD);
    let decoder = Decoder { root, head, qkv_bias: false, output_bias: false, ..decoder };
    let mamba = mamba(&decoder)?;
    let mut blueprint = decoder
        .blueprint(|layer| block(&decoder, layer, kind_of_layer(kinds, key, layer, KINDS)?, &mamba))?;
    let embedding = format!("{root}.embeddings.weight");
    if decoder.head.is_none() {
        blueprint.head.weight.clone_from(&embedding);
    }
    blueprint.embedding.weight = embedding;
    blueprint.final_norm = decoder.named_norm(&format!("{root}.norm_f"), decoder.d_model)?;
    Ok(blueprint)
}

fn block(decoder: &Decoder<'_>, layer: usize, kind: Kind, mamba: &Mamba) -> Result<Block, ConfigError> {
    let before_mixer = Norms { before_attention: Some("norm"), ..NO_NORMS };
    let before_mlp = Norms { before_mlp: Some("norm"), ..NO_NORMS };
    match kind {
        Kind::Mamba => {
            let mixer = Mixer::Recurrence(mamba.layer(decoder, layer, "mixer")?);
            decoder.block(layer, mixer, Mlp::Nothing, before_mixer)
        }
        Kind::Attention => decoder.block(layer, attention(decoder, layer)?, Mlp::Nothing, before_mixer),
        Kind::Mlp => {
            let mlp = decoder.plain(layer, ["mixer.up_proj", "mixer.down_proj"])?;
            decoder.block(layer, Mixer::Nothing, mlp, before_mlp)
        }
        Kind::Experts => {
            let mlp = Mlp::Experts(mixture(decoder, layer)?);
            decoder.block(layer, Mixer::Nothing, mlp, before_mlp)
        }
    }
}

/// Experts by logistic scores with a correction, among groups chosen by the two best of each, and one for every token.
fn mixture(decoder: &Decoder<'_>, layer: usize) -> Result<Experts, ConfigError> {
    let config = &decoder.config;
    if let Some(width) = config.count("moe_latent_size")? {
        return Err(ConfigError::unsupported("moe_latent_size", width, "none: experts that read the stream"));
    }
    let routing = experts::in_told_groups(config, Scores::Sigmoid)?;
    let width = size_within(config, "moe_intermediate_size", 1)?;
    let for_all = size_within(config, "moe_shared_expert_intermediate_size", 1)?;
    let names = ["mixer.shared_experts.up_proj", "mixer.shared_experts.down_proj"];
    Ok(Experts {
        correction: Some(decoder.name(layer, "mixer.gate.e_score_correction_bias")),
        shared: Some(decoder.plain_with(layer, names, for_all, decoder.activation()?)),
        ..decoder.experts_as(EXPERTS, layer, width, routing)?
    })
}

fn attention(decoder: &Decoder<'_>, layer: usize) -> Result<Attention, ConfigError> {
    let Decoder { n_heads, n_kv_heads, d_head, d_model, .. } = *decoder;
    let projection = |name: &str, heads: usize| {
        decoder.projection(layer, &format!("mixer.{name}"), false, heads * d_head, d_model)
    };
    Ok(Attention {
        query: projection("q_proj", n_heads),
        key: projection("k_proj", n_kv_heads),
        value: projection("v_proj", n_kv_heads),
        rope: None,
        output: decoder.projection(layer, "mixer.o_proj", false, d_model, n_heads * d_head),
        ..decoder.attention(layer, false)?
    })
}

fn mamba(decoder: &Decoder<'_>) -> Result<Mamba, ConfigError> {
    let config = &decoder.config;
    config.word("mamba_hidden_act", "silu", &[("silu", ()), ("swish", ())])?;
    // Some files have the names of other models with Mamba-2.
    let size = |key: &str, other: &str, otherwise| {
        let key = if config.get(other).is_some() { other } else { key };
        size_within(config, key, otherwise)
    };
    let of_projections = config.flag("use_bias")?.unwrap_or(false);
    let bias = config.flag("mamba_conv_bias")?.or(config.flag("use_conv_bias")?);
    // As in the code that the authors published. transformers up to 5.24 clamps by `time_step_min`, which is for drawing
    // initial biases.
    let limits = if config.get("mamba_dt_limit").is_some() { "mamba_dt_limit" } else { "time_step_limit" };
    Ok(Mamba {
        heads: size_within(config, "mamba_num_heads", 128)?,
        d_head: size_within(config, "mamba_head_dim", 64)?,
        groups: size("n_groups", "mamba_n_groups", 8)?,
        d_state: size_within(config, "ssm_state_size", 128)?,
        taps: size("conv_kernel", "mamba_d_conv", 4)?,
        convolution_bias: bias.unwrap_or(true),
        bias: of_projections,
        output_bias: of_projections,
        limits: step_limits(config, limits)?,
        multipliers: [1.0; 5],
        norm: Some(MambaNorm::behind_gate(decoder)?),
    })
}
