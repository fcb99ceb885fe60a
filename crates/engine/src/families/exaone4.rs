//! EXAONE 4, and the language model of EXAONE 4.5: both branches write through a norm and read the stream itself; a norm of each query and key head; where
//! there are windows, only the layers with one rotate.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::gguf::{self, Gguf};
use crate::blueprint::{Attention, Blueprint};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "exaone4",
    architectures: &["Exaone4ForCausalLM", "Exaone4_5_ForConditionalGeneration"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["exaone4"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| gguf::stored(name, gguf::NORMS_AROUND),
    }),
};

pub(super) const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), ..decoder::LLAMA };

// The language model of a container may write down only what is not usual.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 102_400,
        "hidden_size": 4096,
        "intermediate_size": 16_384,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 2048,
        "sliding_window": 4096,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let container = config.section("text_config").is_some();
    let decoder = Decoder::read(config, TRAITS, container.then_some(&*DEFAULTS))?;
    let windows = Windows::read(&decoder.config)?;
    decoder.blueprint(|layer| {
        decoder.block(layer, windows.attention(&decoder, layer)?, decoder.gated(layer)?, decoder::AFTER)
    })
}

/// Which layers see a window only.
pub(super) struct Windows<'a> {
    /// Whether any does.
    any: bool,
    pattern: Pattern<'a>,
}

impl<'a> Windows<'a> {
    pub(super) fn read(config: &Config<'a>) -> Result<Self, ConfigError> {
        Ok(Self { any: config.count("sliding_window")?.is_some(), pattern: pattern(config)? })
    }

    /// A layer's attention.
    pub(super) fn attention(&self, decoder: &Decoder<'_>, layer: usize) -> Result<Attention, ConfigError> {
        let slides = self.any && decoder.slides(layer, |layer| self.pattern.slides(layer))?;
        let attention = decoder.attention(layer, slides)?;
        Ok(Attention {
            query_norm: Some(decoder.norm(layer, "self_attn.q_norm", decoder.d_head)?),
            key_norm: Some(decoder.norm(layer, "self_attn.k_norm", decoder.d_head)?),
            rope: attention.rope.filter(|_| slides || !self.any),
            ..attention
        })
    }
}

/// Which layers have a window where no list says so.
enum Pattern<'a> {
    /// All but the last of every so many.
    ButEvery(usize),
    /// Those whose letter in the repeated word is L.
    Word(&'a str),
}

impl Pattern<'_> {
    fn slides(&self, layer: usize) -> bool {
        match self {
            Self::ButEvery(count) => !(layer + 1).is_multiple_of(*count),
            Self::Word(word) => word.as_bytes().get(layer % word.len().max(1)) == Some(&b'L'),
        }
    }
}

fn pattern<'a>(config: &Config<'a>) -> Result<Pattern<'a>, ConfigError> {
    const PATTERN: usize = 4;
    let key = "sliding_window_pattern";
    if config.get(key).is_some_and(Value::is_string) {
        return Ok(Pattern::Word(config.text(key)?.unwrap_or_default()));
    }
    Ok(Pattern::ButEvery(config.count(key)?.unwrap_or(PATTERN)))
}
