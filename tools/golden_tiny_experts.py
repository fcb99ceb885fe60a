"""The tiny random checkpoints of golden_tiny.py whose layers are mixtures of experts."""

import torch

from golden_tiny_variants import FULL, SLIDING, TINY, Variant, rope

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
        dtype=torch.float32,
        spelling=4,
        misread={"experts of a token": {"num_experts_per_tok": 1}},
    ),
    Variant(
        name="mixtral_window",
        seed=2212,
        architecture="Mixtral",
        config={**MIXTRAL_CONFIG, "num_local_experts": 3, "head_dim": 10, "sliding_window": 4},
        about="a window, heads wider than d_model / heads, one tensor for all experts",
        dtype=torch.float32,
        fused=True,
        misread={"window": {"sliding_window": None}},
    ),
]

OLMOE_CONFIG = {
    **EXPERTS,
    "intermediate_size": 12,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    **rope("default", 10000.0),
}

OLMOE = [
    Variant(
        name="olmoe",
        seed=2301,
        architecture="Olmoe",
        config=OLMOE_CONFIG,
        about="three of six experts, shares as the softmax gives them; norms over all queries and over all keys",
        head_gain=1.0,
        misread={"shares that add up to less than one": {"norm_topk_prob": True}},
    ),
    Variant(
        name="olmoe_clipped",
        seed=2322,
        architecture="Olmoe",
        config={**OLMOE_CONFIG, "norm_topk_prob": True, "clip_qkv": 0.8, "attention_bias": True},
        about="queries, keys and values cut off, biases of attention, shares that add up to one",
        head_gain=1.0,
        spelling=4,
        fused=True,
        misread={
            "shares that add up to one": {"norm_topk_prob": False},
            "where numbers are cut off": {"clip_qkv": None},
        },
    ),
]

GRANITE_MOE_CONFIG = {
    **EXPERTS,
    "intermediate_size": 12,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "embedding_multiplier": 1.5,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.6,
    "logits_scaling": 2.0,
    "tie_word_embeddings": True,
    **rope("default", 10000.0),
}

GRANITE_MOE = [
    Variant(
        name="granitemoe",
        seed=2410,
        architecture="GraniteMoe",
        config={**GRANITE_MOE_CONFIG, "embedding_multiplier": 0.5, "residual_multiplier": 1.6},
        about="experts in one tensor under the names of Granite, multipliers; tied",
        spelling=4,
        misread={
            "residual_multiplier": {"residual_multiplier": 1.0},
            "experts of a token": {"num_experts_per_tok": 1},
        },
    ),
    Variant(
        name="granitemoe_shared",
        seed=2442,
        architecture="GraniteMoeShared",
        config={**GRANITE_MOE_CONFIG, "shared_intermediate_size": 20, "tie_word_embeddings": False, "attention_bias": True},
        about="one more expert for every token; biases of attention",
        misread={"attention_multiplier": {"attention_multiplier": 0.4}},
    ),
    Variant(
        name="granitemoe_fused",
        seed=2433,
        architecture="GraniteMoe",
        config={**GRANITE_MOE_CONFIG, "tie_word_embeddings": False},
        about="the names of transformers 5",
        dtype=torch.float16,
        fused=True,
        misread={"logits_scaling": {"logits_scaling": 1.0}},
    ),
]

GRANITE_MOE_SWA = [
    Variant(
        name="granitemoe_swa",
        seed=2501,
        architecture="GraniteMoeSWA",
        config={
            **GRANITE_MOE_CONFIG,
            "embedding_multiplier": 0.5,
            "residual_multiplier": 1.6,
            "num_hidden_layers": 3,
            "sliding_window": 4,
            "layer_types": [FULL, SLIDING, SLIDING],
            "layer_rope_theta": [500.0, 0.0, 100.0],
        },
        about="experts, sinks, windows, a layer without rotary positions; tied",
        misread={
            "windows": {"sliding_window": 100},
            "rotary bases": {"layer_rope_theta": [500.0] * 3},
            "experts of a token": {"num_experts_per_tok": 1},
        },
    ),
    Variant(
        name="granitemoe_swa_shared",
        seed=2502,
        architecture="GraniteMoeSWA",
        config={
            **GRANITE_MOE_CONFIG,
            "num_hidden_layers": 2,
            "sliding_window": 4,
            "shared_intermediate_size": 20,
            "tie_word_embeddings": False,
        },
        about="one more expert for every token; every fourth layer without a window, from the first on",
        spelling=4,
        misread={"windows": {"sliding_window": 100}},
    ),
]

