"""The tiny random checkpoints of golden_tiny.py whose layers are mixtures of experts."""

import torch

from golden_tiny_variants import TINY, Variant, rope

# Eight experts of which a token goes to two; gates and up projections together are a third of a dense model's.
EXPERTS = {**TINY, "hidden_size": 24, "num_hidden_layers": 2}

QWEN3_MOE_CONFIG = {
    **EXPERTS,
    "head_dim": 16,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
    "norm_topk_prob": True,
    **rope("default", 2000.0),
}

QWEN3_MOE = [
    Variant(
        name="qwen3_moe",
        seed=2101,
        architecture="Qwen3Moe",
        config=QWEN3_MOE_CONFIG,
        about="three of eight experts, their shares made to add up to one; a tensor for each expert",
        head_gain=1.0,
        spelling=4,
        misread={
            "experts of a token": {"num_experts_per_tok": 2},
            "shares that add up to one": {"norm_topk_prob": False},
        },
    ),
    Variant(
        name="qwen3_moe_dense_layers",
        seed=2142,
        architecture="Qwen3Moe",
        config={
            **QWEN3_MOE_CONFIG,
            "num_hidden_layers": 4,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
            "intermediate_size": 20,
            "norm_topk_prob": False,
            "tie_word_embeddings": True,
        },
        about="experts in the second layer only, shares as the softmax gives them; one tensor for all experts",
        head_gain=1.0,
        fused=True,
        misread={"shares that add up to less than one": {"norm_topk_prob": True}},
    ),
]

MIXTRAL_CONFIG = {
    **EXPERTS,
    "intermediate_size": 20,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    **rope("default", 10000.0),
}

MIXTRAL = [
    Variant(
        name="mixtral",
        seed=2201,
        architecture="Mixtral",
        config=MIXTRAL_CONFIG,
        about="two of four experts; a tensor for each expert under the names w1, w2 and w3",
        spelling=4,
        misread={"experts of a token": {"num_experts_per_tok": 1}},
    ),
    Variant(
        name="mixtral_window",
        seed=2212,
        architecture="Mixtral",
        config={**MIXTRAL_CONFIG, "num_local_experts": 3, "head_dim": 10, "sliding_window": 4},
        about="a window, heads narrower than d_model / heads, one tensor for all experts",
        dtype=torch.float16,
        fused=True,
        misread={"window": {"sliding_window": None}},
    ),
]

VARIANTS = [*QWEN3_MOE, *MIXTRAL]
