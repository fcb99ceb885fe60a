//! Granite 3 with experts: the multipliers of Granite; some models have one more expert for every token.

use serde_json::Value;

use super::decoder::{self, Decoder};
use super::gguf::{self, Gguf};
use super::{Family, granite};
use crate::blueprint::{Blueprint, Experts, FeedForward, Mlp, Routing};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "granitemoe",
    architectures: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["granitemoe"],
        config: gguf_config,
        tensor: |config, name| gguf::stored_in_neighbors(config, name, SHARED),
    }),
};

/// What GGUF files call the expert of every token.
const SHARED: &[(&str, &str)] = &[
    ("shared_mlp.gate_proj", "ffn_gate_shexp"),
    ("shared_mlp.up_proj", "ffn_up_shexp"),
    ("shared_mlp.output_linear", "ffn_down_shexp"),
];

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, decoder::LLAMA, None)?;
    granite::multiplied(&decoder, |layer| decoder.attention(layer, false), |layer| mlp(&decoder, layer))
}

/// A layer's experts, with one for every token where the configuration has a width for it.
pub(super) fn mlp(decoder: &Decoder<'_>, layer: usize) -> Result<Mlp, ConfigError> {
    let routing = Routing::by_softmax(decoder.config.size("num_experts_per_tok")?);
    let shared = decoder.config.count("shared_intermediate_size")?.unwrap_or(0);
    let experts = decoder.experts(layer, decoder.d_mlp, routing)?;
    let shared = if shared > 0 { Some(for_every_token(decoder, layer, shared)?) } else { None };
    Ok(Mlp::Experts(Experts { shared, ..experts }))
}

/// The expert of every token, whose gate and up projections lie in one tensor of folders.
fn for_every_token(decoder: &Decoder<'_>, layer: usize, width: usize) -> Result<FeedForward, ConfigError> {
    let part = |first| decoder.part(layer, "shared_mlp.input_linear", first, width, 2 * width);
    let own = |name| decoder.projection(layer, name, false, width, decoder.d_model);
    // In GGUF files there is a tensor for each.
    let apart = decoder.config.has_tensor(&decoder.name(layer, "shared_mlp.up_proj.weight"));
    Ok(FeedForward {
        gate: Some(if apart { own("shared_mlp.gate_proj") } else { part(0) }),
        up: if apart { own("shared_mlp.up_proj") } else { part(width) },
        activation: decoder.activation()?,
        down: decoder.projection(layer, "shared_mlp.output_linear", false, decoder.d_model, width),
    })
}

fn gguf_config(metadata: &Value, architecture: &str) -> Result<Value, ConfigError> {
    let mut config = granite::gguf_config(metadata, architecture)?;
    if let Some(width) = config.get("shared_expert_intermediate_size").cloned() {
        config["shared_intermediate_size"] = width;
    }
    Ok(config)
}
