//! Qwen 3 with experts: attention as in Qwen 3; some layers may be dense.

use super::decoder::{self, Decoder};
use super::{Family, qwen3};
use crate::blueprint::{Blueprint, Mlp, Routing, Scores};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "qwen3_moe", architectures: &["Qwen3MoeForCausalLM"], blueprint, gguf: None };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, decoder::LLAMA, None)?;
    let (step, dense) = (config.count("decoder_sparse_step")?.unwrap_or(1), config.list("mlp_only_layers")?);
    let is_dense = |layer: usize| {
        let listed = dense.is_some_and(|it| it.iter().any(|it| it.as_u64() == Some(layer as u64)));
        listed || !(layer + 1).is_multiple_of(step)
    };
    let routing = Routing {
        chosen: config.size("num_experts_per_tok")?,
        scores: Scores::Softmax,
        groups: None,
        normalized: config.flag("norm_topk_prob")?.unwrap_or(false),
        scale: 1.0,
    };
    let slides = config.flag("use_sliding_window")? == Some(true);
    decoder.blueprint(|layer| {
        let mlp = if is_dense(layer) {
            decoder.gated(layer)?
        } else {
            let width = config.size("moe_intermediate_size")?;
            Mlp::Experts(decoder.experts(layer, width, routing)?)
        };
        decoder.block(layer, qwen3::attention(&decoder, layer, slides)?, mlp, decoder::BEFORE)
    })
}
