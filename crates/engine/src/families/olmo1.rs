//! OLMo 1: Llama with layer norms that have no numbers of their own; in some models queries, keys and values are cut off.

use super::Family;
use super::decoder::{self, Decoder, Traits};
use crate::blueprint::{Attention, Blueprint, NormKind};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "olmo1", architectures: &["OlmoForCausalLM"], blueprint, gguf: None };

/// The epsilon is no hyper-parameter, whatever a configuration says of one.
const TRAITS: Traits =
    Traits { norm: NormKind::Layer, norm_gain: false, epsilon: ("", 1e-5), ..decoder::LLAMA };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, TRAITS, None)? };
    let clip = config.number("clip_qkv")?;
    if let Some(limit) = clip.filter(|&it| it < 0.0) {
        return Err(ConfigError::unsupported("clip_qkv", limit, "numbers from 0"));
    }
    let clip = clip.map(|it| it as f32);
    decoder.blueprint(|layer| {
        let attention = Attention { clip, ..decoder.attention(layer, false)? };
        decoder.block(layer, attention, decoder.gated(layer)?, decoder::BEFORE)
    })
}
