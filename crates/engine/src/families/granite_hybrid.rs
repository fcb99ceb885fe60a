//! Granite 4: Granite with Mamba-2 in most layers, with experts or without.

use super::decoder::{self, Decoder};
use super::recurrent::{Mamba, size_within};
use super::{Family, granite};
use crate::blueprint::{Attention, Block, Blueprint, Branch, FeedForward, Mixer, Mlp, Rope, Routing};
use crate::config::kind_of_layer;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "granite_hybrid", architectures: &["GraniteMoeHybridForCausalLM"], blueprint, gguf: None };

/// Kinds of layers, as transformers 4 and 5 call them: whether a layer attends.
const LAYERS: &[(&str, bool)] =
    &[("attention", true), ("full_attention", true), ("mamba", false), ("linear_attention", false)];

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, decoder::LLAMA, None)?;
    let config = &decoder.config;
    // It is the activation behind the convolution as well.
    config.word("hidden_act", "silu", &[("silu", ()), ("swish", ())])?;
    let mamba = Mamba::read(&decoder)?;
    let (key, layers) = match config.list("layer_types")? {
        Some(list) => ("layer_types", Some(list)),
        None => ("layers_block_type", config.list("layers_block_type")?),
    };
    let rotates = config.word("position_embedding_type", "nope", &[("rope", true), ("nope", false)])?;
    let experts = config.count("num_local_experts")?.unwrap_or(8) > 0;
    let blueprint = decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, false)?;
        let rope: Option<Rope> = attention.rope.clone().filter(|_| rotates);
        let attention = granite::scaled(&decoder, Attention { rope, ..attention })?;
        let block = decoder.block(layer, attention, mlp(&decoder, layer, experts)?, decoder::BEFORE)?;
        let block = granite::branches(&decoder, block)?;
        let attends = layers.map_or(Ok(false), |it| kind_of_layer(it, key, layer, LAYERS))?;
        if attends {
            return Ok(block);
        }
        let inner = Mixer::Recurrence(mamba.layer(&decoder, layer, "mamba")?);
        Ok(Block { mixer: Branch { inner, ..block.mixer }, ..block })
    })?;
    granite::finish(&decoder, blueprint)
}

/// One MLP for every token, and experts beside it where there are any.
fn mlp(decoder: &Decoder<'_>, layer: usize, experts: bool) -> Result<Mlp, ConfigError> {
    let (config, d_model) = (&decoder.config, decoder.d_model);
    let width = size_within(config, "shared_intermediate_size", 1024)?;
    let part = |first| decoder.part(layer, "shared_mlp.input_linear", first, width, 2 * width);
    let shared = FeedForward {
        gate: Some(part(0)),
        up: part(width),
        activation: decoder.activation()?,
        down: decoder.projection(layer, "shared_mlp.output_linear", false, d_model, width),
    };
    if !experts {
        return Ok(Mlp::Dense(shared));
    }
    let routing = Routing::by_softmax(config.count("num_experts_per_tok")?.unwrap_or(2));
    let mut experts = decoder.experts(layer, decoder.d_mlp, routing)?;
    experts.shared = Some(shared);
    Ok(Mlp::Experts(experts))
}
