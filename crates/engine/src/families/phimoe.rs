//! Phi 3.5 MoE: experts that are chosen one after the other, layer norms with biases, biases of attention and of the head;
//! the rotary embedding of longer contexts has magnitudes of its own.

use super::Family;
use super::decoder::{self, Decoder, Traits};
use crate::blueprint::{Blueprint, Mlp, NormKind, Rope, Routing, Scores};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "phimoe", architectures: &["PhimoeForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits {
    norm: NormKind::Layer,
    norm_bias: true,
    epsilon: ("rms_norm_eps", 1e-5),
    theta: 1_000_000.0,
    ..decoder::LLAMA
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    // The reference stack's choice is written out for two experts.
    const CHOSEN: usize = 2;
    const NOISE: f64 = 0.01;
    let decoder = Decoder::read(config, TRAITS, None)?;
    let chosen = config.count("num_experts_per_tok")?.unwrap_or(CHOSEN);
    if chosen != CHOSEN {
        return Err(ConfigError::unsupported("num_experts_per_tok", chosen, CHOSEN));
    }
    let tolerance = 2.0 * config.number("router_jitter_noise")?.unwrap_or(NOISE);
    let routing = Routing {
        chosen,
        softcap: None,
        scores: Scores::OneByOne { tolerance: tolerance as f32 },
        groups: None,
        normalized: false,
        scale: 1.0,
    };
    let mut blueprint = decoder.blueprint(|layer| {
        let mut attention = decoder.attention(layer, true)?;
        if let (Some(rope), Some(long)) = (&mut attention.rope, Long::read(config)?) {
            long.apply(rope);
        }
        let mlp = Mlp::Experts(decoder.experts(layer, decoder.d_mlp, routing)?);
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })?;
    if config.flag("lm_head_bias")?.unwrap_or(false) {
        blueprint.head.bias = Some("lm_head.bias".to_owned());
    }
    Ok(blueprint)
}

/// What a scaled rotation has beside its frequencies: a magnitude up to the original length, and another one past it.
struct Long {
    magnitude: f64,
    original_length: usize,
}

impl Long {
    fn read(config: &Config<'_>) -> Result<Option<Self>, ConfigError> {
        let scaling = crate::rope::said(config);
        let Some(scaling) = scaling else { return Ok(None) };
        let kind = scaling.text("rope_type")?.or(scaling.text("type")?).unwrap_or("default");
        if kind == "default" {
            return Ok(None);
        }
        let missing = |key: &str| ConfigError::Missing { key: format!("rope_scaling.{key}") };
        let original = |it: &Config<'_>| it.count("original_max_position_embeddings");
        Ok(Some(Self {
            magnitude: scaling.number("short_mscale")?.ok_or_else(|| missing("short_mscale"))?,
            original_length: original(&scaling)?
                .or(original(config)?)
                .ok_or_else(|| missing("original_max_position_embeddings"))?,
        }))
    }

    fn apply(&self, rope: &mut Rope) {
        rope.magnitude = self.magnitude as f32;
        rope.limit = Some(self.original_length.min(rope.limit.unwrap_or(usize::MAX)));
    }
}
