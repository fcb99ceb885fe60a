//! LFM 3: the convolutions of LFM 2; attention with windows in some layers and a gate for each head; branches read and write
//! through norms.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder, FULL, Norms, SLIDING, Traits};
use super::{Family, lfm2};
use crate::blueprint::{Attention, Blueprint, Mixer, OutputGate, Rope};
use crate::config::{NoTensors, kind_of_layer};
use crate::rope::rope;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "lfm3",
    architectures: &["Lfm3ForCausalLM", "Lfm3VlForConditionalGeneration"],
    blueprint,
    gguf: None,
};

const TRAITS: Traits =
    Traits { epsilon: ("norm_eps", 1e-5), theta: 1_000_000.0, tied: true, ..decoder::LLAMA };

const NORMS: Norms = Norms {
    before_attention: Some("operator_norm"),
    after_attention: Some("post_operator_norm"),
    before_mlp: Some("ffn_norm"),
    after_mlp: Some("post_ffn_norm"),
};

// The language model of a container may write down only what is not usual.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 128_000,
        "hidden_size": 2048,
        "intermediate_size": 7680,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "max_position_embeddings": 128_000,
        "sliding_window": 256,
        "conv_L_cache": 7,
    })
});

/// How layers are rotated where the configuration does not say.
static ROTATION: LazyLock<Value> = LazyLock::new(|| {
    json!({"rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 1_000_000.0},
    }})
});

/// What mixes the positions of a layer.
#[derive(Clone, Copy)]
enum Kind {
    Convolution,
    Window,
    Full,
}

const KINDS: &[(&str, Kind)] = &[("conv", Kind::Convolution), (SLIDING, Kind::Window), (FULL, Kind::Full)];

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, Some(&DEFAULTS))?;
    let config = &decoder.config;
    let sandwich = config.flag("use_sandwich_norm")?.unwrap_or(true);
    let norms = if sandwich { NORMS } else { Norms { after_attention: None, after_mlp: None, ..NORMS } };
    let mut blueprint = decoder.blueprint(|layer| {
        let mlp = lfm2::gated(&decoder, layer, decoder.d_mlp)?;
        let mixer = match kind(config, layer)? {
            Kind::Convolution => Mixer::ShortConvolution(lfm2::convolution(&decoder, layer)?),
            Kind::Window => attention(&decoder, layer, true)?.into(),
            Kind::Full => attention(&decoder, layer, false)?.into(),
        };
        decoder.block(layer, mixer, mlp, norms)
    })?;
    blueprint.final_norm =
        decoder.named_norm(&format!("{}.embedding_norm", decoder.root), decoder.d_model)?;
    Ok(blueprint)
}

fn kind(config: &Config<'_>, layer: usize) -> Result<Kind, ConfigError> {
    if let Some(list) = config.list("layer_types")? {
        return kind_of_layer(list, "layer_types", layer, KINDS);
    }
    Ok(match layer % 4 {
        2 => Kind::Full,
        0 if layer > 0 => Kind::Window,
        _ => Kind::Convolution,
    })
}

fn attention(decoder: &Decoder<'_>, layer: usize, slides: bool) -> Result<Attention, ConfigError> {
    let d_head = decoder.d_head;
    let gate = if decoder.config.flag("use_attention_gate")?.unwrap_or(true) {
        // The released models call it as an MLP calls its own.
        let names = ["self_attn.gate_proj", "self_attn.g_proj"];
        let there = |it: &&str| decoder.config.has_tensor(&decoder.name(layer, &format!("{it}.weight")));
        let name = names.iter().copied().find(|it| there(it)).unwrap_or(names[0]);
        let projection = decoder.projection(layer, name, false, decoder.n_heads, decoder.d_model);
        Some(OutputGate::sigmoid(vec![projection]))
    } else {
        None
    };
    Ok(Attention {
        query_norm: Some(decoder.norm(layer, "self_attn.q_norm", d_head)?),
        key_norm: Some(decoder.norm(layer, "self_attn.k_norm", d_head)?),
        rope: Some(rotation(decoder, slides)?),
        gate,
        ..decoder.attention(layer, slides)?
    })
}

fn rotation(decoder: &Decoder<'_>, slides: bool) -> Result<Rope, ConfigError> {
    let said = decoder.config.section("rope_parameters").is_some();
    let config = if said { decoder.config } else { Config::new(&ROTATION, &NoTensors) };
    let Traits { theta, pairing, .. } = decoder.traits;
    rope(&config, if slides { SLIDING } else { FULL }, decoder.d_head, theta, pairing, true)
}
