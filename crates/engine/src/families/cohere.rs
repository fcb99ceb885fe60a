//! Command R and R7B (Cohere, Cohere 2), Aya: both branches read the same layer norm and write to the stream together;
//! neighbouring pairs are rotated; logits are multiplied.
//!
//! Cohere 2 gives most layers a window, and only those rotate.

use serde_json::Value;

use super::Family;
use super::decoder::{self, Decoder, Norms, Traits};
use super::gguf::{self, Gguf};
use crate::blueprint::{Arrangement, Attention, Blueprint, Gain, Norm, NormKind, Pairing};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "cohere",
    architectures: &["CohereForCausalLM", "Cohere2ForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["command-r", "cohere2"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| gguf::stored(name, &[]),
    }),
};

const TRAITS: Traits = Traits {
    norm: NormKind::Layer,
    epsilon: ("layer_norm_eps", 1e-5),
    pairing: Pairing::Neighbors,
    tied: true,
    ..decoder::LLAMA
};

const NORMS: Norms = Norms { before_mlp: None, ..decoder::BEFORE };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    const PATTERN: usize = 4;
    const LOGIT_SCALE: f64 = 0.0625;
    // Only the second has windows, whatever the configuration of the first says.
    let first = config.architecture() == "CohereForCausalLM";
    let decoder = Decoder::read(
        config,
        Traits { theta: if first { 500_000.0 } else { TRAITS.theta }, ..TRAITS },
        None,
    )?;
    let pattern = config.count("sliding_window_pattern")?.unwrap_or(PATTERN);
    let windows = !first && config.count("sliding_window")?.is_some();
    // GGUF files say it only by the tensors that they have.
    let there = || config.has_tensor("model.layers.0.self_attn.q_norm.weight");
    let head_norms = config.flag("use_qk_norm")?.unwrap_or_else(there);
    let head_norm = |layer, name, heads| -> Result<Option<Norm>, ConfigError> {
        let norm = decoder.norm(layer, name, decoder.d_head)?;
        let tensor = norm.shared_gain().map(str::to_owned);
        Ok(tensor.filter(|_| head_norms).map(|tensor| Norm { gain: Gain::Rows { tensor, heads }, ..norm }))
    };
    let mut blueprint = decoder.blueprint(|layer| {
        let slides = windows && decoder.slides(layer, |layer| !(layer + 1).is_multiple_of(pattern))?;
        let attention = decoder.attention(layer, slides)?;
        let attention = Attention {
            query_norm: head_norm(layer, "self_attn.q_norm", decoder.n_heads)?,
            key_norm: head_norm(layer, "self_attn.k_norm", decoder.n_kv_heads)?,
            rope: attention.rope.filter(|_| slides || !windows),
            ..attention
        };
        let mut block = decoder.block(layer, attention, decoder.gated(layer)?, NORMS)?;
        block.arrangement = Arrangement::Parallel;
        Ok(block)
    })?;
    blueprint.head.scale = config.number("logit_scale")?.unwrap_or(LOGIT_SCALE) as f32;
    Ok(blueprint)
}
