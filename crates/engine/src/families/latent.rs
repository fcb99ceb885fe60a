//! Latent attention as DeepSeek's checkpoints have it, and the experts that come with it.

use super::decoder::{Decoder, FULL, WIDEST};
use super::experts;
use crate::backend::LatentShape;
use crate::blueprint::{Experts, LatentAttention, Mlp, Norm, Pairing, Rope, Routing, Scores};
use crate::rope::{rope, score_scale};
use crate::{Config, ConfigError};

/// The epsilon of the norms of latents, whatever the configuration has for the others.
const EPSILON: f32 = 1e-6;

impl Decoder<'_> {
    /// A layer's latent attention.
    pub(super) fn latent_attention(
        &self,
        layer: usize,
        pairing: Pairing,
    ) -> Result<LatentAttention, ConfigError> {
        let shape = self.latent_shape()?;
        self.latent_attention_with(layer, shape, self.latent_rope(&shape, pairing, shape.d_rope)?)
    }

    /// The same with a rotary embedding of its own.
    pub(super) fn latent_attention_with(
        &self,
        layer: usize,
        shape: LatentShape,
        rope: Rope,
    ) -> Result<LatentAttention, ConfigError> {
        let Self { config, n_heads, d_model, output_bias, .. } = *self;
        let (d_query, d_kept) = (shape.d_query(), shape.d_kept());
        let projection = |name: &str, bias, outputs, inputs| {
            self.projection(layer, &format!("self_attn.{name}"), bias, outputs, inputs)
        };
        let norm = |name: &str, width| -> Result<Norm, ConfigError> {
            Ok(Norm { epsilon: EPSILON, ..self.norm(layer, &format!("self_attn.{name}"), width)? })
        };
        let (query_latent, query) = if config.count("q_lora_rank")?.is_some() {
            let width = config.size("q_lora_rank")?;
            let before = projection("q_a_proj", self.qkv_bias, width, d_model);
            let query = projection("q_b_proj", false, n_heads * d_query, width);
            (Some((before, norm("q_a_layernorm", width)?)), query)
        } else {
            (None, projection("q_proj", false, n_heads * d_query, d_model))
        };
        let expanded = n_heads * (shape.d_nope + shape.d_value);
        Ok(LatentAttention {
            query_latent,
            query,
            latent: projection("kv_a_proj_with_mqa", self.qkv_bias, d_kept, d_model),
            latent_norm: norm("kv_a_layernorm", shape.d_latent)?,
            expansion: projection("kv_b_proj", false, expanded, shape.d_latent),
            rope,
            chosen: None,
            output: projection("o_proj", output_bias, d_model, n_heads * shape.d_value),
            shape,
        })
    }

    /// The rotary embedding of the shared key as that of the share of heads of `width` that the configuration names.
    pub(super) fn latent_rope(
        &self,
        shape: &LatentShape,
        pairing: Pairing,
        width: usize,
    ) -> Result<Rope, ConfigError> {
        let rope = rope(&self.config, FULL, width, self.traits.theta, pairing, true)?;
        if 2 * rope.frequencies.len() != shape.d_rope {
            return Err(ConfigError::unsupported(
                "partial_rotary_factor",
                format!("{} rotated numbers of {width}", 2 * rope.frequencies.len()),
                format!("what leaves qk_rope_head_dim = {}", shape.d_rope),
            ));
        }
        Ok(rope)
    }

    pub(super) fn latent_shape(&self) -> Result<LatentShape, ConfigError> {
        let Self { config, n_heads, n_kv_heads, d_model, .. } = *self;
        if n_kv_heads != n_heads {
            let known = format!("num_attention_heads = {n_heads}, since every head has keys of its own");
            return Err(ConfigError::unsupported("num_key_value_heads", n_kv_heads, known));
        }
        let (d_latent, d_nope) = (config.size("kv_lora_rank")?, config.size("qk_nope_head_dim")?);
        let d_rope = config.size("qk_rope_head_dim")?;
        let d_value = match config.count("v_head_dim")? {
            None => d_model / n_heads,
            Some(_) => config.size("v_head_dim")?,
        };
        let widest = d_latent.max(d_nope).max(d_value).saturating_add(d_rope);
        if widest.saturating_mul(n_heads) > WIDEST {
            let known = format!("up to {WIDEST} numbers in all heads");
            return Err(ConfigError::unsupported(
                "num_attention_heads",
                format!("{n_heads} heads of {widest}"),
                known,
            ));
        }
        if !d_rope.is_multiple_of(2) {
            return Err(ConfigError::unsupported("qk_rope_head_dim", d_rope, "even numbers"));
        }
        let scale = score_scale(&config, FULL)? / ((d_nope + d_rope) as f64).sqrt();
        Ok(LatentShape { n_heads, d_latent, d_nope, d_rope, d_value, scale: scale as f32 })
    }

    /// A layer's experts, chosen as told, and one that every token is sent to.
    pub(super) fn sparse(&self, layer: usize, routing: Routing) -> Result<Mlp, ConfigError> {
        let width = self.config.size("moe_intermediate_size")?;
        let shared = self.config.count("n_shared_experts")?.unwrap_or(0).saturating_mul(width);
        let correction = self.name(layer, "mlp.gate.e_score_correction_bias");
        Ok(Mlp::Experts(Experts {
            correction: self.config.has_tensor(&correction).then_some(correction),
            shared: self.shared(layer, "mlp.shared_experts", shared)?,
            ..self.experts(layer, width, routing)?
        }))
    }
}

/// Experts by logistic scores, after a choice among groups of them by the two best of each (DeepSeek-AI 2024,
/// arXiv:2412.19437, section 2.1.2).
pub(super) fn by_logistic_scores(config: &Config<'_>) -> Result<Routing, ConfigError> {
    config.word("scoring_func", "sigmoid", &[("sigmoid", ())])?;
    config.word("topk_method", "noaux_tc", &[("noaux_tc", ())])?;
    experts::in_told_groups(config, Scores::Sigmoid)
}

/// Refuses models whose layers with experts alternate with others.
pub(super) fn refuse_alternation(config: &Config<'_>) -> Result<(), ConfigError> {
    match config.count("moe_layer_freq")? {
        None | Some(1) => Ok(()),
        Some(step) => Err(ConfigError::unsupported("moe_layer_freq", step, "`1`")),
    }
}

/// Which numbers of a head form rotated pairs, where the configuration says so.
pub(super) fn pairing(config: &Config<'_>) -> Result<Pairing, ConfigError> {
    Ok(match config.flag("rope_interleave")? {
        Some(false) | None => Pairing::Halves,
        Some(true) => Pairing::Neighbors,
    })
}
