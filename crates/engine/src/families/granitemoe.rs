//! Granite 3 with experts: the multipliers of Granite; some models have one more expert for every token.

use super::decoder::{self, Decoder};
use super::{Family, granite};
use crate::blueprint::{Blueprint, Experts, Gated, Mlp, Projection, Routing, Scores};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "granitemoe",
    architectures: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"],
    blueprint,
    gguf: None,
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, decoder::LLAMA, None)?;
    let routing = Routing {
        chosen: config.size("num_experts_per_tok")?,
        scores: Scores::Softmax,
        groups: None,
        normalized: true,
        scale: 1.0,
    };
    let shared = config.count("shared_intermediate_size")?.unwrap_or(0);
    granite::multiplied(config, &decoder, |layer| {
        let experts = decoder.experts(layer, decoder.d_mlp, routing)?;
        let shared = if shared > 0 { Some(for_every_token(&decoder, layer, shared)?) } else { None };
        Ok(Mlp::Experts(Experts { shared, ..experts }))
    })
}

/// The expert of every token, whose gate and up projections lie in one tensor.
fn for_every_token(decoder: &Decoder<'_>, layer: usize, width: usize) -> Result<Gated, ConfigError> {
    let part = |first| decoder.part(layer, "shared_mlp.input_linear", first, width, 2 * width);
    let down: Projection =
        decoder.projection(layer, "shared_mlp.output_linear", false, decoder.d_model, width);
    Ok(Gated { gate: part(0), up: part(width), activation: decoder.activation()?, down })
}
