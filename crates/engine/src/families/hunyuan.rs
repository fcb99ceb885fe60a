//! Hunyuan, dense and with experts: a norm of each query and key head after the rotation; in longer contexts the rotary base is
//! larger; experts in every layer, and one for every token.

use serde_json::Value;

use super::Family;
use super::decoder::{self, Decoder, Traits};
use crate::blueprint::{Attention, Blueprint, Experts, Mlp, Pairing, Rope, Routing};
use crate::rope::plain_rope;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "hunyuan",
    architectures: &["HunYuanDenseV1ForCausalLM", "HunYuanMoEV1ForCausalLM"],
    blueprint,
    gguf: None,
};

const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), ..decoder::LLAMA };

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, TRAITS, None)? };
    let rope = stretched(config, decoder.d_head)?;
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, false)?;
        let attention = Attention {
            query_norm: Some(decoder.norm(layer, "self_attn.query_layernorm", decoder.d_head)?),
            key_norm: Some(decoder.norm(layer, "self_attn.key_layernorm", decoder.d_head)?),
            norms_last: true,
            rope: rope.clone().or(attention.rope),
            ..attention
        };
        let mlp = match config.get("num_experts") {
            None => decoder.gated(layer)?,
            Some(_) => Mlp::Experts(Experts {
                shared: decoder.shared(layer, "mlp.shared_mlp", decoder.d_mlp)?,
                ..decoder.experts(layer, decoder.d_mlp, routing(config, layer)?)?
            }),
        };
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}

/// How a layer chooses; layers may differ in how many experts a token is sent to.
fn routing(config: &Config<'_>, layer: usize) -> Result<Routing, ConfigError> {
    const KEY: &str = "moe_topk";
    let chosen = match config.get(KEY) {
        None => 1,
        Some(Value::Array(listed)) => {
            let found = listed.get(layer).and_then(Value::as_u64).and_then(|it| usize::try_from(it).ok());
            found.ok_or_else(|| ConfigError::Missing { key: format!("{KEY}[{layer}]") })?
        }
        Some(_) => config.size(KEY)?,
    };
    Ok(Routing::by_softmax(chosen))
}

/// The rotary embedding where it is called dynamic and has an `alpha`: the base is multiplied with alpha^(d / (d − 2)),
/// whatever the length of the sequence.
fn stretched(config: &Config<'_>, d_head: usize) -> Result<Option<Rope>, ConfigError> {
    let Some(scaling) = crate::rope::said(config) else { return Ok(None) };
    let kind = scaling.text("rope_type")?.or(scaling.text("type")?);
    let Some(alpha) = scaling.number("alpha")?.filter(|&it| it != 0.0 && kind == Some("dynamic")) else {
        return Ok(None);
    };
    let theta = scaling.number("rope_theta")?.or(config.number("rope_theta")?).unwrap_or(TRAITS.theta);
    let width = d_head as f64;
    Ok(Some(plain_rope(d_head, theta * alpha.powf(width / (width - 2.0)), Pairing::Halves)))
}