PHIMOE_CONFIG = {
    **EXPERTS,
    "intermediate_size": 16,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "router_jitter_noise": 0.3,
    **rope("default", 10000.0),
}

PHIMOE = [
    Variant(
        name="phimoe",
        seed=2501,
        architecture="Phimoe",
        config=PHIMOE_CONFIG,
        about="two experts, one chosen after the other among those that are not much worse; layer norms",
        spelling=4,
        misread={"how much worse is much worse": {"router_jitter_noise": 0.01}},
    ),
    Variant(
        name="phimoe_biases",
        seed=2502,
        architecture="Phimoe",
        config={
            **PHIMOE_CONFIG,
            "router_jitter_noise": 0.01,
            "attention_bias": True,
            "lm_head_bias": True,
            "sliding_window": 6,
        },
        about="biases of attention and of the head, a window; the usual tolerance of the router",
        fused=True,
        misread={"how much worse is much worse": {"router_jitter_noise": 0.3}, "window": {"sliding_window": None}},
    ),
    Variant(
        name="phimoe_long",
        seed=2503,
        architecture="Phimoe",
        config={
            **PHIMOE_CONFIG,
            **rope(
                "longrope",
                10000.0,
                short_factor=[1.0, 1.2, 1.5, 2.0],
                long_factor=[1.0, 2.0, 4.0, 8.0],
                short_mscale=1.2,
                long_mscale=1.3,
                original_max_position_embeddings=64,
            ),
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
        },
        about="LongRoPE with magnitudes of its own for short and for long sequences",
        misread={"rope scaling": rope("default", 10000.0)},
    ),
]

GLM4_MOE_CONFIG = {
    **EXPERTS,
    "num_hidden_layers": 3,
    "head_dim": 8,
    "intermediate_size": 20,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.8,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    **rope("default", 10000.0, partial_rotary_factor=0.5),
}

GLM4_MOE = [
    Variant(
        name="glm4_moe",
        seed=2601,
        architecture="Glm4Moe",
        config=GLM4_MOE_CONFIG,
        about="a dense layer, then eight experts by logistic scores with a correction, and one for every token",
        spelling=4,
        misread={
            "routed_scaling_factor": {"routed_scaling_factor": 1.0},
            "shares that add up to one": {"norm_topk_prob": False},
        },
    ),
    Variant(
        name="glm4_moe_groups",
        seed=2622,
        architecture="Glm4Moe",
        config={
            **GLM4_MOE_CONFIG,
            "num_hidden_layers": 2,
            "n_shared_experts": 2,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": False,
            "attention_bias": True,
            "use_qk_norm": True,
        },
        about="two of four groups of experts, two experts' width for every token, norms of heads, biases of attention",
        fused=True,
        head_gain=1.0,
        misread={"groups": {"n_group": 1, "topk_group": 1}, "norms of heads": {"use_qk_norm": False}},
    ),
]

QWEN2_MOE_CONFIG = {
    **EXPERTS,
    "intermediate_size": 20,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 16,
    "norm_topk_prob": False,
    **rope("default", 2000.0),
}

QWEN2_MOE = [
    Variant(
        name="qwen2_moe",
        seed=2701,
        architecture="Qwen2Moe",
        config=QWEN2_MOE_CONFIG,
        about="two of six experts, and one for every token with a share of its own; biases of queries, keys and values",
        spelling=4,
        misread={
            "shares that add up to less than one": {"norm_topk_prob": True},
            "biases of queries, keys and values": {"qkv_bias": False},
        },
    ),
    Variant(
        name="qwen2_moe_windows",
        seed=2702,
        architecture="Qwen2Moe",
        config={
            **QWEN2_MOE_CONFIG,
            "num_hidden_layers": 4,
            "mlp_only_layers": [0],
            "decoder_sparse_step": 2,
            "qkv_bias": False,
            "norm_topk_prob": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 3,
            "vocab_size": 61,
            "tie_word_embeddings": True,
        },
        about="experts in every second layer, windows in the first and the third; no biases; tied; one tensor for all experts",
        fused=True,
        misread={"windows": {"layer_types": ["full_attention"] * 4}},
    ),
]

