//! MiniCPM 3: latent attention, dense layers, and multipliers of embeddings, branches and logits.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use crate::blueprint::{Block, Blueprint, Branch, Embedding, Head, Pairing};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "minicpm3", architectures: &["MiniCPM3ForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), tied: true, ..decoder::LLAMA };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "kv_lora_rank": 256,
        "q_lora_rank": 768,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32,
        "scale_emb": 12,
        "scale_depth": 1.4,
        "dim_model_base": 256,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, Some(&DEFAULTS))?;
    let config = &decoder.config;
    let scale = match config.number("scale_depth")? {
        None => 1.0,
        Some(depth) => (depth / (decoder.n_layers as f64).sqrt()) as f32,
    };
    let base = config.number("dim_model_base")?;
    let head_scale = base.map_or(1.0, |it| (it / decoder.d_model as f64) as f32);
    let embedding_scale = config.number("scale_emb")?.unwrap_or(1.0) as f32;
    let blueprint = decoder.blueprint(|layer| {
        let attention = decoder.latent_attention(layer, Pairing::Halves)?;
        let block = decoder.block(layer, attention, decoder.gated(layer)?, decoder::BEFORE)?;
        let (mixer, mlp) = (Branch { scale, ..block.mixer }, Branch { scale, ..block.mlp });
        Ok(Block { mixer, mlp, ..block })
    })?;
    Ok(Blueprint {
        embedding: Embedding { scale: embedding_scale, ..blueprint.embedding },
        head: Head { scale: head_scale, ..blueprint.head },
        ..blueprint
    })
}
