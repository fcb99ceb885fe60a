//! Gemma 1: Llama with gains stored as the difference from 1, a GELU, and embeddings multiplied with the root of their
//! width.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Traits};
use super::{Family, gemma2};
use crate::blueprint::{Activation, Blueprint, FeedForward, Mlp};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "gemma", architectures: &["GemmaForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits { activation: ("hidden_act", "gelu_pytorch_tanh"), ..gemma2::GEMMA };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| json!({"head_dim": 256}));

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = gemma2::read(config, TRAITS, &DEFAULTS)?;
    let blueprint = decoder.blueprint(|layer| {
        let gated = decoder.gated_in(layer, "mlp", decoder.d_mlp)?;
        // The first files say `gelu` and mean the approximation.
        let activation = match gated.activation {
            Activation::Gelu => Activation::GeluTanh,
            other => other,
        };
        let mlp = Mlp::Dense(FeedForward { activation, ..gated });
        decoder.block(layer, decoder.attention(layer, false)?, mlp, decoder::BEFORE)
    })?;
    let mut blueprint = gemma2::finish(&decoder, blueprint)?;
    // Logits are not capped, whatever the configuration says.
    blueprint.head.softcap = None;
    Ok(blueprint)
}
