//! How GGUF files hold models: their own names for hyper-parameters and tensors, and some rows in another order.

use serde_json::{Map, Value, json};

use super::decoder::{DIVISORS, FULL, SLIDING, heads};
use crate::config::NoTensors;
use crate::{Config, ConfigError};

/// A family's models in GGUF files.
pub struct Gguf {
    /// The architectures, as `general.architecture` names them. Models of a Hugging Face architecture whose name begins
    /// with one of them are of that one, others of the first.
    pub architectures: &'static [&'static str],
    /// Hyper-parameters under the names of `config.json`, from the metadata and the architecture's name.
    pub config: fn(&Value, &str) -> Result<Value, ConfigError>,
    /// Where a tensor lies, by its Hugging Face name and the configuration made above.
    pub tensor: fn(&Value, &str) -> Option<Stored>,
}

/// A tensor of a GGUF file.
pub struct Stored {
    /// Its name there.
    pub name: String,
    /// Row `i` of the model's tensor is row `row_order[i]` of the file's; `None`: the same order.
    pub row_order: Option<Vec<u32>>,
}

/// The key of a configuration made here by which a part of each head is rotated whatever the architecture.
pub(super) const ROTATES_AS_SAID: &str = "gguf.rotates_as_said";

/// Keys of the metadata without the architecture's prefix, and what `config.json` calls the same.
const KEYS: &[(&str, &str)] = &[
    ("attention.layer_norm_epsilon", "layer_norm_eps"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
    ("logit_scale", "logit_scale"),
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("attention.sliding_window", "sliding_window"),
    ("rope.freq_base", "rope_theta"),
    ("expert_count", "num_local_experts"),
    ("expert_used_count", "num_experts_per_tok"),
    ("expert_shared_count", "n_shared_experts"),
    ("expert_feed_forward_length", "moe_intermediate_size"),
    ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
    ("expert_weights_norm", "norm_topk_prob"),
    ("expert_weights_scale", "routed_scaling_factor"),
    ("expert_group_count", "n_group"),
    ("expert_group_used_count", "topk_group"),
    ("leading_dense_block_count", "first_k_dense_replace"),
];

/// The hyper-parameters that most decoders share.
pub(super) fn decoder_config(
    metadata: &Value,
    architecture: &str,
) -> Result<Map<String, Value>, ConfigError> {
    let mut config = Map::new();
    for (theirs, ours) in KEYS {
        if let Some(value) = metadata.get(format!("{architecture}.{theirs}")) {
            config.insert((*ours).to_owned(), value.clone());
        }
    }
    // The vocabulary is as large as the list of tokens; the key of that name is often absent.
    if let Some(tokens) = metadata.get("tokenizer.ggml.tokens").and_then(Value::as_array) {
        config.insert("vocab_size".to_owned(), json!(tokens.len()));
    } else if let Some(size) = metadata.get(format!("{architecture}.vocab_size")) {
        config.insert("vocab_size".to_owned(), size.clone());
    }
    // Which layers see a window: a list, or the last of every so many does not.
    match metadata.get(format!("{architecture}.attention.sliding_window_pattern")) {
        Some(Value::Array(slides)) => {
            let kind = |it: &Value| if it.as_bool() == Some(true) { SLIDING } else { FULL };
            config.insert("layer_types".to_owned(), slides.iter().map(kind).collect());
        }
        Some(pattern) => drop(config.insert("sliding_window_pattern".to_owned(), pattern.clone())),
        None => {}
    }
    let sizes = Config::new(metadata, &NoTensors);
    if let Some(rotated) = sizes.count(&format!("{architecture}.rope.dimension_count"))? {
        let (_, _, d_head) = heads(&Config::new(&Value::Object(config.clone()), &NoTensors))?;
        config.insert("partial_rotary_factor".to_owned(), json!(rotated as f64 / d_head as f64));
        config.insert(ROTATES_AS_SAID.to_owned(), json!(true));
    }
    if let Some(scaling) = rope_scaling(&sizes, architecture)? {
        config.insert("rope_scaling".to_owned(), scaling);
    }
    // A head of its own is in the file, or there is none.
    config.insert("tie_word_embeddings".to_owned(), json!(false));
    Ok(config)
}

/// `rope_scaling` from the metadata.
fn rope_scaling(metadata: &Config<'_>, architecture: &str) -> Result<Option<Value>, ConfigError> {
    let key = |name: &str| format!("{architecture}.rope.scaling.{name}");
    let factor = metadata.number(&key("factor"))?.unwrap_or(1.0);
    match metadata.text(&key("type"))?.unwrap_or("none") {
        "none" => Ok(None),
        "linear" => Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
        "yarn" => Ok(Some(json!({
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": metadata.get(&key("original_context_length")),
            "beta_fast": metadata.get(&key("yarn_beta_fast")),
            "beta_slow": metadata.get(&key("yarn_beta_slow")),
            "attention_factor": metadata.get(&key("yarn_attn_factor")),
        }))),
        other => Err(ConfigError::unsupported(&key("type"), other, "`none`, `linear`, `yarn`")),
    }
}

/// Modules of a layer and what GGUF files call them.
const MODULES: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
];

