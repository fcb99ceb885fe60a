//! Helium: Llama with neighbouring pairs of each head rotated.

use super::Family;
use super::decoder::{self, Decoder, Traits};
use crate::blueprint::{Blueprint, Pairing};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "helium", architectures: &["HeliumForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits {
    epsilon: ("rms_norm_eps", 1e-8),
    theta: 100_000.0,
    pairing: Pairing::Neighbors,
    ..decoder::LLAMA
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder { output_bias: false, ..Decoder::read(config, TRAITS, None)? };
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, false)?;
        decoder.block(layer, attention, decoder.gated(layer)?, decoder::BEFORE)
    })
}
