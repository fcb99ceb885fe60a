//! OLMoE: experts in every layer, norms over all queries and over all keys, which some models cut off.

use serde_json::Value;

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::gguf::{self, Gguf};
use crate::blueprint::{Attention, Blueprint, Mlp, Routing, Scores};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "olmoe",
    architectures: &["OlmoeForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["olmoe"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| gguf::stored(name, &[]),
    }),
};

const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), ..decoder::LLAMA };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    const CHOSEN: usize = 8; // the reference stack's default
    let decoder = Decoder::read(config, TRAITS, None)?;
    let clip = config.number("clip_qkv")?.map(|it| it as f32);
    if let Some(clip) = clip.filter(|&it| it <= 0.0) {
        return Err(ConfigError::unsupported("clip_qkv", clip, "numbers above 0"));
    }
    let routing = Routing {
        chosen: config.count("num_experts_per_tok")?.unwrap_or(CHOSEN),
        softcap: None,
        scores: Scores::Softmax,
        groups: None,
        normalized: config.flag("norm_topk_prob")?.unwrap_or(false),
        scale: 1.0,
    };
    decoder.blueprint(|layer| {
        let attention = Attention {
            query_norm: Some(decoder.norm(layer, "self_attn.q_norm", decoder.n_heads * decoder.d_head)?),
            key_norm: Some(decoder.norm(layer, "self_attn.k_norm", decoder.n_kv_heads * decoder.d_head)?),
            clip,
            ..decoder.attention(layer, false)?
        };
        let mlp = Mlp::Experts(decoder.experts(layer, decoder.d_mlp, routing)?);
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}
