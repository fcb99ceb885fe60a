//! Arcee's AFM: Llama with an MLP without a gate.

use super::Family;
use super::decoder::{self, Decoder, Traits};
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "arcee", architectures: &["ArceeForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits =
    Traits { epsilon: ("rms_norm_eps", 1e-5), activation: ("hidden_act", "relu2"), ..decoder::LLAMA };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, None)?;
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, false)?;
        let mlp = decoder.plain(layer, ["mlp.up_proj", "mlp.down_proj"])?;
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}
