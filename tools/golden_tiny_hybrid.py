"""The tiny random checkpoints of golden_tiny.py that mix recurrent layers with windows or with norms of several places."""

from golden_tiny_recurrent import RECURRENT
from golden_tiny_variants import FULL, SLIDING, VISION, Variant, rope, two_ropes

NO_ROTATION = {"rope_parameters": {"rope_type": "default", "rope_theta": None}}

OLMO_HYBRID_CONFIG = {
    **RECURRENT,
    "intermediate_size": 24,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 10,
}

OLMO_HYBRID = [
    Variant(
        name="olmo_hybrid",
        seed=3701,
        architecture="OlmoHybrid",
        config={**OLMO_HYBRID_CONFIG, **NO_ROTATION},
        about="delta nets with strengths up to 2, a fourth layer of attention with norms after its branches; no rotation",
        misread={
            "strengths": {"linear_allow_neg_eigval": False},
            "rotation": rope("default", 100.0),
        },
    ),
    Variant(
        name="olmo_hybrid_fused",
        seed=3722,
        architecture="OlmoHybrid",
        config={
            **OLMO_HYBRID_CONFIG,
            "num_hidden_layers": 3,
            "linear_num_key_heads": 4,
            "linear_key_head_dim": 5,
            "linear_value_head_dim": 4,
            "linear_conv_kernel_dim": 3,
            "linear_allow_neg_eigval": False,
            "attention_bias": True,
            "tie_word_embeddings": True,
            "layer_types": ["linear_attention", FULL, "linear_attention"],
            **rope("default", 500.0),
        },
        about="the names of transformers 5, one tensor for each convolution; strengths up to 1, biases, a rotation; tied",
        fused=True,
        spelling=4,
        misread={
            "strengths": {"linear_allow_neg_eigval": True},
            "attention biases": {"attention_bias": False},
            "rope_theta": rope("default", 5.0),
        },
    ),
]

LFM3_CONFIG = {
    **{key: value for key, value in RECURRENT.items() if key != "rms_norm_eps"},
    "norm_eps": 1e-5,
    "intermediate_size": 36,
    "head_dim": 8,
    "sliding_window": 4,
    "num_hidden_layers": 5,
    "tie_word_embeddings": True,
    **two_ropes({"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 500.0}, {"rope_theta": 50.0}),
}

LFM3 = [
    Variant(
        name="lfm3",
        seed=3801,
        architecture="Lfm3",
        config=LFM3_CONFIG,
        about="convolutions over seven positions, attention with and without a window, a gate for each head; tied",
        head_gain=1.0,
        misread={
            "windows": {"sliding_window": 100},
            "gates": {"use_attention_gate": False},
            "norms after the branches": {"use_sandwich_norm": False},
            "rotation": two_ropes({"rope_theta": 500.0}, {"rope_theta": 50.0}),
        },
    ),
    Variant(
        name="lfm3_plain",
        seed=3802,
        architecture="Lfm3",
        config={
            **LFM3_CONFIG,
            "num_hidden_layers": 4,
            "conv_L_cache": 4,
            "conv_bias": True,
            "attention_bias": True,
            "use_attention_gate": False,
            "use_sandwich_norm": False,
            "tie_word_embeddings": False,
            "layer_types": [SLIDING, "conv", FULL, "conv"],
            "rope_parameters": None,
        },
        about="biases, no gates and no norms after the branches, the usual rotation; a head of its own",
        spelling=4,
        head_gain=1.0,
        misread={"biases": {"conv_bias": False}, "attention biases": {"attention_bias": False}},
    ),
    Variant(
        name="lfm3_vl_container",
        seed=3803,
        architecture="Lfm3Vl",
        model_class="Lfm3VlForConditionalGeneration",
        config={
            **LFM3_CONFIG,
            "model_type": "lfm3",
            "vocab_size": 61,
            "hidden_size": 24,
            "head_dim": 6,
            "num_hidden_layers": 3,
            "layer_types": ["conv", SLIDING, FULL],
        },
        container={
            "vision_config": {**VISION, "model_type": "lfm3_vl_vision", "num_key_value_heads": 1, "layer_types": ["conv"]},
            "image_token_id": 60,
            "video_token_id": 60,
            "vision_start_token_id": 60,
            "vision_end_token_id": 60,
            "projector_hidden_size": 8,
            "tie_word_embeddings": True,
        },
        about="the language model of a container with an image tower; tied",
        head_gain=1.0,
        fused=True,
        misread={"windows": {"sliding_window": 100}},
    ),
]

VARIANTS = [*OLMO_HYBRID, *LFM3]
