//! MiniMax M2: experts by logistic scores with a correction, norms over all queries and over all keys, a part of each head
//! rotated.

use serde_json::json;

use super::Family;
use super::decoder::{self, Decoder, Traits, heads};
use crate::blueprint::{Attention, Blueprint, Experts, Mlp, Routing, Scores};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "minimax_m2", architectures: &["MiniMaxM2ForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits { theta: 5_000_000.0, partial: true, ..decoder::LLAMA };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    // The released models say how many numbers of a head are rotated, not which part.
    let rotated = config.count("rotary_dim")?;
    let part = rotated.map(|it| Ok(it as f64 / heads(config)?.2 as f64)).transpose()?;
    let defaults = json!({"partial_rotary_factor": part});
    let decoder = Decoder::read(config, TRAITS, Some(&defaults))?;
    let decoder = Decoder { qkv_bias: false, output_bias: false, ..decoder };
    let routing = Routing {
        chosen: config.size("num_experts_per_tok")?,
        softcap: None,
        scores: Scores::Sigmoid,
        groups: None,
        normalized: true,
        scale: 1.0,
    };
    decoder.blueprint(|layer| {
        let attention = Attention {
            query_norm: Some(decoder.norm(layer, "self_attn.q_norm", decoder.n_heads * decoder.d_head)?),
            key_norm: Some(decoder.norm(layer, "self_attn.k_norm", decoder.n_kv_heads * decoder.d_head)?),
            ..decoder.attention(layer, false)?
        };
        let mlp =
            Mlp::Experts(Experts {
                correction: Some(decoder.either(
                    layer,
                    ["block_sparse_moe.e_score_correction_bias", "mlp.e_score_correction_bias"],
                )),
                ..decoder.experts(layer, decoder.d_mlp, routing)?
            });
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}
