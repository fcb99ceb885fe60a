//! Gemma 4: Gemma 3 with heads of another width in the layers that see everything, norms of values, scores that are not
//! scaled, and a factor for the stream at the end of each block. The last layers may read keys and values of layers before
//! them, every layer may have an embedding of its own, and experts beside its MLP. Alone, or the language model of a
//! container.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, FULL, SLIDING, Traits};
use super::gemma2;
use crate::backend::AttentionShape;
use crate::blueprint::{
    Attention, Beside, Block, Blueprint, Branch, Gain, Memory, Mlp, Norm, Pairing, PerLayer,
    PerLayerEmbedding, Projection, Rope, Routing, Share,
};
use crate::config::NoTensors;
use crate::rope::{plain_rope, rope};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "gemma4",
    architectures: &["Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"],
    blueprint,
    gguf: None,
};

/// The family of Gemma 4 without towers: images and sound are projected into the stream. Its layers have no embeddings of
/// their own.
pub(super) const UNIFIED: Family = Family {
    name: "gemma4_unified",
    architectures: &["Gemma4UnifiedForCausalLM", "Gemma4UnifiedForConditionalGeneration"],
    blueprint: |config| read(config, &UNIFIED_DEFAULTS, |_| Ok(None)),
    gguf: None,
};

const TRAITS: Traits = Traits { gain_offset: 0.0, ..gemma2::GEMMA };

// The language model of a container writes down only what is not usual.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 262_144,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 30,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "global_head_dim": 512,
        "max_position_embeddings": 131_072,
        "sliding_window": 512,
        "vocab_size_per_layer_input": 262_144,
        "hidden_size_per_layer_input": 256,
    })
});

static UNIFIED_DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    let mut defaults = DEFAULTS.clone();
    defaults["max_position_embeddings"] = json!(262_144);
    defaults["sliding_window"] = json!(1024);
    defaults
});

/// How layers are rotated where the configuration does not say.
static ROTATION: LazyLock<Value> = LazyLock::new(|| {
    json!({"rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
    }})
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    read(config, &DEFAULTS, per_layer_embedding)
}

/// The model; `per_layer` reads the table of the layers' own embeddings.
fn read<'a>(
    config: &Config<'a>,
    defaults: &'a Value,
    per_layer: fn(&Decoder<'_>) -> Result<Option<PerLayerEmbedding>, ConfigError>,
) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, Some(defaults))?;
    let text = &decoder.config;
    // Of a container's images; text is read from the left in either case.
    text.word("use_bidirectional_attention", "vision", &[("vision", ())])?;
    let layers = Layer::all(&decoder)?;
    let per_layer = per_layer(&decoder)?;
    let vocab = text.size("vocab_size")?;
    if let Some(tokens) = per_layer.as_ref().map(|it| it.tokens).filter(|&it| it < vocab) {
        let known = format!("numbers from vocab_size = {vocab}");
        return Err(ConfigError::unsupported("vocab_size_per_layer_input", tokens, known));
    }
    let blueprint = decoder.blueprint(|index| {
        let layer = &layers[index];
        let block = decoder.block(index, layer.attention(&layers)?, layer.mlp()?, decoder::AROUND)?;
        let width = per_layer.as_ref().map(|it| it.width);
        let branch = width.map(|it| per_layer_branch(&decoder, index, it)).transpose()?;
        Ok(Block { per_layer: branch, scale: scalar(&decoder, index)?, ..block })
    })?;
    gemma2::finish(&decoder, Blueprint { per_layer, ..blueprint })
}

/// A layer, and the decoder as it sees it: with its own heads.
struct Layer<'a> {
    index: usize,
    decoder: Decoder<'a>,
    slides: bool,
    memory: Memory,
}

impl<'a> Layer<'a> {
    fn all(decoder: &Decoder<'a>) -> Result<Vec<Self>, ConfigError> {
        const PATTERN: usize = 6;
        let last = decoder.n_layers - 1;
        let mut layers: Vec<Self> = Vec::new();
        for index in 0..decoder.n_layers {
            // The last layer sees everything, whatever the list says of it.
            let slides =
                index != last && decoder.slides(index, |layer| !(layer + 1).is_multiple_of(PATTERN))?;
            let (n_kv_heads, d_head) = heads(&decoder.config, index, slides)?;
            let decoder = Decoder { n_kv_heads, d_head, ..*decoder };
            let memory = memory(&decoder, index, |it| {
                let it = &layers[it];
                let heads = (it.decoder.n_kv_heads, it.decoder.d_head);
                (it.slides == slides).then_some(heads == (n_kv_heads, d_head))
            })?;
            layers.push(Self { index, decoder, slides, memory });
        }
        Ok(layers)
    }

