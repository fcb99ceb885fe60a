//! K-EXAONE: attention as in EXAONE 4; dense layers, then experts as in GLM 4.5.

use serde_json::json;

use super::decoder::{self, Decoder};
use super::{Family, exaone4, glm4_moe};
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "exaone_moe", architectures: &["ExaoneMoeForCausalLM"], blueprint, gguf: None };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, exaone4::TRAITS, None)?;
    let decoder = Decoder { qkv_bias: false, output_bias: false, ..decoder };
    let windows = exaone4::Windows::read(config)?;
    let dense = config.count("first_k_dense_replace")?.unwrap_or(1);
    let defaults = json!({"norm_topk_prob": true});
    let sparse = glm4_moe::Sparse::read(&config.with_defaults(Some(&defaults)), "num_shared_experts")?;
    decoder.blueprint(|layer| {
        let dense = decoder.is_dense(layer, |layer| layer < dense)?;
        let mlp = if dense { decoder.gated(layer)? } else { sparse.mlp(&decoder, layer)? };
        decoder.block(layer, windows.attention(&decoder, layer)?, mlp, decoder::BEFORE)
    })
}
