//! Qwen 1.5 and 2 with experts: attention as in Qwen 2; one more expert for every token, with a share of its own; some layers
//! may be dense.

use serde_json::Value;

use super::decoder::{self, Decoder};
use super::gguf::{self, Gguf};
use super::{Family, qwen3_moe};
use crate::blueprint::{Blueprint, Experts, Mlp};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "qwen2_moe",
    architectures: &["Qwen2MoeForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["qwen2moe"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| gguf::stored(name, SHARED),
    }),
};

/// What GGUF files call the expert of every token.
const SHARED: &[(&str, &str)] = &[
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
];

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    const FIRST: usize = 28; // the reference stack's default
    let decoder = Decoder {
        qkv_bias: config.flag("qkv_bias")?.unwrap_or(true),
        output_bias: false,
        ..Decoder::read(config, decoder::LLAMA, None)?
    };
    let windows = config.flag("use_sliding_window")? == Some(true);
    let first = config.count("max_window_layers")?.unwrap_or(FIRST);
    let (routing, dense) = (qwen3_moe::routing(config)?, qwen3_moe::Dense::read(config)?);
    let width = config.size("shared_expert_intermediate_size")?;
    decoder.blueprint(|layer| {
        if !windows && decoder.slides(layer, |_| false)? {
            let known = "`true`, where `layer_types` has layers with windows";
            return Err(ConfigError::unsupported("use_sliding_window", false, known));
        }
        let slides = windows && decoder.slides(layer, |layer| layer.is_multiple_of(2) && layer < first)?;
        let mlp = if dense.has(layer) {
            decoder.gated(layer)?
        } else {
            Mlp::Experts(Experts {
                shared: decoder.shared(layer, "mlp.shared_expert", width)?,
                shared_gate: Some(decoder.projection(
                    layer,
                    "mlp.shared_expert_gate",
                    false,
                    1,
                    decoder.d_model,
                )),
                ..decoder.experts(layer, config.size("moe_intermediate_size")?, routing)?
            })
        };
        decoder.block(layer, decoder.attention(layer, slides)?, mlp, decoder::BEFORE)
    })
}
