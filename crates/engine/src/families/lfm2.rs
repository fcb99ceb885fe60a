//! LFM 2 and 2.5: gated convolutions over a few positions, attention in between; some with experts.

use super::Family;
use super::decoder::{self, Decoder, Norms};
use super::recurrent::size_within;
use crate::blueprint::{
    Attention, Block, Blueprint, Branch, Convolution, FeedForward, Mixer, Mlp, Projection, Routing, Scores,
    Share, ShortConvolution,
};
use crate::config::kind_of_layer;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "lfm2",
    architectures: &["Lfm2ForCausalLM", "Lfm2MoeForCausalLM", "Lfm2VlForConditionalGeneration"],
    blueprint,
    gguf: None,
};

const TRAITS: decoder::Traits =
    decoder::Traits { epsilon: ("norm_eps", 1e-5), theta: 1_000_000.0, tied: true, ..decoder::LLAMA };

const NORMS: Norms =
    Norms { before_attention: Some("operator_norm"), before_mlp: Some("ffn_norm"), ..decoder::BEFORE };

/// Kinds of layers.
const LAYERS: &[(&str, bool)] = &[("full_attention", true), ("conv", false)];

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let mut decoder = Decoder::read(config, TRAITS, None)?;
    let text = decoder.config;
    // Older files have another word for it.
    if decoder.head.is_some() && text.flag("tie_embedding")? == Some(true) {
        decoder.head = None;
    }
    let of_layers = text.list("layer_types")?;
    let attends = text.list("full_attn_idxs")?;
    let is_attention = |layer: usize| match (of_layers, attends) {
        (Some(list), _) => kind_of_layer(list, "layer_types", layer, LAYERS),
        (None, Some(list)) => Ok(list.iter().any(|it| it.as_u64() == Some(layer as u64))),
        (None, None) => Ok(true),
    };
    let experts = text.get("num_experts").is_some();
    let dense = if experts { text.count("num_dense_layers")?.unwrap_or(2) } else { usize::MAX };
    let width = if experts { decoder.d_mlp } else { mlp_width(&text, decoder.d_mlp)? };
    let mut blueprint = decoder.blueprint(|layer| {
        let mlp = if layer < dense { gated(&decoder, layer, width)? } else { mixture(&decoder, layer)? };
        let attention = decoder.attention(layer, false)?;
        let block = decoder.block(layer, own_attention(&decoder, layer, attention)?, mlp, NORMS)?;
        if is_attention(layer)? {
            return Ok(block);
        }
        let inner = Mixer::ShortConvolution(convolution(&decoder, layer)?);
        Ok(Block { mixer: Branch { inner, ..block.mixer }, ..block })
    })?;
    blueprint.final_norm =
        decoder.named_norm(&format!("{}.embedding_norm", decoder.root), decoder.d_model)?;
    Ok(blueprint)
}

fn own_attention(
    decoder: &Decoder<'_>,
    layer: usize,
    attention: Attention,
) -> Result<Attention, ConfigError> {
    let width = decoder.n_heads * decoder.d_head;
    Ok(Attention {
        query_norm: Some(decoder.norm(layer, "self_attn.q_layernorm", decoder.d_head)?),
        key_norm: Some(decoder.norm(layer, "self_attn.k_layernorm", decoder.d_head)?),
        output: decoder.projection(layer, "self_attn.out_proj", false, decoder.d_model, width),
        ..attention
    })
}

fn convolution(decoder: &Decoder<'_>, layer: usize) -> Result<ShortConvolution, ConfigError> {
    let d_model = decoder.d_model;
    let bias = decoder.config.flag("conv_bias")?.unwrap_or(false);
    let part = |index: usize| {
        let share = Share::part(index * d_model, 3 * d_model);
        Projection { share: Some(share), ..decoder.projection(layer, "conv.in_proj", bias, d_model, d_model) }
    };
    let name = |it: &str| decoder.name(layer, it);
    Ok(ShortConvolution {
        before: part(0),
        after: part(1),
        input: part(2),
        convolution: Convolution {
            weight: name("conv.conv.weight"),
            bias: bias.then(|| name("conv.conv.bias")),
            channels: d_model,
            taps: size_within(&decoder.config, "conv_L_cache", 3)?,
        },
        output: decoder.projection(layer, "conv.out_proj", bias, d_model, d_model),
    })
}

fn gated(decoder: &Decoder<'_>, layer: usize, width: usize) -> Result<Mlp, ConfigError> {
    let d_model = decoder.d_model;
    let projection = |name, outputs, inputs| {
        decoder.projection(layer, &format!("feed_forward.{name}"), false, outputs, inputs)
    };
    Ok(Mlp::Dense(FeedForward {
        gate: Some(projection("w1", width, d_model)),
        up: projection("w3", width, d_model),
        activation: decoder.activation()?,
        down: projection("w2", d_model, width),
    }))
}

fn mixture(decoder: &Decoder<'_>, layer: usize) -> Result<Mlp, ConfigError> {
    let config = &decoder.config;
    let routing = Routing {
        chosen: config.count("num_experts_per_tok")?.unwrap_or(4),
        scores: Scores::Sigmoid,
        groups: None,
        normalized: config.flag("norm_topk_prob")?.unwrap_or(true),
        scale: config.number("routed_scaling_factor")?.unwrap_or(1.0) as f32,
    };
    let mut experts = decoder.experts(layer, config.size("moe_intermediate_size")?, routing)?;
    if config.flag("use_expert_bias")?.unwrap_or(true) {
        experts.correction = Some(decoder.name(layer, "feed_forward.expert_bias"));
    }
    Ok(Mlp::Experts(experts))
}

/// Hidden numbers of the MLP: what the configuration says is made smaller and then a multiple of something.
fn mlp_width(config: &Config<'_>, written: usize) -> Result<usize, ConfigError> {
    let written = config.count("block_ff_dim")?.unwrap_or(written);
    if config.flag("block_auto_adjust_ff_dim")? == Some(false) {
        return Ok(written);
    }
    let width = written.saturating_mul(2) / 3;
    let factor = match config.get("block_ffn_dim_multiplier") {
        Some(value) if value.is_null() => return Ok(width),
        Some(_) => config.number("block_ffn_dim_multiplier")?.unwrap_or(1.0),
        None => 1.0,
    };
    let multiple = size_within(config, "block_multiple_of", 256)?;
    let width = (width as f64 * factor) as usize;
    if width == 0 || width > 1 << 24 {
        return Err(ConfigError::unsupported("intermediate_size", written, "what leaves an MLP some width"));
    }
    Ok(width.next_multiple_of(multiple))
}