# As the released models have it; sizes are multiples of 32 where numbers lie in blocks of so many.
GPT_OSS_CONFIG = {
    **EXPERTS,
    "head_dim": 8,
    "intermediate_size": 12,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 5,
    "swiglu_limit": 1.0,
    **rope(
        "yarn",
        1000.0,
        factor=4.0,
        beta_fast=8.0,
        beta_slow=1.0,
        truncate=False,
        original_max_position_embeddings=32,
    ),
}

GPT_OSS = [
    Variant(
        name="gpt_oss",
        seed=2801,
        architecture="GptOss",
        config=GPT_OSS_CONFIG,
        about="alternating gates and ups with biases, an activation that is cut off, sinks, a window in every second layer, YaRN",
        spelling=4,
        misread={
            "where numbers are cut off": {"swiglu_limit": 7.0},
            "windows": {"layer_types": ["full_attention"] * 2},
            "rope scaling": rope("default", 1000.0),
        },
    ),
    Variant(
        name="gpt_oss_plain",
        seed=2802,
        architecture="GptOss",
        config={
            **GPT_OSS_CONFIG,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "num_experts_per_tok": 3,
            "vocab_size": 61,
            "layer_types": ["full_attention", "sliding_attention"],
            "attention_bias": False,
            "swiglu_alpha": 1.0,
            "swiglu_limit": 2.0,
            **rope("linear", 1000.0, factor=2.0),
        },
        about="no biases of attention, another steepness, three experts, windows by a list, linear scaling",
        dtype=torch.float32,
        misread={"steepness": {"swiglu_alpha": 1.702}, "where numbers are cut off": {"swiglu_limit": 7.0}},
    ),
    Variant(
        name="gpt_oss_blocks",
        seed=2803,
        architecture="GptOss",
        config={
            **GPT_OSS_CONFIG,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_local_experts": 3,
            "swiglu_limit": 7.0,
        },
        about="experts in microscaled blocks, as the models were released",
        spelling=4,
        microscaled=True,
        misread={"experts of a token": {"num_experts_per_tok": 1}},
    ),
]

ERNIE_CONFIG = {
    **EXPERTS,
    "num_hidden_layers": 3,
    "intermediate_size": 20,
    "moe_num_experts": 6,
    "moe_k": 2,
    "moe_intermediate_size": 10,
    "moe_num_shared_experts": 1,
    **rope("default", 2000.0),
}

ERNIE = [
    Variant(
        name="ernie4_5",
        seed=2901,
        architecture="Ernie4_5",
        config={**TINY, "head_dim": 12, "use_bias": True, "vocab_size": 61, **rope("default", 2000.0)},
        about="without experts: neighbouring pairs, biases everywhere but in the head",
        spelling=4,
        misread={"biases": {"use_bias": False}, "rope_theta": rope("default", 100.0)},
    ),
    Variant(
        name="ernie4_5_moe",
        seed=6902,
        architecture="Ernie4_5_Moe",
        config={**ERNIE_CONFIG, "tie_word_embeddings": True},
        about="a dense layer, then experts by the softmax with a correction of the choice, and one for every token; tied",
        spelling=4,
        misread={"experts of a token": {"moe_k": 1}, "the expert of every token": {"moe_num_shared_experts": 0}},
    ),
    Variant(
        name="ernie4_5_moe_biases",
        seed=9903,
        architecture="Ernie4_5_Moe",
        config={
            **ERNIE_CONFIG,
            "num_hidden_layers": 4,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 0,
            "moe_layer_end_index": 2,
            "moe_layer_interval": 2,
            "use_bias": True,
            "tie_word_embeddings": False,
        },
        about="experts in the second of four layers; biases everywhere but in experts; one tensor for all experts",
        embedding=3.0,
        fused=True,
        misread={"biases": {"use_bias": False}},
    ),
]

