//! Falcon-H1: Mamba-2 and attention side by side in every block, their outputs added, and a multiplier almost everywhere.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Norms, Traits};
use super::recurrent::{Mamba, MambaNorm};
use crate::blueprint::{
    Attention, Block, Blueprint, Branch, FeedForward, Gain, Mixer, Mlp, Norm, Projection,
};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "falcon_h1", architectures: &["FalconH1ForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), ..decoder::LLAMA };

/// The norm that attention and Mamba-2 read through, each with a multiplier of its own.
const ENTRY: &str = "input_layernorm";

const NORMS: Norms =
    Norms { before_attention: Some(ENTRY), before_mlp: Some("pre_ff_layernorm"), ..decoder::BEFORE };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| json!({"mamba_d_ssm": 1024}));

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, Some(&DEFAULTS))?;
    let config = &decoder.config;
    // It is the activation behind the convolution as well.
    config.word("hidden_act", "silu", &[("silu", ()), ("swish", ())])?;
    let multiplier = |key: &str| Ok::<_, ConfigError>(config.number(key)?.unwrap_or(1.0) as f32);
    let mamba = mamba(&decoder)?;
    let [of_gates, of_mlp] = multipliers(config, "mlp_multipliers")?;
    let of_keys = multiplier("key_multiplier")?;
    let (into_attention, into_mamba) =
        (multiplier("attention_in_multiplier")?, multiplier("ssm_in_multiplier")?);
    let (of_attention, of_mamba) =
        (multiplier("attention_out_multiplier")?, multiplier("ssm_out_multiplier")?);
    let mut blueprint = decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, false)?;
        let key = Projection { scale: of_keys, ..attention.key };
        let mlp = decoder.gated_in(layer, "feed_forward", decoder.d_mlp)?;
        let gate = mlp.gate.map(|it| Projection { scale: of_gates, ..it });
        let mlp = Mlp::Dense(FeedForward { gate, ..mlp });
        let block = decoder.block(layer, Attention { key, ..attention }, mlp, NORMS)?;
        let entry = decoder.norm(layer, ENTRY, decoder.d_model)?;
        let norm = |by| {
            let gain = Gain::Scaled { tensor: decoder.name(layer, &format!("{ENTRY}.weight")), by };
            Some(Norm { gain, ..entry.clone() })
        };
        Ok(Block {
            beside: Some(Branch {
                pre_norm: norm(into_mamba),
                inner: Mixer::Recurrence(mamba.layer(&decoder, layer, "mamba")?),
                post_norm: None,
                scale: of_mamba,
            }),
            mixer: Branch { pre_norm: norm(into_attention), scale: of_attention, ..block.mixer },
            mlp: Branch { scale: of_mlp, ..block.mlp },
            ..block
        })
    })?;
    blueprint.embedding.scale = multiplier("embedding_multiplier")?;
    blueprint.head.scale = multiplier("lm_head_multiplier")?;
    blueprint.final_norm =
        decoder.named_norm(&format!("{}.final_layernorm", decoder.root), decoder.d_model)?;
    Ok(blueprint)
}

fn mamba(decoder: &Decoder<'_>) -> Result<Mamba, ConfigError> {
    let config = &decoder.config;
    let mamba = Mamba::read(decoder)?;
    let gate_first = !config.flag("mamba_norm_before_gate")?.unwrap_or(true);
    let normed = config.flag("mamba_rms_norm")?.unwrap_or(false);
    Ok(Mamba {
        output_bias: config.flag("projectors_bias")?.unwrap_or(false),
        multipliers: multipliers(config, "ssm_multipliers")?,
        norm: mamba.norm.filter(|_| normed).map(|it| MambaNorm { gate_first, ..it }),
        ..mamba
    })
}

/// So many numbers under a key; ones where there is none.
fn multipliers<const N: usize>(config: &Config<'_>, key: &str) -> Result<[f32; N], ConfigError> {
    let Some(numbers) = config.numbers(key)? else { return Ok([1.0; N]) };
    let all = <[f64; N]>::try_from(numbers);
    let all = all.map_err(|found| {
        ConfigError::unsupported(key, format!("{} numbers", found.len()), format!("{N} of them"))
    })?;
    Ok(all.map(|it| it as f32))
}
