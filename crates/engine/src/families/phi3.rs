//! Phi 3 and 4: Llama with one tensor of queries, keys and values and one of gate and up projection, and a rotary
//! embedding whose frequencies are divided one by one.

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder};
use super::gguf::{self, Gguf, Stored};
use crate::blueprint::{Attention, Blueprint};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "phi3",
    architectures: &["Phi3ForCausalLM"],
    blueprint,
    gguf: Some(Gguf { architectures: &["phi3"], config: gguf_config, tensor: gguf_tensor }),
};

/// The divisors of the rotary frequencies, and their magnitude, in GGUF files.
const SHORT_FACTORS: &str = "rope_factors_short.weight";

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let traits = decoder::Traits { partial: true, ..decoder::LLAMA };
    let decoder = Decoder::read(config, traits, None)?;
    decoder.blueprint(|layer| {
        // Every layer has the window; lists of kinds of layers are not looked at.
        let mut attention = decoder.attention(layer, true)?;
        if let (Some(rope), Some(divisors)) = (&mut attention.rope, config.tensor_values(SHORT_FACTORS)) {
            if divisors.len() != rope.frequencies.len() {
                return Err(ConfigError::unsupported(
                    SHORT_FACTORS,
                    format!("{} numbers", divisors.len()),
                    format!("one for each of the {} rotated pairs", rope.frequencies.len()),
                ));
            }
            rope.frequencies.iter_mut().zip(divisors).for_each(|(frequency, divisor)| *frequency /= divisor);
            rope.magnitude = config.number("gguf.attn_factor")?.unwrap_or(1.0) as f32;
            rope.limit = config.count("original_max_position_embeddings")?;
        }
        let (queries, keys) = (decoder.n_heads * decoder.d_head, decoder.n_kv_heads * decoder.d_head);
        let all = queries + 2 * keys;
        let part = |first, outputs| decoder.part(layer, "self_attn.qkv_proj", first, outputs, all);
        let attention = Attention {
            query: part(0, queries),
            key: part(queries, keys),
            value: part(queries + keys, keys),
            ..attention
        };
        decoder.block(layer, attention, decoder.gated_in_one(layer)?, decoder::BEFORE)
    })
}

fn gguf_config(metadata: &Value, architecture: &str) -> Result<Value, ConfigError> {
    let mut config = gguf::decoder_config(metadata, architecture)?;
    for (theirs, ours) in [
        ("rope.scaling.original_context_length", "original_max_position_embeddings"),
        ("rope.scaling.attn_factor", "gguf.attn_factor"),
    ] {
        let value = metadata.get(format!("{architecture}.{theirs}")).cloned().unwrap_or(json!(null));
        config.insert(ours.to_owned(), value);
    }
    Ok(Value::Object(config))
}

fn gguf_tensor(_: &Value, name: &str) -> Option<Stored> {
    if name == SHORT_FACTORS {
        return Some(Stored { name: name.to_owned(), row_order: None });
    }
    gguf::stored(name, &[])
}
