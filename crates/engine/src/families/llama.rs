//! Llama 2 and 3, SmolLM2 and 3, Mistral: pre-norm decoders with grouped queries, rotary positions and a gated MLP.
//!
//! Mistral adds a sliding window. SmolLM3 leaves every few layers without rotary positions and may give layers
//! windows of their own.

use serde_json::{Value, json};

use super::Family;
use super::gguf::{Gguf, Stored, decoder_config, decoder_tensor, halves_from_neighbors};
use crate::backend::AttentionShape;
use crate::blueprint::{
    Activation, Arrangement, Attention, Block, Blueprint, Branch, Embedding, Head, Mixer, Mlp, Norm,
    NormKind, Pairing, Projection, Rope,
};
use crate::config::NoTensors;
use crate::rope::rope;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "llama",
    architectures: &["LlamaForCausalLM", "MistralForCausalLM", "SmolLM3ForCausalLM"],
    blueprint,
    gguf: Some(Gguf { architectures: &["llama"], config: gguf_config, tensor: gguf_tensor }),
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let d_model = config.size("hidden_size")?;
    let n_layers = layers(config)?;
    let vocab = config.size("vocab_size")?;
    let epsilon = config.number("rms_norm_eps")?.unwrap_or(1e-6) as f32;
    let norm = |gain: String| Norm {
        kind: NormKind::RootMeanSquare,
        gain,
        gain_offset: 0.0,
        bias: None,
        epsilon,
        width: d_model,
    };
    let embedding = "model.embed_tokens.weight".to_owned();
    // Files of tied models leave the head out; some say so only by that.
    let untied = config.has_tensor("lm_head.weight") && config.flag("tie_word_embeddings")? != Some(true);
    let blocks = (0..n_layers).map(|layer| block(config, layer, &norm)).collect::<Result<_, _>>()?;
    Ok(Blueprint {
        d_model,
        vocab,
        context_length: config.count("max_position_embeddings")?,
        head: Head {
            weight: if untied { "lm_head.weight".to_owned() } else { embedding.clone() },
            scale: 1.0,
            softcap: None,
        },
        embedding: Embedding { weight: embedding, scale: 1.0 },
        blocks,
        final_norm: norm("model.norm.weight".to_owned()),
    })
}

/// How many blocks there are.
fn layers(config: &Config<'_>) -> Result<usize, ConfigError> {
    // No model has a tenth of it; a damaged number must not reserve memory for a billion blocks.
    const MOST: usize = 4096;
    let layers = config.size("num_hidden_layers")?;
    if layers > MOST {
        return Err(ConfigError::Unsupported {
            key: "num_hidden_layers".to_owned(),
            found: layers.to_string(),
            known: format!("1 to {MOST}"),
        });
    }
    Ok(layers)
}

fn block(config: &Config<'_>, layer: usize, norm: &impl Fn(String) -> Norm) -> Result<Block, ConfigError> {
    let d_model = config.size("hidden_size")?;
    let d_mlp = config.size("intermediate_size")?;
    let (attention_bias, mlp_bias) =
        (config.flag("attention_bias")?.unwrap_or(false), config.flag("mlp_bias")?.unwrap_or(false));
    let activation = config.word(
        "hidden_act",
        "silu",
        &[
            ("silu", Activation::Silu),
            ("swish", Activation::Silu),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
        ],
    )?;
    let projection = |name: &str, bias: bool, outputs: usize, inputs: usize| Projection {
        weight: format!("model.layers.{layer}.{name}.weight"),
        rows: None,
        bias: bias.then(|| format!("model.layers.{layer}.{name}.bias")),
        outputs,
        inputs,
    };
    let (n_heads, n_kv_heads, d_head) = heads(config)?;
    let attention = Attention {
        shape: AttentionShape {
            n_heads,
            n_kv_heads,
            d_head,
            scale: (1.0 / (d_head as f64).sqrt()) as f32,
            softcap: None,
            window: window(config, layer)?,
        },
        query: projection("self_attn.q_proj", attention_bias, n_heads * d_head, d_model),
        key: projection("self_attn.k_proj", attention_bias, n_kv_heads * d_head, d_model),
        value: projection("self_attn.v_proj", attention_bias, n_kv_heads * d_head, d_model),
        query_norm: None,
        key_norm: None,
        rope: if rotates(config, layer)? { Some(rotation(config, layer, d_head)?) } else { None },
        sinks: None,
    };
    Ok(Block {
        mixer: Branch {
            pre_norm: Some(norm(format!("model.layers.{layer}.input_layernorm.weight"))),
            inner: Mixer::Attention(attention),
            writer: projection("self_attn.o_proj", attention_bias, d_model, n_heads * d_head),
            post_norm: None,
            scale: 1.0,
        },
        mlp: Branch {
            pre_norm: Some(norm(format!("model.layers.{layer}.post_attention_layernorm.weight"))),
            inner: Mlp::Gated {
                gate: projection("mlp.gate_proj", mlp_bias, d_mlp, d_model),
                up: projection("mlp.up_proj", mlp_bias, d_mlp, d_model),
                activation,
            },
            writer: projection("mlp.down_proj", mlp_bias, d_model, d_mlp),
            post_norm: None,
            scale: 1.0,
        },
        arrangement: Arrangement::Sequential,
    })
}

