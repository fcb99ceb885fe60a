//! How GGUF files hold models: their own names for hyper-parameters and tensors, and some rows in another order.

use serde_json::{Map, Value, json};

use crate::ConfigError;

/// A family's models in GGUF files.
pub struct Gguf {
    /// The architectures, as `general.architecture` names them.
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

/// Keys of the metadata without the architecture's prefix, and what `config.json` calls the same.
const KEYS: &[(&str, &str)] = &[
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
];

/// The hyper-parameters that most decoders share.
pub(super) fn decoder_config(metadata: &Value, architecture: &str) -> Map<String, Value> {
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
    config
}

/// The tensor names that most decoders share.
pub(super) fn decoder_tensor(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let module = match module {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{module}.{kind}"))
}

/// Undoes the row order of query and key projections of architectures whose GGUF files pair neighbouring numbers
/// of a head for the rotation: there row `2 i + j` of a head is what the model has at row `i + j n`, n pairs.
pub(super) fn halves_from_neighbors(heads: usize, d_head: usize) -> Vec<u32> {
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
        let name = decoder_tensor("model.layers.12.mlp.down_proj.weight");
        assert_eq!(name.as_deref(), Some("blk.12.ffn_down.weight"));
        assert_eq!(decoder_tensor("model.layers.0.self_attn.rotary.inv_freq"), None);
    }
}