DOTS1_CONFIG = {
    **GLM4_MOE_CONFIG,
    "attention_bias": False,
    "sliding_window": None,
    **rope("default", 10000.0),
}

DOTS1 = [
    Variant(
        name="dots1",
        seed=3001,
        architecture="Dots1",
        config=DOTS1_CONFIG,
        about="norms of heads, a dense layer, experts by logistic scores with a correction",
        head_gain=1.0,
        spelling=4,
        misread={"routed_scaling_factor": {"routed_scaling_factor": 1.0}},
    ),
    Variant(
        name="dots1_windows",
        seed=4002,
        architecture="Dots1",
        config={
            **DOTS1_CONFIG,
            "first_k_dense_replace": 0,
            "num_hidden_layers": 2,
            "n_group": 2,
            "sliding_window": 4,
            "max_window_layers": 1,
            "attention_bias": True,
            "norm_topk_prob": False,
        },
        about="a window from the second layer on, biases of attention, one of two groups; one tensor for all experts",
        head_gain=1.0,
        fused=True,
        misread={"windows": {"layer_types": ["full_attention"] * 2}, "groups": {"n_group": 1}},
    ),
]

EXAONE_MOE_CONFIG = {
    **{key: value for key, value in GLM4_MOE_CONFIG.items() if not key.startswith("n_")},
    "num_experts": 8,
    "num_shared_experts": 1,
    "n_group": 1,
    "num_hidden_layers": 4,
    "sliding_window": 5,
    **rope("default", 10000.0),
}

EXAONE_MOE = [
    Variant(
        name="exaone_moe",
        seed=4101,
        architecture="ExaoneMoe",
        config=EXAONE_MOE_CONFIG,
        about="three layers of four with a window, the fourth without rotary positions; a dense layer, then experts",
        head_gain=1.0,
        spelling=4,
        misread={"windows": {"layer_types": ["full_attention"] * 4}},
    ),
    Variant(
        name="exaone_moe_types",
        seed=3102,
        architecture="ExaoneMoe",
        config={
            **EXAONE_MOE_CONFIG,
            "num_hidden_layers": 3,
            "mlp_layer_types": ["sparse", "dense", "sparse"],
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "n_group": 2,
            "num_shared_experts": 2,
            "norm_topk_prob": False,
        },
        about="kinds of layers by lists, one of two groups; one tensor for all experts",
        head_gain=1.0,
        fused=True,
        misread={"shares that add up to one": {"norm_topk_prob": True}, "groups": {"n_group": 1}},
    ),
]

MINIMAX_CONFIG = {
    **EXPERTS,
    "head_dim": 8,
    "intermediate_size": 12,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    **rope("default", 10000.0, partial_rotary_factor=0.5),
}

MINIMAX = [
    Variant(
        name="minimax_m2",
        seed=3201,
        architecture="MiniMaxM2",
        config=MINIMAX_CONFIG,
        about="experts by logistic scores with a correction, norms over all queries and over all keys, half of each head rotated",
        head_gain=1.0,
        spelling=4,
        misread={"share of the head that is rotated": rope("default", 10000.0)},
    ),
    Variant(
        name="minimax_m2_fused",
        seed=5202,
        architecture="MiniMaxM2",
        config={
            **MINIMAX_CONFIG,
            "head_dim": 12,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "num_experts_per_tok": 3,
            "vocab_size": 61,
            "tie_word_embeddings": True,
            **rope("default", 10000.0),
        },
        about="three heads on one, whole heads rotated, three experts; tied; one tensor for all experts",
        head_gain=1.0,
        fused=True,
        misread={"experts of a token": {"num_experts_per_tok": 2}},
    ),
]

SOLAR = [
    Variant(
        name="solar_open",
        seed=3301,
        architecture="SolarOpen",
        config={
            **{key: value for key, value in GLM4_MOE_CONFIG.items() if key not in {"intermediate_size", "first_k_dense_replace"}},
            "num_hidden_layers": 2,
            **rope("default", 10000.0),
        },
        about="experts in every layer, whole heads rotated",
        spelling=4,
        misread={"routed_scaling_factor": {"routed_scaling_factor": 1.0}},
    ),
]

