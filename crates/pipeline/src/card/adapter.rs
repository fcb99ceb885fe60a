//! What the card of an adapter says beside that of a model.

use std::fmt::Write as _;

use super::original::Original;
use crate::{Adapter, AdapterKind};

/// The metadata: the original's, for an adapter of it.
pub(super) fn metadata(adapter: &Adapter, original: &Original, name: &str) -> String {
    let relation = ("base_model_relation", "adapter");
    match adapter.kind() {
        AdapterKind::Gguf => original.metadata(name, &["ablate", "abliterated", "lora", "gguf"], &[relation]),
        AdapterKind::Lora | AdapterKind::Dora => original.metadata(
            name,
            &["ablate", "abliterated", adapter.kind().name()],
            &[relation, ("library_name", "peft")],
        ),
    }
}

/// What is here, and how it is added to the original.
pub(super) fn how_to_use(adapter: &Adapter, scored: bool, name: &str) -> String {
    let exactness = match adapter.relative_error() {
        None => "It makes the edited model exactly, but for rounding.".to_owned(),
        Some(error) => format!(
            "The edit keeps the lengths of the weights' rows, which factors of rank {} do not do exactly: {:.2} % of what \
             it adds to the weights is missing. The scores below are those of the {}.",
            adapter.rank(),
            100.0 * error,
            if scored { "model with this adapter" } else { "exact edit" },
        ),
    };
    let use_it = match adapter.kind() {
        AdapterKind::Gguf => "```sh\nllama-cli -m MODEL.gguf --lora adapter.gguf\n```".to_owned(),
        AdapterKind::Lora | AdapterKind::Dora => format!(
            "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n\
             model = AutoModelForCausalLM.from_pretrained({})\n\
             model = PeftModel.from_pretrained(model, \"FOLDER\")\n```",
            serde_json::Value::from(name),
        ),
    };
    let kind = if adapter.kind() == AdapterKind::Dora { "DoRA" } else { "LoRA" };
    format!(
        " This is what changes, as a {kind} adapter of rank {} for the original. {exactness}\n\n## Use\n\n{use_it}",
        adapter.rank()
    )
}

/// How far each weight is from the exact one.
pub(super) fn errors(adapter: &Adapter) -> String {
    let rows = adapter.approximations();
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n## What is missing\n\nThe length of what is missing over that of what the edit adds to the weight.\n\n\
         | tensor | relative error |\n|---|---|\n",
    );
    for it in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {:.4} |", it.tensor, it.relative_error);
    }
    text
}
