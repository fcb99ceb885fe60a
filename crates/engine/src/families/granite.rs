//! Granite 3 and 4, dense: Llama with multipliers of embeddings, scores, branches and logits.

use serde_json::Value;

use super::Family;
use super::decoder::{self, Decoder};
use super::gguf::{self, Gguf};
use crate::backend::AttentionShape;
use crate::blueprint::{Attention, Block, Blueprint, Mlp};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "granite",
    architectures: &["GraniteForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["granite"],
        config: gguf_config,
        tensor: |config, name| gguf::stored_in_neighbors(config, name, &[]),
    }),
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, decoder::LLAMA, None)?;
    multiplied(&decoder, |layer| decoder.attention(layer, false), |layer| decoder.gated(layer))
}

/// The decoder with its multipliers, whatever its attention and its MLPs are.
pub(super) fn multiplied(
    decoder: &Decoder<'_>,
    attention: impl Fn(usize) -> Result<Attention, ConfigError>,
    mlp: impl Fn(usize) -> Result<Mlp, ConfigError>,
) -> Result<Blueprint, ConfigError> {
    let blueprint = decoder.blueprint(|layer| {
        let attention = scaled(decoder, attention(layer)?)?;
        branches(decoder, decoder.block(layer, attention, mlp(layer)?, decoder::BEFORE)?)
    })?;
    finish(decoder, blueprint)
}

fn multiplier(decoder: &Decoder<'_>, key: &str) -> Result<f64, ConfigError> {
    Ok(decoder.config.number(key)?.unwrap_or(1.0))
}

/// Attention with the multiplier of scores.
pub(super) fn scaled(decoder: &Decoder<'_>, attention: Attention) -> Result<Attention, ConfigError> {
    let scale = multiplier(decoder, "attention_multiplier")? as f32;
    Ok(Attention { shape: AttentionShape { scale, ..attention.shape }, ..attention })
}

/// A block with the multiplier of branches.
pub(super) fn branches(decoder: &Decoder<'_>, mut block: Block) -> Result<Block, ConfigError> {
    let residual = multiplier(decoder, "residual_multiplier")? as f32;
    (block.mixer.scale, block.mlp.scale) = (residual, residual);
    Ok(block)
}

/// All of it with the multipliers of embeddings and logits.
pub(super) fn finish(decoder: &Decoder<'_>, mut blueprint: Blueprint) -> Result<Blueprint, ConfigError> {
    blueprint.embedding.scale = multiplier(decoder, "embedding_multiplier")? as f32;
    blueprint.head.scale = (1.0 / multiplier(decoder, "logits_scaling")?) as f32;
    Ok(blueprint)
}

pub(super) fn gguf_config(metadata: &Value, architecture: &str) -> Result<Value, ConfigError> {
    let mut config = gguf::decoder_config(metadata, architecture)?;
    for (theirs, ours) in [
        ("attention.scale", "attention_multiplier"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("logit_scale", "logits_scaling"),
    ] {
        if let Some(value) = metadata.get(format!("{architecture}.{theirs}")) {
            config.insert(ours.to_owned(), value.clone());
        }
    }
    Ok(Value::Object(config))
}
