//! Qwen 3 Next, and Qwen 3.5 with experts: the layers of Qwen 3.5, and experts beside one for every token, which has a share
//! of its own.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder};
use super::qwen3_5::{self, DeltaNet};
use super::{Family, qwen3_moe};
use crate::ConfigError;
use crate::blueprint::{Blueprint, Experts, Mlp, Routing};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "qwen3_next",
    architectures: &["Qwen3NextForCausalLM"],
    blueprint: |config| {
        let decoder = Decoder::read(config, qwen3_5::TRAITS, Some(&QUARTER))?;
        let routing = Routing {
            normalized: config.flag("norm_topk_prob")?.unwrap_or(true),
            ..qwen3_moe::routing(config)?
        };
        blueprint(&decoder, routing, &qwen3_moe::Dense::read(config)?, DeltaNet::grouped)
    },
    gguf: None,
};

/// The family of Qwen 3.5 with experts.
pub(super) const FAMILY_3_5: Family = Family {
    name: "qwen3_5_moe",
    architectures: &["Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"],
    blueprint: |config| {
        let decoder = Decoder::read(config, qwen3_5::TRAITS, Some(&DEFAULTS))?;
        let routing = Routing { normalized: true, ..qwen3_moe::routing(&decoder.config)? };
        blueprint(&decoder, routing, &qwen3_moe::Dense::none(), DeltaNet::split)
    },
    gguf: None,
};

static QUARTER: LazyLock<Value> = LazyLock::new(|| json!({"partial_rotary_factor": 0.25}));

// The language model of a container may write down only what is not usual; dense MLPs there are none.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 248_320,
        "hidden_size": 2048,
        "intermediate_size": 512,
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "partial_rotary_factor": 0.25,
    })
});

fn blueprint(
    decoder: &Decoder<'_>,
    routing: Routing,
    dense: &qwen3_moe::Dense<'_>,
    recurrence: fn(&DeltaNet, &Decoder<'_>, usize) -> crate::blueprint::Recurrence,
) -> Result<Blueprint, ConfigError> {
    let config = &decoder.config;
    let net = DeltaNet::read(decoder)?;
    let width = config.size("shared_expert_intermediate_size")?;
    let none = config.count("num_experts")? == Some(0);
    decoder.blueprint(|layer| {
        let mlp = if none || dense.has(layer) {
            decoder.gated(layer)?
        } else {
            let gate = decoder.projection(layer, "mlp.shared_expert_gate", false, 1, decoder.d_model);
            Mlp::Experts(Experts {
                shared: decoder.shared(layer, "mlp.shared_expert", width)?,
                shared_gate: Some(gate),
                ..decoder.experts(layer, config.size("moe_intermediate_size")?, routing)?
            })
        };
        let attention = qwen3_5::attention(decoder, layer)?;
        let block = decoder.block(layer, attention, mlp, decoder::BEFORE)?;
        qwen3_5::mixed(decoder, layer, block, || recurrence(&net, decoder, layer))
    })
}
