//! dots.llm1: attention as in Qwen 3; dense layers, then experts as in GLM 4.5.

use serde_json::Value;

use super::decoder::{self, Decoder};
use super::gguf::{self, Gguf};
use super::{Family, glm4_moe, qwen3};
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "dots1",
    architectures: &["Dots1ForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["dots1"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| gguf::stored(name, &[]),
    }),
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    const FIRST: usize = 62; // the reference stack's default
    let decoder = Decoder::read(config, decoder::LLAMA, None)?;
    let first = config.count("max_window_layers")?.unwrap_or(FIRST);
    let dense = config.count("first_k_dense_replace")?.unwrap_or(0);
    let sparse = glm4_moe::Sparse::read(config, "n_shared_experts")?;
    decoder.blueprint(|layer| {
        let slides = decoder.slides(layer, |layer| layer >= first)?;
        let mlp = if layer < dense { decoder.gated(layer)? } else { sparse.mlp(&decoder, layer)? };
        decoder.block(layer, qwen3::attention(&decoder, layer, slides)?, mlp, decoder::BEFORE)
    })
}
