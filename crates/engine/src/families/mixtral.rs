//! Mixtral: Mistral with experts in every layer. Its GGUF files are Llama's, see [`super::llama`].

use super::Family;
use super::decoder::{self, Decoder};
use crate::blueprint::{Blueprint, Mlp, Routing};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "mixtral", architectures: &["MixtralForCausalLM"], blueprint, gguf: None };

const TRAITS: decoder::Traits =
    decoder::Traits { epsilon: ("rms_norm_eps", 1e-5), theta: 1_000_000.0, ..decoder::LLAMA };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, None)?;
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, true)?;
        decoder.block(layer, attention, mlp(&decoder, layer)?, decoder::BEFORE)
    })
}

/// A layer's experts, two of which a token is sent to where nothing is said.
pub(super) fn mlp(decoder: &Decoder<'_>, layer: usize) -> Result<Mlp, ConfigError> {
    let routing = Routing::by_softmax(decoder.config.count("num_experts_per_tok")?.unwrap_or(2));
    Ok(Mlp::Experts(decoder.experts(layer, decoder.d_mlp, routing)?))
}
