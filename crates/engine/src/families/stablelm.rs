//! StableLM 2 and StableLM 3B: layer norms with biases, a part of each head rotated; in some models both branches read
//! the same norm, and each query and key head has a norm of its own.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Norms, Traits};
use crate::blueprint::{Arrangement, Attention, Blueprint, Gain, Norm, NormKind};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "stablelm", architectures: &["StableLmForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits {
    norm: NormKind::Layer,
    norm_bias: true,
    partial: true,
    epsilon: ("layer_norm_eps", 1e-5),
    ..decoder::LLAMA
};

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| json!({"partial_rotary_factor": 0.25}));

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let flag = |key: &str| Ok::<_, ConfigError>(config.flag(key)?.unwrap_or(false));
    let (parallel, head_norms) = (flag("use_parallel_residual")?, flag("qk_layernorm")?);
    let decoder = Decoder {
        qkv_bias: flag("use_qkv_bias")?,
        output_bias: false,
        ..Decoder::read(config, TRAITS, Some(&DEFAULTS))?
    };
    let head_norm = |layer, name: &str, heads| -> Result<Option<Norm>, ConfigError> {
        let norm = |head| decoder.norm(layer, &format!("self_attn.{name}.norms.{head}"), decoder.d_head);
        let gain = |head| Ok(norm(head)?.shared_gain().map(str::to_owned));
        let gains: Vec<Option<String>> = (0..heads).map(gain).collect::<Result<_, ConfigError>>()?;
        let gain = Gain::Each(gains.into_iter().flatten().collect());
        let norm = norm(0)?;
        Ok(head_norms.then_some(Norm { gain, bias: None, ..norm }))
    };
    let norms = if parallel { Norms { before_mlp: None, ..decoder::BEFORE } } else { decoder::BEFORE };
    decoder.blueprint(|layer| {
        let attention = Attention {
            query_norm: head_norm(layer, "q_layernorm", decoder.n_heads)?,
            key_norm: head_norm(layer, "k_layernorm", decoder.n_kv_heads)?,
            ..decoder.attention(layer, false)?
        };
        let mut block = decoder.block(layer, attention, decoder.gated(layer)?, norms)?;
        if parallel {
            block.arrangement = Arrangement::Parallel;
        }
        Ok(block)
    })
}
