//! Qwen 3.5: gated delta nets, and attention with a gate in every fourth layer.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::recurrent::size_within;
use crate::blueprint::{
    Attention, Block, Blueprint, Branch, Convolution, GatedNorm, Gating, Mixer, OutputGate, Projection, Rate,
    Recurrence, RecurrenceShape, Rule, Share,
};
use crate::config::kind_of_layer;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "qwen3_5",
    architectures: &["Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"],
    blueprint,
    gguf: None,
};

pub(super) const TRAITS: Traits = Traits { gain_offset: 1.0, partial: true, ..decoder::LLAMA };

// The language model of a container may write down only what is not usual.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 248_320,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "partial_rotary_factor": 0.25,
    })
});

/// Kinds of layers: whether a layer attends.
const LAYERS: &[(&str, bool)] = &[("full_attention", true), ("linear_attention", false)];

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, Some(&DEFAULTS))?;
    let net = DeltaNet::read(&decoder)?;
    decoder.blueprint(|layer| {
        let block =
            decoder.block(layer, attention(&decoder, layer)?, decoder.gated(layer)?, decoder::BEFORE)?;
        mixed(&decoder, layer, block, || net.split(&decoder, layer))
    })
}

/// The block with a delta net in place of its attention, if it is not a layer that attends.
pub(super) fn mixed(
    decoder: &Decoder<'_>,
    layer: usize,
    block: Block,
    net: impl FnOnce() -> Recurrence,
) -> Result<Block, ConfigError> {
    let attends = if let Some(list) = decoder.config.list("layer_types")? {
        kind_of_layer(list, "layer_types", layer, LAYERS)?
    } else {
        let interval = size_within(&decoder.config, "full_attention_interval", 4)?;
        (layer + 1).is_multiple_of(interval)
    };
    if attends {
        return Ok(block);
    }
    Ok(Block { mixer: Branch { inner: Mixer::Recurrence(net()), ..block.mixer }, ..block })
}

/// Attention with norms of heads and a gate, which lies beside the queries of each head.
pub(super) fn attention(decoder: &Decoder<'_>, layer: usize) -> Result<Attention, ConfigError> {
    let attention = decoder.attention(layer, false)?;
    let (d_head, width) = (decoder.d_head, decoder.n_heads * decoder.d_head);
    let half = |first| {
        let share = Share { together: d_head, step: 2 * d_head, ..Share::part(first, 2 * width) };
        Projection { share: Some(share), ..attention.query.clone() }
    };
    Ok(Attention {
        query: half(0),
        gate: Some(OutputGate::sigmoid(vec![half(d_head)])),
        query_norm: Some(decoder.norm(layer, "self_attn.q_norm", d_head)?),
        key_norm: Some(decoder.norm(layer, "self_attn.k_norm", d_head)?),
        ..attention
    })
}

/// The sizes of the delta nets.
pub(super) struct DeltaNet {
    pub(super) shape: RecurrenceShape,
    taps: usize,
    epsilon: f32,
}

impl DeltaNet {
    pub(super) fn read(decoder: &Decoder<'_>) -> Result<Self, ConfigError> {
        let config = &decoder.config;
        let groups = size_within(config, "linear_num_key_heads", 16)?;
        let heads = size_within(config, "linear_num_value_heads", 32)?;
        // It is the activation behind the convolution and of the gate as well.
        config.word("hidden_act", "silu", &[("silu", ()), ("swish", ())])?;
        let d_key = size_within(config, "linear_key_head_dim", 128)?;
        let d_value = size_within(config, "linear_value_head_dim", 128)?;
        let epsilon = config.number("rms_norm_eps")?.unwrap_or(1e-6) as f32;
        Self::of_sizes(config, [groups, heads, d_key, d_value], epsilon)
    }

