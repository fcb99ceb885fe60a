"""The tiny random checkpoints of golden_tiny.py that mix recurrent layers with windows or with norms of several places."""

from golden_tiny_recurrent import RECURRENT
from golden_tiny_variants import FULL, Variant, rope

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

VARIANTS = OLMO_HYBRID
