//! Llama 2 and 3, SmolLM2 and 3, Mistral: pre-norm decoders with grouped queries, rotary positions and a gated MLP.
//!
//! Mistral adds a sliding window. SmolLM3 leaves every few layers without rotary positions and may give layers
//! windows of their own.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder, Traits};
use super::gguf::{self, Gguf, Stored};
use super::{Family, mixtral};
use crate::blueprint::{Attention, Blueprint};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "llama",
    architectures: &["LlamaForCausalLM", "MistralForCausalLM", "MinistralForCausalLM", "SmolLM3ForCausalLM"],
    blueprint,
    gguf: Some(Gguf { architectures: &["llama", "smollm3"], config: gguf_config, tensor: gguf_tensor }),
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let defaults = config.section("text_config").map(defaults).transpose()?;
    let smollm3 = ["SmolLM3ForCausalLM", "smollm3"].contains(&config.architecture());
    let traits = if smollm3 { Traits { theta: 2_000_000.0, ..decoder::LLAMA } } else { decoder::LLAMA };
    let decoder = Decoder::read(config, traits, defaults)?;
    let config = &decoder.config;
    let windows = windows(config)?;
    // Only GGUF files have that here: Mixtral's architecture is called the same there.
    let experts = config.count("num_local_experts")?.unwrap_or(0) > 0;
    decoder.blueprint(|layer| {
        let slides = match windows {
            Windows::None => false,
            Windows::All => true,
            Windows::Listed => decoder.slides(layer, |_| true)?,
            Windows::ListedOrWithoutRotation(by_rotation) => {
                let rotates = rotates(config, layer)?;
                decoder.slides(layer, |_| by_rotation && !rotates)?
            }
        };
        let mut attention = decoder.attention(layer, slides)?;
        if smollm3 && !rotates(config, layer)? {
            attention = Attention { rope: None, ..attention };
        }
        let mlp = if experts { mixtral::mlp(&decoder, layer)? } else { decoder.gated(layer)? };
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}

/// Which layers see a window of positions only, where the configuration has one.
#[derive(Clone, Copy)]
enum Windows {
    None,
    All,
    Listed,
    /// Those that are listed; without a list those that do not rotate, if windows are switched on.
    ListedOrWithoutRotation(bool),
}

/// By the architecture: Llama has none, whatever its configuration says; Mistral has one in every layer, listed kinds or not.
fn windows(config: &Config<'_>) -> Result<Windows, ConfigError> {
    Ok(match config.architecture() {
        "MistralForCausalLM" => Windows::All,
        "MinistralForCausalLM" => Windows::Listed,
        "SmolLM3ForCausalLM" => {
            Windows::ListedOrWithoutRotation(config.flag("use_sliding_window")? == Some(true))
        }
        _ => Windows::None,
    })
}

/// What the language model of a container is where its configuration does not say: only what is not usual is written.
fn defaults(text: Config<'_>) -> Result<&'static Value, ConfigError> {
    let mistral = text.text("model_type")? == Some("mistral");
    Ok(if mistral { &*MISTRAL_DEFAULTS } else { &*LLAMA_DEFAULTS })
}

static LLAMA_DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
    })
});

static MISTRAL_DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    })
});

/// Whether a layer rotates its queries and keys: `no_rope_layers` holds a 0 for those that do not.
fn rotates(config: &Config<'_>, layer: usize) -> Result<bool, ConfigError> {
    if let Some(layers) = config.list("no_rope_layers")? {
        return Ok(layers.get(layer).and_then(Value::as_u64) != Some(0));
    }
    let every = config.count("no_rope_layer_interval")?.filter(|&it| it > 0);
    Ok(every.is_none_or(|every| !(layer + 1).is_multiple_of(every)))
}

fn gguf_config(metadata: &Value, architecture: &str) -> Result<Value, ConfigError> {
    let mut config = gguf::decoder_config(metadata, architecture)?;
    if architecture == "smollm3" {
        // The files do not say it; it is part of the architecture.
        config.insert("no_rope_layer_interval".to_owned(), json!(4));
    }
    Ok(Value::Object(config))
}

fn gguf_tensor(config: &Value, name: &str) -> Option<Stored> {
    gguf::stored_in_neighbors(config, name, &[])
}

#[cfg(test)]
mod tests {
    use super::decoder::DIVISORS;
    use super::*;
    use crate::config::{NoTensors, Tensors};

    fn tiny() -> Value {
        json!({"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 5, "num_attention_heads": 2,
            "intermediate_size": 4, "rope_theta": 100.0})
    }

    struct Divisors(Vec<f32>);

    impl Tensors for Divisors {
        fn contains(&self, name: &str) -> bool {
            name == DIVISORS
        }

        fn values(&self, name: &str) -> Option<Vec<f32>> {
            self.contains(name).then(|| self.0.clone())
        }
    }

    #[test]
    fn the_divisors_of_a_gguf_file_slow_the_rotation() {
        let (config, tensors) = (tiny(), Divisors(vec![1.0, 8.0]));
        let blueprint = blueprint(&Config::new(&config, &tensors)).unwrap();
        let attention = blueprint.blocks[0].mixer.inner.attention().unwrap();
        assert_eq!(attention.rope.as_ref().unwrap().frequencies, [1.0, 0.0125]); // 100^(-1/2) / 8
        let wrong = Divisors(vec![1.0]);
        let error = super::blueprint(&Config::new(&config, &wrong)).unwrap_err();
        assert!(error.to_string().contains("1 numbers"), "{error}");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for (key, value) in [("num_hidden_layers", 1_000_000_000), ("num_attention_heads", 9)] {
            let mut config = tiny();
            config[key] = json!(value);
            let error = blueprint(&Config::new(&config, &NoTensors)).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
