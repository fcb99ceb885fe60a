//! Gemma 2: norms before and after both branches, gains stored as the difference from 1, soft caps, every other layer
//! with a window, embeddings multiplied with the root of their width.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::gguf::{self, Gguf};
use crate::backend::AttentionShape;
use crate::blueprint::{Attention, Blueprint};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "gemma2",
    architectures: &["Gemma2ForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["gemma2"],
        config: |metadata, architecture| {
            const LAYERS_OF_27B: u64 = 46;
            gguf_config(metadata, architecture, LAYERS_OF_27B)
        },
        tensor: |_, name| gguf::stored(name, gguf::NORMS_AROUND),
    }),
};

/// What Gemma 2 and later have in common.
pub(super) const GEMMA: Traits = Traits {
    gain_offset: 1.0,
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    tied: true,
    ..decoder::LLAMA
};

static DEFAULTS: LazyLock<Value> = LazyLock::new(
    || json!({"query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
);

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = read(config, GEMMA, &DEFAULTS)?;
    let blueprint = decoder.blueprint(|layer| {
        let slides = decoder.slides(layer, |layer| layer.is_multiple_of(2))?;
        let attention = attention(&decoder, layer, slides)?;
        decoder.block(layer, attention, decoder.gated(layer)?, decoder::AROUND)
    })?;
    finish(&decoder, blueprint)
}

/// The sizes of a Gemma.
pub(super) fn read<'a>(
    config: &Config<'a>,
    traits: Traits,
    defaults: &'a Value,
) -> Result<Decoder<'a>, ConfigError> {
    // Set by the converter of GGUF files, where the 1 is already in the gains.
    let gain_offset = config.number(STORED_OFFSET)?.map_or(traits.gain_offset, |it| it as f32);
    let decoder = Decoder::read(config, Traits { gain_offset, ..traits }, Some(defaults))?;
    decoder::refuse_flag(&decoder.config, "use_bidirectional_attention")?;
    Ok(decoder)
}

/// The attention of a layer, its scores scaled and capped.
pub(super) fn attention(decoder: &Decoder<'_>, layer: usize, slides: bool) -> Result<Attention, ConfigError> {
    let attention = decoder.attention(layer, slides)?;
    let scalar = decoder.config.number("query_pre_attn_scalar")?;
    let shape = AttentionShape {
        scale: scalar.map_or(attention.shape.scale, |it| (1.0 / it.sqrt()) as f32),
        softcap: decoder.config.number("attn_logit_softcapping")?.map(|it| it as f32),
        ..attention.shape
    };
    Ok(Attention { shape, ..attention })
}

/// The scale of the embeddings and the soft cap of the logits.
pub(super) fn finish(decoder: &Decoder<'_>, mut blueprint: Blueprint) -> Result<Blueprint, ConfigError> {
    blueprint.embedding.scale = (decoder.d_model as f64).sqrt() as f32;
    blueprint.head.softcap = decoder.config.number("final_logit_softcapping")?.map(|it| it as f32);
    Ok(blueprint)
}

const STORED_OFFSET: &str = "gguf.gain_offset";

/// Hyper-parameters of a GGUF file. They do not say what scores are divided by: the root of the width of a head, but
/// for the models of one size, known by their number of layers, where it is that of the stream for each head.
pub(super) fn gguf_config(metadata: &Value, architecture: &str, layers: u64) -> Result<Value, ConfigError> {
    let mut config = gguf::decoder_config(metadata, architecture)?;
    config.insert(STORED_OFFSET.to_owned(), json!(0.0));
    let mut value = Value::Object(config);
    let number = |key: &str| value.get(key).and_then(Value::as_f64);
    let wide = value.get("num_hidden_layers").and_then(Value::as_u64) == Some(layers);
    let scalar = match (wide, number("hidden_size"), number("num_attention_heads"), number("head_dim")) {
        (true, Some(d_model), Some(heads), _) => Some(d_model / heads),
        (_, _, _, d_head) => d_head,
    };
    value["query_pre_attn_scalar"] = json!(scalar);
    // Absent means that there is none.
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if value.get(key).is_none() {
            value[key] = Value::Null;
        }
    }
    Ok(value)
}
