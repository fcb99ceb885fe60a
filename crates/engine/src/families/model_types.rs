//! Which architecture a configuration means that does not name one: its `model_type` says it, as it does for transformers.

use serde_json::Value;

use super::{FAMILIES, containers};

/// Kinds whose names are not those of their architectures, but for case and underscores.
const OTHERWISE: &[(&str, &str)] = &[
    ("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM"),
    ("hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM"),
    ("minimax", "MiniMaxForCausalLM"),
];

/// What architectures of language models, alone and in containers, end with.
const ALONE: &str = "ForCausalLM";
const CONTAINER: &str = "ForConditionalGeneration";

/// The architecture that `model_type` means, if it is one that is known here. Where a kind has both, a part for the language
/// model tells a container.
pub(super) fn architecture(config: &Value) -> Option<&'static str> {
    let kind = config.get("model_type")?.as_str()?;
    let known = || {
        let of_families = FAMILIES.iter().flat_map(|it| it.architectures.iter().copied());
        of_families.chain(containers::architectures())
    };
    if let Some((_, name)) = OTHERWISE.iter().find(|it| it.0 == kind) {
        return known().find(|it| it == name);
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "");
    let named = |kind: &str, ending: &str| {
        let kind = plain(kind);
        known().find(|it| it.strip_suffix(ending).is_some_and(|it| plain(it) == kind))
    };
    let alone = || named(kind, ALONE).or_else(|| named(kind.strip_suffix("_text")?, ALONE));
    let holds = config.get("text_config").is_some_and(Value::is_object);
    if holds { named(kind, CONTAINER).or_else(alone) } else { alone().or_else(|| named(kind, CONTAINER)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_of_model_means_an_architecture() {
        let of = |kind: &str| architecture(&json!({ "model_type": kind }));
        let holding = |kind: &str| architecture(&json!({"model_type": kind, "text_config": {}}));
        assert_eq!(of("llama"), Some("LlamaForCausalLM"));
        assert_eq!(of("granitemoehybrid"), Some("GraniteMoeHybridForCausalLM"));
        assert_eq!(of("hunyuan_v1_dense"), Some("HunYuanDenseV1ForCausalLM"));
        assert_eq!(of("gemma3_text"), Some("Gemma3ForCausalLM"));
        assert_eq!(of("qwen2_vl"), Some("Qwen2VLForConditionalGeneration"));
        assert_eq!(holding("gemma3"), Some("Gemma3ForConditionalGeneration"));
        assert_eq!(holding("llava"), Some("LlavaForConditionalGeneration"));
        assert_eq!((of("globo"), of("")), (None, None));
    }
}
