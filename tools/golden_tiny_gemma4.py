"""The tiny random checkpoints of golden_tiny.py whose layers share keys and values or have embeddings of their own."""

from golden_tiny_variants import FULL, SLIDING, TINY, VISION, Variant, two_ropes

SLIDING_ROPE = {"rope_theta": 50.0}
PROPORTIONAL = {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 500.0}

GEMMA_4 = {
    **TINY,
    "tie_word_embeddings": True,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 16,
    "num_hidden_layers": 4,
    "sliding_window": 5,
    "hidden_activation": "gelu_pytorch_tanh",
    "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
    "hidden_size_per_layer_input": 0,
    **two_ropes(PROPORTIONAL, SLIDING_ROPE),
}
PER_LAYER = {"hidden_size_per_layer_input": 6, "vocab_size_per_layer_input": 70}
# The last three layers read keys and values of the two before them.
SHARED = {
    **GEMMA_4,
    **PER_LAYER,
    "hidden_size": 24,
    "num_hidden_layers": 5,
    "intermediate_size": 24,
    "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL],
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
}
CONTAINER = {
    "vision_config": {
        **{key: value for key, value in VISION.items() if key != "image_size"},
        "num_key_value_heads": 2,
        "head_dim": 4,
        "position_embedding_size": 8,
        "pooling_kernel_size": 2,
    },
    "audio_config": None,
}

GEMMA = [
    Variant(
        name="gemma4",
        seed=4801,
        architecture="Gemma4Text",
        model_class="Gemma4ForCausalLM",
        config={
            **GEMMA_4,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "final_logit_softcapping": 10.0,
        },
        embedding=0.1,
        about="wider heads and fewer of keys in layers without a window, whose values are their keys before the norm",
        misread={
            "share of the head that is rotated": two_ropes(
                {**PROPORTIONAL, "partial_rotary_factor": 1.0}, SLIDING_ROPE
            ),
            "rotation of layers with a window": two_ropes(PROPORTIONAL, {"rope_theta": 500.0}),
            "windows": {"sliding_window": 100},
            "soft cap of logits": {"final_logit_softcapping": None},
        },
    ),
    Variant(
        name="gemma4_shared",
        seed=4602,
        architecture="Gemma4Text",
        model_class="Gemma4ForCausalLM",
        config=SHARED,
        embedding=0.1,
        about="the last three layers read keys and values of earlier ones and have wider MLPs; embeddings for each layer",
        spelling=4,
        misread={"windows": {"sliding_window": 100}},
    ),
    Variant(
        name="gemma4_bias",
        seed=4103,
        architecture="Gemma4Text",
        model_class="Gemma4ForCausalLM",
        config={
            **GEMMA_4,
            **PER_LAYER,
            "hidden_size": 24,
            "vocab_size": 61,
            "vocab_size_per_layer_input": 61,
            "tie_word_embeddings": False,
            "attention_bias": True,
            "attention_k_eq_v": True,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "num_hidden_layers": 3,
            "layer_types": [SLIDING, FULL, SLIDING],
            "num_kv_shared_layers": 1,
            "rope_parameters": None,
        },
        embedding=0.2,
        about="biases of attention, the usual rotation, a last layer that sees everything whatever is said; untied",
        misread={"attention biases": {"attention_bias": False}},
    ),
    Variant(
        name="gemma4_container",
        seed=4104,
        architecture="Gemma4",
        model_class="Gemma4ForConditionalGeneration",
        config={
            **GEMMA_4,
            "hidden_size_per_layer_input": 4,
            "vocab_size_per_layer_input": TINY["vocab_size"],
            "num_hidden_layers": 3,
            "layer_types": [SLIDING, FULL, FULL],
            "num_kv_shared_layers": 1,
        },
        container=CONTAINER,
        embedding=0.1,
        about="the language model of a container with an image tower",
        misread={"windows": {"sliding_window": 100}},
    ),
]

GEMMA += [
    Variant(
        name="gemma4_experts",
        seed=4005,
        architecture="Gemma4Text",
        model_class="Gemma4ForCausalLM",
        config={
            **GEMMA_4,
            "hidden_size": 24,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "layer_types": [SLIDING, FULL],
            "enable_moe_block": True,
            "num_experts": 6,
            "top_k_experts": 2,
            "moe_intermediate_size": 12,
        },
        embedding=0.1,
        about="two of six experts beside the MLP",
        misread={"experts of a token": {"top_k_experts": 3}},
    ),
]

# The projections of images and sound; there are no towers.
UNIFIED_CONTAINER = {
    "vision_config": {"patch_size": 2, "pooling_kernel_size": 1, "mm_embed_dim": 8, "mm_posemb_size": 4, "output_proj_dims": 8},
    "audio_config": {"audio_embed_dim": 6},
}
UNIFIED = {key: value for key, value in GEMMA_4.items() if key != "hidden_size_per_layer_input"}

GEMMA += [
    Variant(
        name="gemma4_unified",
        seed=4261,
        architecture="Gemma4UnifiedText",
        model_class="Gemma4UnifiedForCausalLM",
        config={
            **UNIFIED,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "final_logit_softcapping": 4.0,
        },
        embedding=0.15,
        spelling=4,
        about="Gemma 4 12B's layers: no embeddings of their own, values that are keys in layers without a window",
        misread={
            "share of the head that is rotated": two_ropes(
                {**PROPORTIONAL, "partial_rotary_factor": 1.0}, SLIDING_ROPE
            ),
            "windows": {"sliding_window": 100},
            "soft cap of logits": {"final_logit_softcapping": None},
        },
    ),
    Variant(
        name="gemma4_unified_container",
        seed=4202,
        architecture="Gemma4Unified",
        model_class="Gemma4UnifiedForConditionalGeneration",
        config={
            **UNIFIED,
            "num_hidden_layers": 4,
            "hidden_size": 24,
            "intermediate_size": 24,
            "layer_types": [SLIDING, FULL, SLIDING, FULL],
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
        },
        container=UNIFIED_CONTAINER,
        embedding=0.1,
        about="the language model of a container that projects images and sound; shared keys and values, wider MLPs there",
        misread={"windows": {"sliding_window": 100}},
    ),
]

VARIANTS = GEMMA