/// A layer's rotary embedding. GGUF files of Llama 3.1 and later bring Llama 3's rule as a tensor of divisors.
fn rotation(config: &Config<'_>, layer: usize, d_head: usize) -> Result<Rope, ConfigError> {
    let mut rope = rope(config, layer_type(config, layer)?, d_head, 10_000.0, Pairing::Halves)?;
    if let Some(divisors) = config.tensor_values(DIVISORS) {
        if divisors.len() != rope.frequencies.len() {
            return Err(ConfigError::Unsupported {
                key: DIVISORS.to_owned(),
                found: format!("{} numbers", divisors.len()),
                known: format!("one for each of the {} rotated pairs", rope.frequencies.len()),
            });
        }
        for (frequency, divisor) in rope.frequencies.iter_mut().zip(divisors) {
            *frequency /= divisor;
        }
    }
    Ok(rope)
}

const DIVISORS: &str = "rope_freqs.weight";

/// Far above any model; a damaged number must not reserve memory for tables of rows and frequencies.
const WIDEST: usize = 1 << 20;

/// Query heads, key/value heads, width of a head.
fn heads(config: &Config<'_>) -> Result<(usize, usize, usize), ConfigError> {
    let n_heads = config.size("num_attention_heads")?;
    let n_kv_heads = if config.get("num_key_value_heads").is_some() {
        config.size("num_key_value_heads")?
    } else {
        n_heads
    };
    let d_head = if config.get("head_dim").is_some() {
        config.size("head_dim")?
    } else {
        config.size("hidden_size")? / n_heads
    };
    if d_head == 0 {
        return Err(ConfigError::Unsupported {
            key: "num_attention_heads".to_owned(),
            found: n_heads.to_string(),
            known: "at most hidden_size, where there is no head_dim".to_owned(),
        });
    }
    if n_heads.saturating_mul(d_head) > WIDEST {
        return Err(ConfigError::Unsupported {
            key: "num_attention_heads".to_owned(),
            found: format!("{n_heads} heads of {d_head}"),
            known: format!("up to {WIDEST} numbers in all heads"),
        });
    }
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(ConfigError::Unsupported {
            key: "num_key_value_heads".to_owned(),
            found: n_kv_heads.to_string(),
            known: format!("the divisors of num_attention_heads = {n_heads}"),
        });
    }
    Ok((n_heads, n_kv_heads, d_head))
}

fn layer_type<'a>(config: &Config<'a>, layer: usize) -> Result<Option<&'a str>, ConfigError> {
    Ok(config.list("layer_types")?.and_then(|it| it.get(layer)).and_then(Value::as_str))
}

/// How many positions a layer sees: the window, unless the layer's type or a switch says otherwise.
fn window(config: &Config<'_>, layer: usize) -> Result<Option<usize>, ConfigError> {
    let switched_off = config.flag("use_sliding_window")? == Some(false);
    let everything = layer_type(config, layer)?.is_some_and(|it| it != "sliding_attention");
    Ok(if switched_off || everything {
        None
    } else {
        // A window of nothing is how some files say that there is none.
        config.count("sliding_window")?.filter(|&it| it > 0)
    })
}

/// Whether a layer rotates its queries and keys: `no_rope_layers` holds a 0 for those that do not.
fn rotates(config: &Config<'_>, layer: usize) -> Result<bool, ConfigError> {
    if let Some(layers) = config.list("no_rope_layers")? {
        return Ok(layers.get(layer).and_then(Value::as_u64) != Some(0));
    }
    let every = config.count("no_rope_layer_interval")?.filter(|&it| it > 0);
    Ok(every.is_none_or(|every| !(layer + 1).is_multiple_of(every)))
}

fn gguf_config(metadata: &Value, architecture: &str) -> Result<Value, ConfigError> {
    let mut config = decoder_config(metadata, architecture);
    let key = |name: &str| format!("{architecture}.{name}");
    let scaling = metadata.get(key("rope.scaling.type")).and_then(Value::as_str).unwrap_or("none");
    match scaling {
        "none" => {}
        "linear" => {
            let factor = metadata.get(key("rope.scaling.factor")).cloned().unwrap_or(json!(1.0));
            config.insert("rope_scaling".to_owned(), json!({"rope_type": "linear", "factor": factor}));
        }
        other => {
            return Err(ConfigError::Unsupported {
                key: key("rope.scaling.type"),
                found: other.to_owned(),
                known: "`none`, `linear`".to_owned(),
            });
        }
    }
    Ok(Value::Object(config))
}

fn gguf_tensor(config: &Value, name: &str) -> Option<Stored> {
    let stored = if name == DIVISORS { name.to_owned() } else { decoder_tensor(name)? };
    let heads = heads(&Config::new(config, &NoTensors)).ok();
    let row_order = heads.and_then(|(n_heads, n_kv_heads, d_head)| {
        if name.contains(".q_proj.weight") {
            Some(halves_from_neighbors(n_heads, d_head))
        } else if name.contains(".k_proj.weight") {
            Some(halves_from_neighbors(n_kv_heads, d_head))
        } else {
            None
        }
    });
    Some(Stored { name: stored, row_order })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tensors;

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
        let Mixer::Attention(attention) = &blueprint.blocks[0].mixer.inner;
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
