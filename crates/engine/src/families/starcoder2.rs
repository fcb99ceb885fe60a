//! StarCoder 2: layer norms, biases everywhere or nowhere but in those, an MLP without a gate, in some models a window.

use super::Family;
use super::decoder::{self, Decoder, Traits};
use crate::blueprint::{Blueprint, NormKind};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "starcoder2", architectures: &["Starcoder2ForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits {
    norm: NormKind::Layer,
    norm_bias: true,
    epsilon: ("norm_epsilon", 1e-5),
    activation: ("hidden_act", "gelu_pytorch_tanh"),
    tied: true,
    ..decoder::LLAMA
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let bias = config.flag("use_bias")?.unwrap_or(true);
    let decoder =
        Decoder { qkv_bias: bias, output_bias: bias, mlp_bias: bias, ..Decoder::read(config, TRAITS, None)? };
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, true)?;
        let mlp = decoder.plain(layer, ["mlp.c_fc", "mlp.c_proj"])?;
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}