/// What GGUF files call the norms of [`AROUND`](super::decoder::AROUND).
pub(super) const NORMS_AROUND: &[(&str, &str)] = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// Where a tensor lies; `otherwise` are modules that the family calls otherwise than most.
pub(super) fn stored(name: &str, otherwise: &[(&str, &str)]) -> Option<Stored> {
    Some(Stored { name: decoder_tensor(name, otherwise)?, row_order: None })
}

/// The same where the rows of queries and keys lie in the order of neighbouring pairs and the model pairs halves.
pub(super) fn stored_in_neighbors(config: &Value, name: &str, otherwise: &[(&str, &str)]) -> Option<Stored> {
    let stored = stored(name, otherwise)?;
    let Ok((n_heads, n_kv_heads, d_head)) = heads(&Config::new(config, &NoTensors)) else {
        return Some(stored);
    };
    let row_order = if name.contains(".q_proj.") {
        Some(halves_from_neighbors(n_heads, d_head))
    } else if name.contains(".k_proj.") {
        Some(halves_from_neighbors(n_kv_heads, d_head))
    } else {
        None
    };
    Some(Stored { row_order, ..stored })
}

fn decoder_tensor(name: &str, otherwise: &[(&str, &str)]) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        DIVISORS => return Some(name.to_owned()),
        _ => {}
    }
    if let Some(kind) = name.strip_prefix("model.norm.") {
        return Some(format!("output_norm.{kind}"));
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    if rest == "mlp.gate.e_score_correction_bias" {
        return Some(format!("blk.{layer}.exp_probs_b.bias"));
    }
    let (module, kind) = rest.rsplit_once('.')?;
    let (_, theirs) = otherwise.iter().chain(MODULES).find(|it| it.0 == module)?;
    Some(format!("blk.{layer}.{theirs}.{kind}"))
}

/// Undoes the row order of query and key projections of architectures whose GGUF files pair neighbouring numbers
/// of a head for the rotation: there row `2 i + j` of a head is what the model has at row `i + j n`, n pairs.
fn halves_from_neighbors(heads: usize, d_head: usize) -> Vec<u32> {
    let pairs = d_head / 2;
    let row = |head: usize, j: usize, i: usize| (head * d_head + 2 * i + j) as u32;
    (0..heads).flat_map(|head| (0..2).flat_map(move |j| (0..pairs).map(move |i| row(head, j, i)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_go_back_to_halves() {
        // Two heads of four: the file holds rows 0 2 1 3 of each.
        assert_eq!(halves_from_neighbors(2, 4), [0, 2, 1, 3, 4, 6, 5, 7]);
    }

    #[test]
    fn names_are_translated_layer_by_layer() {
        let name = decoder_tensor("model.layers.12.mlp.down_proj.weight", &[]);
        assert_eq!(name.as_deref(), Some("blk.12.ffn_down.weight"));
        let name = decoder_tensor("model.layers.3.post_attention_layernorm.weight", NORMS_AROUND);
        assert_eq!(name.as_deref(), Some("blk.3.post_attention_norm.weight"));
        assert_eq!(decoder_tensor("model.layers.0.self_attn.rotary.inv_freq", &[]), None);
    }
}
