"""The tiny random checkpoints of golden_tiny.py with mixtures of experts under attention that differs from layer to layer."""

import torch

from golden_tiny_variants import TINY, Variant

MIXTURE = {**TINY, "hidden_size": 24, "head_dim": 12, "num_key_value_heads": 1, "moe_intermediate_size": 8}

FULL, SLIDING = "full_attention", "sliding_attention"


def ropes(full: dict, sliding: dict) -> dict:
    kinds = {FULL: full, SLIDING: sliding}
    return {"rope_parameters": {kind: {"rope_type": "default", **it} for kind, it in kinds.items()}}


MIMO_ROPES = ropes(
    {"rope_theta": 5000.0, "partial_rotary_factor": 0.5}, {"rope_theta": 100.0, "partial_rotary_factor": 0.25}
)
# Those of the released model, whose configuration does not have them.
MIMO_USUAL_ROPES = ropes(
    {"rope_theta": 5e6, "partial_rotary_factor": 0.334}, {"rope_theta": 1e4, "partial_rotary_factor": 0.334}
)

MIMO_CONFIG = {
    **MIXTURE,
    "v_head_dim": 10,
    "num_attention_heads": 4,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "intermediate_size": 20,
    "attention_value_scale": 0.707,
    "sliding_window": 5,
    "layer_types": [FULL, SLIDING, SLIDING],
    **MIMO_ROPES,
}

MIMO = [
    Variant(
        name="mimo_v2_flash",
        seed=3801,
        architecture="MiMoV2Flash",
        config={**MIMO_CONFIG, **MIMO_USUAL_ROPES},
        spelling=4,
        about="values narrower than keys and multiplied, a third of each head rotated; sinks and more key/value heads in the "
        "layers with a window; a dense layer, then the two best of six experts",
        embedding=0.4,
        misread={
            "what values are multiplied with": {"attention_value_scale": 1.0},
            "the window": {"sliding_window": 4},
            "rotated numbers": MIMO_ROPES,
        },
    ),
    Variant(
        name="mimo_v2_flash_fused",
        seed=3811,
        architecture="MiMoV2Flash",
        config={
            **MIMO_CONFIG,
            "num_hidden_layers": 2,
            "v_head_dim": 17,
            "attention_bias": True,
            "n_group": 3,
            "topk_group": 2,
            "norm_topk_prob": False,
            "routed_scaling_factor": 1.7,
            "layer_types": [SLIDING, FULL],
            "mlp_layer_types": ["sparse", "sparse"],
        },
        about="values wider than keys, rotary embeddings of its own, biases, groups of experts; one tensor for all experts",
        embedding=0.4,
        fused=True,
        misread={"groups": {"n_group": 1, "topk_group": 1}, "routed_scaling_factor": {"routed_scaling_factor": 1.0}},
    ),
]

LAGUNA_CONFIG = {
    **MIXTURE,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "intermediate_size": 20,
    "shared_expert_intermediate_size": 10,
    "num_key_value_heads": 2,
    "num_attention_heads": 4,
    "sliding_window": 5,
    "layer_types": [FULL, SLIDING, SLIDING],
    **ropes({"rope_theta": 5000.0, "partial_rotary_factor": 0.5}, {"rope_theta": 100.0, "partial_rotary_factor": 1.0}),
}

LAGUNA = [
    Variant(
        name="laguna",
        seed=3901,
        architecture="Laguna",
        config={
            **LAGUNA_CONFIG,
            "num_attention_heads_per_layer": [4, 2, 6],
            "moe_routed_scaling_factor": 1.7,
            "moe_router_logit_softcapping": 2.0,
        },
        about="four, two and six heads with a gate each, router outputs that are capped; a dense layer, then experts",
        embedding=0.4,
        head_gain=1.0,
        misread={
            "the cap of router outputs": {"moe_router_logit_softcapping": 0.0},
            "moe_routed_scaling_factor": {"moe_routed_scaling_factor": 1.0},
            "the window": {"sliding_window": 4},
        },
    ),
    Variant(
        name="laguna_elements",
        seed=3915,
        architecture="Laguna",
        config={
            **LAGUNA_CONFIG,
            "num_hidden_layers": 2,
            "layer_types": [SLIDING, FULL],
            "gating": "per-element",
            "mlp_layer_types": ["sparse", "dense"],
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
        about="a gate for each number of attention's output, biases; one tensor for all experts; tied",
        embedding=0.3,
        head_gain=1.0,
        dtype=torch.float32,
        fused=True,
        misread={"experts of a token": {"num_experts_per_tok": 1}},
    ),
]

STEP_VISION = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 8,
    "patch_size": 4,
    "mlp_ratio": 1.0,
    "max_position_embeddings": 4,
}

STEP_CONFIG = {
    **{key: value for key, value in MIXTURE.items() if key != "model_type"},
    "num_attention_heads": 2,
    "num_sliding_attention_heads": 3,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "intermediate_size": 20,
    "share_expert_dim": 10,
    "moe_router_scaling_factor": 1.7,
    "sliding_window": 5,
    "layer_types": [FULL, SLIDING, SLIDING],
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "swiglu_limits": [None, 0.5, 0.0],
    "swiglu_limits_shared": [0.4, None, 0.7],
    **ropes({"rope_theta": 5000.0, "partial_rotary_factor": 0.5}, {"rope_theta": 100.0, "partial_rotary_factor": 1.0}),
}

STEP = [
    Variant(
        name="step3p7_container",
        seed=4006,
        spelling=4,
        architecture="Step3p7",
        model_class="Step3p7ForConditionalGeneration",
        config=STEP_CONFIG,
        container={"vision_config": STEP_VISION, "image_token_id": 60},
        about="the language model of a container: gates of heads, more heads in layers with a window, gains stored as the "
        "difference from 1, hidden numbers cut off in some layers; gates, up and down projections of all experts in a tensor each",
        gain_offset=0.0,
        embedding=0.4,
        head_gain=1.0,
        misread={
            "where the hidden numbers of experts are cut off": {"swiglu_limits": None},
            "where those of others are": {"swiglu_limits_shared": None},
            "the window": {"sliding_window": 4},
            "moe_router_scaling_factor": {"moe_router_scaling_factor": 1.0},
        },
    ),
    Variant(
        name="step3p7_container_fused",
        seed=4011,
        architecture="Step3p7",
        model_class="Step3p7ForConditionalGeneration",
        config={
            **STEP_CONFIG,
            "num_hidden_layers": 2,
            "layer_types": [SLIDING, FULL],
            "mlp_layer_types": ["sparse", "dense"],
            "swiglu_limits": None,
            "swiglu_limits_shared": None,
            "query_pre_attn_scalar": 30,
        },
        container={"vision_config": STEP_VISION, "image_token_id": 60},
        about="the same as transformers 5 holds it, scores divided by another number",
        gain_offset=0.0,
        embedding=0.4,
        head_gain=1.0,
        fused=True,
        misread={"what scores are divided by": {"query_pre_attn_scalar": 12}},
    ),
]

VARIANTS = [*MIMO, *LAGUNA, *STEP]