    fn attention(&self, layers: &[Self]) -> Result<Attention, ConfigError> {
        let Self { index, decoder, slides, memory } = self;
        let mut attention = attention(decoder, *index, *slides)?;
        attention.rope = Some(rotation(decoder, *slides)?);
        if let Memory::Of(source) = *memory {
            return Ok(reading_from(source, attention, layers[source].attention(layers)?));
        }
        let keys_are_values = decoder.config.flag("attention_k_eq_v")? == Some(true) && !slides;
        if keys_are_values {
            attention.value = attention.key.clone();
        }
        Ok(attention)
    }

    fn mlp(&self) -> Result<Mlp, ConfigError> {
        let Decoder { config, d_mlp, .. } = &self.decoder;
        let wide = self.memory != Memory::Own && config.flag("use_double_wide_mlp")? == Some(true);
        let width = if wide { d_mlp.saturating_mul(2) } else { *d_mlp };
        let dense = self.decoder.gated_in(self.index, "mlp", width)?;
        if config.flag("enable_moe_block")? != Some(true) {
            return Ok(Mlp::Dense(dense));
        }
        let d_model = self.decoder.d_model;
        let norm = |name| self.decoder.norm(self.index, name, d_model);
        let experts_pre_norm = norm("pre_feedforward_layernorm_2")?;
        let gain = Gain::Scaled {
            tensor: self.decoder.name(self.index, "router.scale"),
            by: (1.0 / (d_model as f64).sqrt()) as f32,
        };
        let routing = Routing::by_softmax(config.size("top_k_experts")?);
        let width = config.size("moe_intermediate_size")?;
        Ok(Mlp::Beside(Beside {
            dense,
            dense_norm: norm("post_feedforward_layernorm_1")?,
            experts: self.decoder.experts(self.index, width, routing)?,
            router_norm: Norm { gain, ..experts_pre_norm.clone() },
            experts_pre_norm,
            experts_post_norm: norm("post_feedforward_layernorm_2")?,
            share_scales: self.decoder.name(self.index, "router.per_expert_scale"),
        }))
    }
}

/// A layer's attention with norms of queries, keys and values, and scores as they are.
pub(super) fn attention(decoder: &Decoder<'_>, index: usize, slides: bool) -> Result<Attention, ConfigError> {
    let attention = decoder.attention(index, slides)?;
    let head_norm = |name| decoder.norm(index, name, decoder.d_head);
    let key_norm = head_norm("self_attn.k_norm")?;
    Ok(Attention {
        shape: AttentionShape { scale: 1.0, ..attention.shape },
        query_norm: Some(head_norm("self_attn.q_norm")?),
        value_norm: Some(Norm { gain: Gain::Ones, ..key_norm.clone() }),
        key_norm: Some(key_norm),
        ..attention
    })
}

/// Attention to the keys and values of another layer, whose own is `other`.
pub(super) fn reading_from(source: usize, own: Attention, other: Attention) -> Attention {
    let Attention { shape, query, output, query_norm, rope, .. } = own;
    Attention { shape, query, output, query_norm, rope, memory: Memory::Of(source), ..other }
}

/// Whose keys and values a layer attends to: the last ones read those of the last layer of their kind before them.
/// `alike` tells of an earlier layer whether its heads are as wide and as many, if it is of the same kind.
pub(super) fn memory(
    decoder: &Decoder<'_>,
    index: usize,
    alike: impl Fn(usize) -> Option<bool>,
) -> Result<Memory, ConfigError> {
    const KEY: &str = "num_kv_shared_layers";
    let shared = decoder.config.count(KEY)?.unwrap_or(0);
    let first_shared = decoder.n_layers.saturating_sub(shared);
    if index < first_shared {
        return Ok(Memory::Own);
    }
    let source = (0..first_shared).rev().find(|&it| alike(it).is_some());
    source.filter(|&it| alike(it) == Some(true)).map(Memory::Of).ok_or_else(|| {
        let known = format!("numbers that leave layer {index} one of its own kind to read from");
        ConfigError::unsupported(KEY, shared, known)
    })
}

