//! Granite 3 and 4, dense: Llama with multipliers of embeddings, scores, branches and logits.

use serde_json::Value;

use super::Family;
use super::decoder::{self, Decoder};
use super::gguf::{self, Gguf};
use crate::backend::AttentionShape;
use crate::blueprint::{Attention, Blueprint, Mlp};
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
    multiplied(config, &decoder, |layer| decoder.gated(layer))
}

/// The decoder with its multipliers, whatever its MLPs are.
pub(super) fn multiplied(
    config: &Config<'_>,
    decoder: &Decoder<'_>,
    mlp: impl Fn(usize) -> Result<Mlp, ConfigError>,
) -> Result<Blueprint, ConfigError> {
    let multiplier = |key: &str| Ok::<_, ConfigError>(config.number(key)?.unwrap_or(1.0));
    let scale = multiplier("attention_multiplier")? as f32;
    let residual = multiplier("residual_multiplier")? as f32;
    let mut blueprint = decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, false)?;
        let attention = Attention { shape: AttentionShape { scale, ..attention.shape }, ..attention };
        let mut block = decoder.block(layer, attention, mlp(layer)?, decoder::BEFORE)?;
        (block.mixer.scale, block.mlp.scale) = (residual, residual);
        Ok(block)
    })?;
    blueprint.embedding.scale = multiplier("embedding_multiplier")? as f32;
    blueprint.head.scale = (1.0 / multiplier("logits_scaling")?) as f32;
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
