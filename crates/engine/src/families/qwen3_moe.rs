//! Qwen 3 with experts: attention as in Qwen 3; some layers may be dense.

use serde_json::{Value, json};

use super::decoder::{self, Decoder};
use super::gguf::{self, Gguf};
use super::{Family, qwen3};
use crate::blueprint::{Blueprint, Mlp, Routing, Scores};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "qwen3_moe",
    architectures: &["Qwen3MoeForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["qwen3moe"],
        config: gguf_config,
        tensor: |_, name| gguf::stored(name, &[]),
    }),
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, decoder::LLAMA, None)?;
    let (routing, dense) = (routing(config)?, Dense::read(config)?);
    let slides = config.flag("use_sliding_window")? == Some(true);
    decoder.blueprint(|layer| {
        let mlp = if dense.has(layer) {
            decoder.gated(layer)?
        } else {
            let width = config.size("moe_intermediate_size")?;
            Mlp::Experts(decoder.experts(layer, width, routing)?)
        };
        decoder.block(layer, qwen3::attention(&decoder, layer, slides)?, mlp, decoder::BEFORE)
    })
}

/// Experts by their part of the softmax.
pub(super) fn routing(config: &Config<'_>) -> Result<Routing, ConfigError> {
    Ok(Routing {
        chosen: config.size("num_experts_per_tok")?,
        softcap: None,
        scores: Scores::Softmax,
        groups: None,
        normalized: config.flag("norm_topk_prob")?.unwrap_or(false),
        scale: 1.0,
    })
}

/// Which layers have no experts.
pub(super) struct Dense<'a> {
    step: usize,
    listed: &'a [Value],
}

impl<'a> Dense<'a> {
    /// None of them.
    pub(super) fn none() -> Self {
        Self { step: 1, listed: &[] }
    }

    pub(super) fn read(config: &Config<'a>) -> Result<Self, ConfigError> {
        let step = config.count("decoder_sparse_step")?.unwrap_or(1);
        Ok(Self { step, listed: config.list("mlp_only_layers")?.unwrap_or_default() })
    }

    pub(super) fn has(&self, layer: usize) -> bool {
        let listed = self.listed.iter().any(|it| it.as_u64() == Some(layer as u64));
        listed || !(layer + 1).is_multiple_of(self.step)
    }
}

/// The files do not say it; llama.cpp does it with all of them.
fn gguf_config(metadata: &Value, architecture: &str) -> Result<Value, ConfigError> {
    let mut config = gguf::decoder_config(metadata, architecture)?;
    config.insert("norm_topk_prob".to_owned(), json!(true));
    Ok(Value::Object(config))
}