/// Key/value heads of a layer, and how wide its heads are.
///
/// As transformers 5.23 writes it, `per_layer_config` has what is otherwise than for most; earlier files have two keys
/// for the layers that see everything.
fn heads(text: &Config<'_>, index: usize, slides: bool) -> Result<(usize, usize), ConfigError> {
    let mut own = json!({
        "num_attention_heads": text.size("num_attention_heads")?,
        "num_key_value_heads": text.size("num_key_value_heads")?,
        "head_dim": text.size("head_dim")?,
    });
    if let Some(layers) = text.get("per_layer_config").and_then(Value::as_object) {
        let layer = layers.iter().find(|it| it.0.parse() == Ok(index));
        for (key, value) in layer.and_then(|it| it.1.as_object()).into_iter().flatten() {
            if !["num_key_value_heads", "head_dim"].contains(&key.as_str()) {
                return Err(ConfigError::unsupported(
                    &format!("per_layer_config.{index}"),
                    key,
                    "`num_key_value_heads`, `head_dim`",
                ));
            }
            own[key] = value.clone();
        }
    } else if !slides {
        own["head_dim"] = json!(text.size("global_head_dim")?);
        let fewer = text.get("num_global_key_value_heads");
        if let (Some(heads), Some(true)) = (fewer, text.flag("attention_k_eq_v")?) {
            own["num_key_value_heads"] = heads.clone();
        }
    }
    decoder::heads(&Config::new(&own, &NoTensors)).map(|it| (it.1, it.2))
}

/// The rotary embedding of layers that slide or do not. One that is not scaled is of whole heads.
fn rotation(decoder: &Decoder<'_>, slides: bool) -> Result<Rope, ConfigError> {
    let said = decoder.config.section("rope_parameters").is_some();
    let config = if said { decoder.config } else { Config::new(&ROTATION, &NoTensors) };
    let kind = if slides { SLIDING } else { FULL };
    let own = config.section("rope_parameters").and_then(|it| it.section(kind));
    let plain = own.map(|it| it.text("rope_type")).transpose()?.flatten().unwrap_or("default") == "default";
    let theta = own.map(|it| it.number("rope_theta")).transpose()?.flatten();
    match theta {
        Some(theta) if plain => Ok(plain_rope(decoder.d_head, theta, Pairing::Halves)),
        _ => rope(&config, kind, decoder.d_head, decoder.traits.theta, Pairing::Halves, true),
    }
}

/// The table of all layers' embeddings, unless the model has none.
pub(super) fn per_layer_embedding(decoder: &Decoder<'_>) -> Result<Option<PerLayerEmbedding>, ConfigError> {
    const WIDTH: &str = "hidden_size_per_layer_input";
    let text = &decoder.config;
    if text.count(WIDTH)?.unwrap_or(0) == 0 {
        return Ok(None);
    }
    let width = text.size(WIDTH)?;
    Ok(Some(PerLayerEmbedding {
        weight: format!("{}.embed_tokens_per_layer.weight", decoder.root),
        tokens: text.size("vocab_size_per_layer_input")?,
        width,
        // Rows are made as long as the root of their width, and halved in power with what is added to them.
        scale: (width as f64 / 2.0).sqrt() as f32,
    }))
}

/// What a layer adds for the token alone.
pub(super) fn per_layer_branch(
    decoder: &Decoder<'_>,
    index: usize,
    width: usize,
) -> Result<Branch<PerLayer>, ConfigError> {
    let Decoder { root, d_model, n_layers, .. } = *decoder;
    let norm = decoder.named_norm(&format!("{root}.per_layer_projection_norm"), width)?;
    let share = Share::part(index.saturating_mul(width), n_layers.saturating_mul(width));
    let context = Projection {
        weight: format!("{root}.per_layer_model_projection.weight"),
        share: Some(share),
        bias: None,
        scale: 1.0,
        outputs: width,
        inputs: d_model,
    };
    Ok(Branch {
        pre_norm: None,
        inner: PerLayer {
            gate: decoder.projection(index, "per_layer_input_gate", false, width, d_model),
            activation: decoder.activation()?,
            context,
            // The projection is divided by the root of d_model before the norm: the same as a larger epsilon.
            context_norm: Norm { epsilon: norm.epsilon * d_model as f32, ..norm },
            context_scale: std::f32::consts::FRAC_1_SQRT_2,
            projection: decoder.projection(index, "per_layer_projection", false, d_model, width),
        },
        post_norm: Some(decoder.norm(index, "post_per_layer_input_norm", d_model)?),
        scale: 1.0,
    })
}

/// What a layer multiplies the stream with at its end.
fn scalar(decoder: &Decoder<'_>, index: usize) -> Result<f32, ConfigError> {
    let name = decoder.name(index, "layer_scalar");
    match decoder.config.tensor_values(&name).as_deref() {
        None => Ok(1.0),
        Some(&[scalar]) if scalar.is_finite() => Ok(scalar),
        Some(values) => Err(ConfigError::unsupported(
            &name,
            values.first().map_or("nothing".to_owned(), |it| format!("{it} of {}", values.len())),
            "one finite number",
        )),
    }
}