    /// With so many heads of keys and of values, of these widths.
    pub(super) fn of_sizes(
        config: &Config<'_>,
        [groups, heads, d_key, d_value]: [usize; 4],
        epsilon: f32,
    ) -> Result<Self, ConfigError> {
        if !heads.is_multiple_of(groups) {
            let known = format!("the multiples of linear_num_key_heads = {groups}");
            return Err(ConfigError::unsupported("linear_num_value_heads", heads, known));
        }
        let keys = groups.saturating_mul(d_key);
        let shape = RecurrenceShape {
            heads,
            groups,
            d_key,
            d_value,
            queries: 0,
            keys,
            values: keys.saturating_mul(2),
        };
        if shape.channels() > decoder::WIDEST {
            let known = format!("up to {} channels in all", decoder::WIDEST);
            return Err(ConfigError::unsupported("linear_num_value_heads", heads, known));
        }
        Ok(Self { shape, taps: size_within(config, "linear_conv_kernel_dim", 4)?, epsilon })
    }

    /// A layer with a tensor for each projection.
    pub(super) fn split(&self, decoder: &Decoder<'_>, layer: usize) -> Recurrence {
        let (heads, width) = (self.shape.heads, self.shape.outputs());
        let projection = |name: &str, outputs| {
            decoder.projection(layer, &format!("linear_attn.{name}"), false, outputs, decoder.d_model)
        };
        self.layer(
            decoder,
            layer,
            vec![projection("in_proj_qkv", self.shape.channels())],
            vec![projection("in_proj_z", width)],
            [projection("in_proj_a", heads), projection("in_proj_b", heads)],
        )
    }

    /// A layer with two tensors, in which the parts of each key head lie side by side.
    pub(super) fn grouped(&self, decoder: &Decoder<'_>, layer: usize) -> Recurrence {
        let RecurrenceShape { heads, groups, d_key, d_value, .. } = self.shape;
        let each = heads / groups; // value heads of a key head
        let part = |name: &str, first, together, step| {
            let share = Share { together, step, ..Share::part(first, groups * step) };
            let name = format!("linear_attn.{name}");
            Projection {
                share: Some(share),
                ..decoder.projection(layer, &name, false, groups * together, decoder.d_model)
            }
        };
        let step = 2 * d_key + 2 * each * d_value;
        let of_all = |first, together| part("in_proj_qkvz", first, together, step);
        let convolved = vec![of_all(0, d_key), of_all(d_key, d_key), of_all(2 * d_key, each * d_value)];
        let gate = vec![of_all(2 * d_key + each * d_value, each * d_value)];
        let strength = part("in_proj_ba", 0, each, 2 * each);
        let decay = part("in_proj_ba", each, each, 2 * each);
        self.layer(decoder, layer, convolved, gate, [decay, strength])
    }

    /// A layer whose convolution, norm and writer are called as in Qwen 3.5.
    pub(super) fn layer(
        &self,
        decoder: &Decoder<'_>,
        layer: usize,
        convolved: Vec<Projection>,
        gate: Vec<Projection>,
        [decay, strength]: [Projection; 2],
    ) -> Recurrence {
        let name = |name: &str| decoder.name(layer, &format!("linear_attn.{name}"));
        let width = self.shape.outputs();
        Recurrence {
            shape: self.shape,
            convolved,
            convolution: Convolution {
                weights: vec![name("conv1d.weight")],
                bias: None,
                channels: self.shape.channels(),
                taps: self.taps,
            },
            latents: None,
            gate,
            decay: vec![decay],
            decay_bias: name("dt_bias"),
            rate: Rate::Logarithm(name("A_log")),
            rule: Rule::Delta { strength: vec![strength], scale: 1.0, by_channel: false },
            gating: Gating {
                norm: Some(GatedNorm {
                    gain: name("norm.weight"),
                    shared: true,
                    width: self.shape.d_value,
                    epsilon: self.epsilon,
                }),
                gate_first: false,
                sigmoid: false,
            },
            output: decoder.projection(layer, "linear_attn.out_proj", false, decoder.d_model, width),
        }
    }
}
