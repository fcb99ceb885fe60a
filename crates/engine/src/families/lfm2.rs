//! LFM 2 and 2.5: gated convolutions over a few positions, attention in between; some with experts.

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Norms};
use super::gguf::{self, Gguf, Stored};
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
    gguf: Some(Gguf { architectures: &["lfm2", "lfm2moe"], config: gguf_config, tensor: stored }),
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
    let embedding = format!("{}.embed_tokens.weight", decoder.root);
    let differs = |head: &str| config.tensors_differ(head, &embedding);
    if text.flag("tie_embedding")? == Some(true) && !decoder.head.is_some_and(differs) {
        decoder.head = None;
    }
    // The reference stack does not look at it; another one means an unknown model.
    text.word("hidden_act", "silu", &[("silu", ()), ("swish", ())])?;
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

/// A gated convolution over a few positions.
pub(super) fn convolution(decoder: &Decoder<'_>, layer: usize) -> Result<ShortConvolution, ConfigError> {
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
            weights: vec![name("conv.conv.weight")],
            bias: bias.then(|| name("conv.conv.bias")),
            channels: d_model,
            taps: size_within(&decoder.config, "conv_L_cache", 3)?,
        },
        output: decoder.projection(layer, "conv.out_proj", bias, d_model, d_model),
    })
}

/// An MLP of so many hidden numbers.
pub(super) fn gated(decoder: &Decoder<'_>, layer: usize, width: usize) -> Result<Mlp, ConfigError> {
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
        softcap: None,
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

/// What GGUF files call the modules of a layer.
const MODULES: &[(&str, &str)] = &[
    ("operator_norm", "attn_norm"),
    ("ffn_norm", "ffn_norm"),
    ("self_attn.q_layernorm", "attn_q_norm"),
    ("self_attn.k_layernorm", "attn_k_norm"),
    ("self_attn.out_proj", "attn_output"),
    ("conv.in_proj", "shortconv.in_proj"),
    ("conv.conv", "shortconv.conv"),
    ("conv.out_proj", "shortconv.out_proj"),
    ("feed_forward.w1", "ffn_gate"),
    ("feed_forward.w2", "ffn_down"),
    ("feed_forward.w3", "ffn_up"),
    ("feed_forward.gate", "ffn_gate_inp"),
];

fn stored(_: &Value, name: &str) -> Option<Stored> {
    let plainly = |name: String| Some(Stored { name, row_order: None });
    if name == "model.embedding_norm.weight" {
        return plainly("token_embd_norm.weight".to_owned());
    }
    let of_layer = name.strip_prefix("model.layers.");
    if let Some(layer) = of_layer.and_then(|it| it.strip_suffix(".feed_forward.expert_bias")) {
        return plainly(format!("blk.{layer}.exp_probs_b.bias"));
    }
    gguf::stored(name, MODULES)
}

/// Layers without heads of keys and values are convolutions.
fn gguf_config(metadata: &Value, architecture: &str) -> Result<Value, ConfigError> {
    let heads = format!("{architecture}.attention.head_count_kv");
    let mut metadata = metadata.clone();
    let mut layers = None;
    if let Some(of_layers) = metadata.get(&heads).and_then(Value::as_array) {
        let attends = |it: &Value| it.as_u64() != Some(0);
        let kind = |it: &Value| if attends(it) { "full_attention" } else { "conv" };
        layers = Some(json!(of_layers.iter().map(kind).collect::<Vec<_>>()));
        metadata[&heads] = of_layers.iter().find(|it| attends(it)).cloned().unwrap_or(json!(1));
    }
    let mut config = gguf::decoder_config(&metadata, architecture)?;
    let mut insert = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(key.to_owned(), value);
        }
    };
    let theirs = |key: &str| metadata.get(format!("{architecture}.{key}")).cloned();
    insert("layer_types", layers);
    insert("norm_eps", theirs("attention.layer_norm_rms_epsilon"));
    insert("conv_L_cache", theirs("shortconv.l_cache"));
    insert("num_experts", theirs("expert_count"));
    insert("num_dense_layers", theirs("leading_dense_block_count"));
    // The width is the one that has been adjusted.
    insert("block_auto_adjust_ff_dim", Some(json!(false)));
    Ok(Value::Object(config))
}
