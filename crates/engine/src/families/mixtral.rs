//! Mixtral: Mistral with experts in every layer.

use super::Family;
use super::decoder::{self, Decoder};
use crate::blueprint::{Blueprint, Mlp, Routing, Scores};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "mixtral", architectures: &["MixtralForCausalLM"], blueprint, gguf: None };

const TRAITS: decoder::Traits =
    decoder::Traits { epsilon: ("rms_norm_eps", 1e-5), theta: 1_000_000.0, ..decoder::LLAMA };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, None)?;
    let routing = Routing {
        chosen: config.count("num_experts_per_tok")?.unwrap_or(2),
        scores: Scores::Softmax,
        groups: None,
        normalized: true,
        scale: 1.0,
    };
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, true)?;
        let mlp = Mlp::Experts(decoder.experts(layer, decoder.d_mlp, routing)?);
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}
