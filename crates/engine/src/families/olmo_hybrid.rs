//! OLMo Hybrid: gated delta nets whose strengths go up to 2, read through norms as in Llama, and in every fourth layer the
//! attention of OLMo 3, which writes through norms. The released models do not rotate.

use super::decoder::{self, Decoder, Norms, heads};
use super::qwen3_5::DeltaNet;
use super::recurrent::size_within;
use super::{Family, olmo};
use crate::blueprint::{
    Activation, Attention, Blueprint, Convolution, GatedNorm, Gating, Mixer, Recurrence, Rule,
};
use crate::config::kind_of_layer;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "olmo_hybrid", architectures: &["OlmoHybridForCausalLM"], blueprint, gguf: None };

/// Kinds of layers: whether a layer attends.
const LAYERS: &[(&str, bool)] = &[("full_attention", true), ("linear_attention", false)];

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, decoder::LLAMA, None)?;
    let config = &decoder.config;
    let net = delta_net(config)?;
    if decoder.activation()? != Activation::Silu {
        let found = config.text("hidden_act")?.unwrap_or_default();
        return Err(ConfigError::unsupported(
            "hidden_act",
            found,
            "`silu`, which the convolutions have, too",
        ));
    }
    let rotates = rotates(config);
    decoder.blueprint(|layer| {
        let (mixer, norms) = if attends(&decoder, layer)? {
            let attention = olmo::attention(&decoder, layer, false)?;
            (Attention { rope: attention.rope.filter(|_| rotates), ..attention }.into(), decoder::AFTER)
        } else {
            (Mixer::Recurrence(recurrence(&net, &decoder, layer)?), decoder::BEFORE)
        };
        decoder.block(layer, mixer, decoder.gated(layer)?, called(&decoder, layer, norms))
    })
}

/// Whether attention rotates: not where the base is null, which an absent one does not mean.
fn rotates(config: &Config<'_>) -> bool {
    let scaling = config.section("rope_parameters").or_else(|| config.section("rope_scaling"));
    let own = scaling.filter(|it| it.get(BASE).is_some() || it.is_null(BASE));
    !own.unwrap_or(*config).is_null(BASE)
}

const BASE: &str = "rope_theta";

fn attends(decoder: &Decoder<'_>, layer: usize) -> Result<bool, ConfigError> {
    const EVERY: usize = 4;
    match decoder.config.list("layer_types")? {
        Some(list) => kind_of_layer(list, "layer_types", layer, LAYERS),
        // The last of a few layers attends in any case.
        None => {
            Ok((layer + 1).is_multiple_of(EVERY)
                || (decoder.n_layers < EVERY && layer + 1 == decoder.n_layers))
        }
    }
}

/// The norms of a layer by the names that its tensors have. The released models have names of their own for those before the
/// branches of a recurrent layer; transformers writes one of these for a norm of the others, too.
fn called(decoder: &Decoder<'_>, layer: usize, norms: Norms) -> Norms {
    let released = |name: Option<&'static str>| {
        let other = match name? {
            "input_layernorm" => "attention_layer_norm",
            "post_attention_layernorm" => "feedforward_layer_norm",
            same => same,
        };
        let there = decoder.config.has_tensor(&decoder.name(layer, &format!("{other}.weight")));
        if there { Some(other) } else { name }
    };
    Norms {
        before_attention: released(norms.before_attention),
        after_attention: released(norms.after_attention),
        before_mlp: released(norms.before_mlp),
        after_mlp: released(norms.after_mlp),
    }
}

/// The sizes of the delta nets, which follow those of attention where the configuration does not say.
fn delta_net(config: &Config<'_>) -> Result<DeltaNet, ConfigError> {
    /// Of the norm beside the gate, whatever that of the others is.
    const EPSILON: f32 = 1e-5;
    let (n_heads, ..) = heads(config)?;
    let groups = size_within(config, "linear_num_key_heads", n_heads)?;
    let states = size_within(config, "linear_num_value_heads", n_heads)?;
    let usual = 3 * config.size("hidden_size")? / (4 * groups);
    let d_key = size_within(config, "linear_key_head_dim", usual)?;
    let d_value = size_within(config, "linear_value_head_dim", 2 * d_key)?;
    DeltaNet::of_sizes(config, [groups, states, d_key, d_value], EPSILON)
}

fn recurrence(net: &DeltaNet, decoder: &Decoder<'_>, layer: usize) -> Result<Recurrence, ConfigError> {
    let shape = net.shape;
    let (keys, values) = (shape.groups * shape.d_key, shape.outputs());
    let projection = |name: &str, outputs| {
        decoder.projection(layer, &format!("linear_attn.{name}"), false, outputs, decoder.d_model)
    };
    let convolved =
        vec![projection("q_proj", keys), projection("k_proj", keys), projection("v_proj", values)];
    let gate = vec![projection("g_proj", values)];
    let strength = projection("b_proj", shape.heads);
    let inner =
        net.layer(decoder, layer, convolved, gate, [projection("a_proj", shape.heads), strength.clone()]);
    let name = |it: &str| decoder.name(layer, &format!("linear_attn.{it}"));
    let one = name("conv1d.weight");
    let weights = if decoder.config.has_tensor(&one) {
        vec![one]
    } else {
        ["q_conv1d.weight", "k_conv1d.weight", "v_conv1d.weight"].map(name).into()
    };
    let negative = decoder.config.flag("linear_allow_neg_eigval")?.unwrap_or(true);
    let norm = inner.gating.norm.map(|it| GatedNorm { gain: name("o_norm.weight"), ..it });
    Ok(Recurrence {
        convolution: Convolution { weights, ..inner.convolution },
        rule: Rule::Delta {
            strength: vec![strength],
            scale: if negative { 2.0 } else { 1.0 },
            by_channel: false,
        },
        gating: Gating { norm, ..inner.gating },
        output: decoder.projection(layer, "linear_attn.o_proj", false, decoder.d_model, values),
        ..inner
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::NoTensors;

    /// As transformers 5.24 reads them.
    #[test]
    fn attention_rotates_unless_the_base_is_null() {
        let cases = [
            (json!({}), true),
            (json!({"rope_parameters": null}), true),
            (json!({"rope_parameters": {"rope_type": "default"}}), true),
            (json!({"rope_parameters": {"rope_type": "default", "rope_theta": null}}), false),
            (json!({"rope_theta": null}), false),
            (json!({"rope_theta": 300.0}), true),
            (json!({"rope_theta": null, "rope_parameters": null}), false),
            (json!({"rope_theta": 300.0, "rope_parameters": {"rope_type": "default"}}), true),
            (json!({"rope_theta": null, "rope_parameters": {"rope_theta": 5.0}}), true),
            (json!({"rope_theta": 300.0, "rope_parameters": {"rope_theta": null}}), false),
            (json!({"rope_scaling": null, "rope_theta": null}), false),
        ];
        for (value, expected) in cases {
            assert_eq!(rotates(&Config::new(&value, &NoTensors)), expected, "{value}");
        }
    }
}
