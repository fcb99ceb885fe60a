//! Nemotron 3 and 4, Minitron: layer norms whose gains are stored as the difference from 1, an MLP without a gate, half of
//! each head rotated.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use crate::blueprint::{Blueprint, NormKind};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "nemotron", architectures: &["NemotronForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits {
    norm: NormKind::Layer,
    norm_bias: true,
    epsilon: ("norm_eps", 1e-5),
    gain_offset: 1.0,
    partial: true,
    activation: ("hidden_act", "relu2"),
    ..decoder::LLAMA
};

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| json!({"partial_rotary_factor": 0.5}));

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, Some(&DEFAULTS))?;
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, false)?;
        let mlp = decoder.plain(layer, ["mlp.up_proj", "mlp.down_proj"])?;
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}