HUNYUAN_CONFIG = {**EXPERTS, "head_dim": 8, "intermediate_size": 12, "num_experts": 4, "moe_topk": 2, **rope("default", 10000.0)}

HUNYUAN = [
    Variant(
        name="hunyuan",
        seed=3401,
        architecture="HunYuanDenseV1",
        config={**TINY, "head_dim": 8, "vocab_size": 61, "tie_word_embeddings": True, **rope("dynamic", 1000.0, alpha=50.0, factor=1.0)},
        about="without experts: norms of heads after the rotation, a larger rotary base; tied",
        head_gain=1.0,
        spelling=4,
        misread={"rope scaling": rope("default", 1000.0)},
    ),
    Variant(
        name="hunyuan_moe",
        seed=3402,
        architecture="HunYuanMoEV1",
        config=HUNYUAN_CONFIG,
        about="two of four experts, and one for every token",
        head_gain=1.0,
        spelling=4,
        misread={"experts of a token": {"moe_topk": 1}},
    ),
    Variant(
        name="hunyuan_moe_layers",
        seed=6403,
        architecture="HunYuanMoEV1",
        config={**HUNYUAN_CONFIG, "moe_topk": [1, 3], "attention_bias": True, "vocab_size": 61},
        about="one expert in the first layer, three in the second; biases of attention; one tensor for all experts",
        head_gain=1.0,
        fused=True,
        misread={"experts of a token": {"moe_topk": [2, 3]}},
    ),
]

QWEN3_VL_CONTAINER = {
    "vision_config": {
        "depth": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 2,
        "patch_size": 4,
        "temporal_patch_size": 1,
        "spatial_merge_size": 1,
        "out_hidden_size": 24,
        "num_position_embeddings": 4,
        "deepstack_visual_indexes": [0],
    },
    # No prompt holds one of these.
    "image_token_id": 1000,
    "video_token_id": 1001,
    "vision_start_token_id": 1002,
    "vision_end_token_id": 1003,
}

QWEN3_VL = [
    Variant(
        name="qwen3_vl_container",
        seed=4501,
        architecture="Qwen3VL",
        model_class="Qwen3VLForConditionalGeneration",
        config={
            **{key: value for key, value in EXPERTS.items() if key != "tie_word_embeddings"},
            "head_dim": 16,
            **rope("default", 2000.0, mrope_section=[3, 3, 2], mrope_interleaved=True),
        },
        container={**QWEN3_VL_CONTAINER, "tie_word_embeddings": False},
        head_gain=1.0,
        about="the language model of a container with an image tower, without experts",
        misread={"rope_theta": rope("default", 50.0, mrope_section=[3, 3, 2], mrope_interleaved=True)},
    ),
    Variant(
        name="qwen3_vl_moe_container",
        seed=6502,
        architecture="Qwen3VLMoe",
        model_class="Qwen3VLMoeForConditionalGeneration",
        config={
            **{key: value for key, value in QWEN3_MOE_CONFIG.items() if key not in {"norm_topk_prob", "tie_word_embeddings"}},
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 3,
            "mlp_only_layers": [1],
            "intermediate_size": 20,
            **rope("default", 2000.0, mrope_section=[3, 3, 2], mrope_interleaved=True),
        },
        container={**QWEN3_VL_CONTAINER, "tie_word_embeddings": True},
        embedding=0.2,
        head_gain=1.0,
        about="the same with experts, whose tensors lie the other way round; tied",
        misread={"experts of a token": {"num_experts_per_tok": 1}},
    ),
]

VARIANTS = [*QWEN3_MOE, *MIXTRAL, *OLMOE, *GRANITE_MOE, *GRANITE_MOE_SWA, *PHIMOE, *GLM4_MOE, *QWEN2_MOE, *GPT_OSS]
VARIANTS += [*ERNIE, *DOTS1, *EXAONE_MOE, *MINIMAX, *SOLAR, *HUNYUAN, *QWEN3_VL]
