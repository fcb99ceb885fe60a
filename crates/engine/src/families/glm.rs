//! GLM 4 (9B, 2024) and GLM Edge: GLM 4 (0414) without norms after the branches.

use super::decoder::{self, Decoder};
use super::{Family, glm4};
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "glm", architectures: &["GlmForCausalLM"], blueprint, gguf: None };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder =
        Decoder { output_bias: false, ..Decoder::read(config, glm4::TRAITS, Some(&glm4::DEFAULTS))? };
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, false)?;
        decoder.block(layer, attention, decoder.gated_in_one(layer)?, decoder::BEFORE)
    })
}
