//! Containers of language models of many families, with image towers: which family is told by the configuration of the
//! language model within.

use serde_json::Value;

/// Containers, and the kind of language model where their configuration does not say.
const CONTAINERS: &[(&str, &str)] = &[
    ("LlavaForConditionalGeneration", "llama"),
    ("LlavaNextForConditionalGeneration", "llama"),
    ("LlavaOnevisionForConditionalGeneration", "qwen2"),
    ("Mistral3ForConditionalGeneration", "mistral"),
    ("InternVLForConditionalGeneration", "qwen2"),
    ("SmolVLMForConditionalGeneration", "llama"),
    ("Idefics3ForConditionalGeneration", "llama"),
];

/// Kinds of language models, and what architecture they have outside of containers.
const MODELS: &[(&str, &str)] = &[
    ("llama", "LlamaForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("ministral3", "Ministral3ForCausalLM"),
    ("mistral4", "Mistral4ForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
];

/// The architectures of containers.
pub(super) fn architectures() -> impl Iterator<Item = &'static str> {
    CONTAINERS.iter().map(|it| it.0)
}

/// The architecture of the language model that a container holds; of what is no container, its own. Of one that holds
/// something unknown both names.
pub(super) fn language_model(architecture: &str, config: &Value) -> String {
    let Some((_, usual)) = CONTAINERS.iter().find(|it| it.0 == architecture) else {
        return architecture.to_owned();
    };
    let text = config.get("text_config");
    let kind = text.and_then(|it| it.get("model_type")).and_then(Value::as_str).unwrap_or(usual);
    let known = MODELS.iter().find(|it| it.0 == kind).map(|it| it.1.to_owned());
    known.unwrap_or_else(|| format!("{architecture} with {kind}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_read_as_what_it_holds() {
        let of = |architecture, config: Value| language_model(architecture, &config);
        let llava = "LlavaForConditionalGeneration";
        assert_eq!(of(llava, json!({"text_config": {"model_type": "mistral"}})), "MistralForCausalLM");
        assert_eq!(of(llava, json!({"text_config": {}})), "LlamaForCausalLM");
        assert_eq!(of("InternVLForConditionalGeneration", json!({"text_config": {}})), "Qwen2ForCausalLM");
        assert_eq!(of("Mistral3ForConditionalGeneration", json!({})), "MistralForCausalLM");
        assert_eq!(of("Qwen2ForCausalLM", json!({})), "Qwen2ForCausalLM");
        assert_eq!(of(llava, json!({"text_config": {"model_type": "opt"}})), format!("{llava} with opt"));
    }
}
