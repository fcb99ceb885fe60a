"""The tiny random checkpoints of golden_tiny.py whose attention keeps latents."""

import torch

from golden_tiny_variants import TINY, VISION, Variant, rope

# Head sizes that are no multiples of anything, and all of them different.
LATENT = {
    **TINY,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "intermediate_size": 20,
    "kv_lora_rank": 20,
    "q_lora_rank": None,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 7,
}

EXPERTS = {
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
}

YARN = {"factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1}

DEEPSEEK_V2 = [
    Variant(
        name="deepseek_v2_lite",
        seed=3104,
        architecture="DeepseekV2",
        config={
            **LATENT,
            **EXPERTS,
            "topk_method": "greedy",
            **rope("yarn", 10000.0, **YARN, mscale=0.707, mscale_all_dim=0.707),
        },
        about="latents of 20 numbers, queries in one projection; a dense layer, then the two best of six experts; YaRN",
        spelling=4,
        misread={
            "scores that YaRN makes larger": rope("yarn", 10000.0, **YARN, mscale=0.707),
            "experts of a token": {"num_experts_per_tok": 1},
        },
    ),
    Variant(
        name="deepseek_v2_groups",
        seed=3122,
        architecture="DeepseekV2",
        config={
            **LATENT,
            **EXPERTS,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "num_hidden_layers": 2,
            "q_lora_rank": 9,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "n_shared_experts": 1,
            "first_k_dense_replace": 0,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 1.7,
            "attention_bias": True,
            "mlp_bias": True,
            **rope("default", 500.0),
        },
        about="queries of low rank; two of four groups by their best expert; biases, experts' shares multiplied",
        fused=True,
        misread={
            "groups": {"topk_method": "greedy"},
            "routed_scaling_factor": {"routed_scaling_factor": 1.0},
        },
    ),
]

DEEPSEEK_V3 = [
    Variant(
        name="deepseek_v3",
        seed=3201,
        architecture="DeepseekV3",
        embedding=0.4,
        config={
            **LATENT,
            **EXPERTS,
            "q_lora_rank": 12,
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            **rope("yarn", 10000.0, **YARN, mscale=1.0, mscale_all_dim=1.0),
        },
        about="queries of low rank; two of four groups by their two best experts, logistic scores with a correction; YaRN",
        spelling=4,
        misread={
            "scores that YaRN makes larger": rope("yarn", 10000.0, **YARN),
            "groups": {"n_group": 1, "topk_group": 1},
            "shares that add up to one": {"norm_topk_prob": False},
            "pairs": {"rope_interleave": False},
        },
    ),
    Variant(
        name="deepseek_v3_halves",
        seed=3202,
        architecture="DeepseekV3",
        embedding=0.1,
        config={
            **LATENT,
            **EXPERTS,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "num_hidden_layers": 2,
            "kv_lora_rank": 17,
            "qk_nope_head_dim": 5,
            "v_head_dim": 9,
            "rope_interleave": False,
            "norm_topk_prob": False,
            "attention_bias": True,
            "tie_word_embeddings": True,
            **rope("yarn", 10000.0, **YARN, mscale=1.3, mscale_all_dim=0.6),
        },
        about="queries in one projection, other pairs, biases, a magnitude of YaRN that is not 1; one tensor for all experts",
        dtype=torch.float16,
        fused=True,
        misread={"pairs": {"rope_interleave": True}, "magnitude": rope("yarn", 10000.0, **YARN, mscale_all_dim=0.6)},
    ),
]

GLM4_MOE_LITE = [
    Variant(
        name="glm4_moe_lite",
        seed=3304,
        architecture="Glm4MoeLite",
        embedding=0.4,
        config={
            **{key: value for key, value in (LATENT | EXPERTS).items() if key != "first_k_dense_replace"},
            "q_lora_rank": 12,
            "n_shared_experts": 1,
            "routed_scaling_factor": 1.8,
            "mlp_layer_types": ["sparse", "dense", "sparse"],
            **rope("default", 10000.0),
        },
        about="a list of which layers have experts",
        spelling=4,
        misread={"routed_scaling_factor": {"routed_scaling_factor": 1.0}},
    ),
    Variant(
        name="glm4_moe_lite_groups",
        seed=3303,
        architecture="Glm4MoeLite",
        embedding=0.4,
        config={
            **{key: value for key, value in (LATENT | EXPERTS).items() if key != "first_k_dense_replace"},
            "num_hidden_layers": 2,
            "n_group": 3,
            "topk_group": 2,
            "norm_topk_prob": False,
            "rope_interleave": False,
            **rope("default", 10000.0),
        },
        about="groups, queries in one projection, other pairs; one tensor for all experts",
        fused=True,
        misread={"groups": {"n_group": 1, "topk_group": 1}},
    ),
]

MINICPM3_CONFIG = {
    **LATENT,
    "q_lora_rank": 12,
    "scale_emb": 2,
    "scale_depth": 2.1,
    "dim_model_base": 40,
    "tie_word_embeddings": True,
}

MINICPM3 = [
    Variant(
        name="minicpm3",
        seed=3402,
        architecture="MiniCPM3",
        embedding=0.1,
        config={
            **MINICPM3_CONFIG,
            **rope(
                "longrope",
                10000.0,
                short_factor=[1.0, 1.2, 1.5],
                long_factor=[1.0, 2.0, 4.0],
                original_max_position_embeddings=96,
            ),
        },
        about="multipliers of embeddings, branches and logits, LongRoPE; tied",
        spelling=4,
        misread={
            "scale_depth": {"scale_depth": 1.4},
            "dim_model_base": {"dim_model_base": 24},
            "rope scaling": rope("default", 10000.0),
        },
    ),
    Variant(
        name="minicpm3_plain",
        seed=3403,
        architecture="MiniCPM3",
        embedding=0.4,
        config={
            **MINICPM3_CONFIG,
            "q_lora_rank": None,
            "v_head_dim": None,
            "scale_emb": 1,
            "scale_depth": None,
            "dim_model_base": None,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
            **rope("default", 10000.0),
        },
        about="no multipliers, queries in one projection, biases",
        dtype=torch.float32,
        misread={"scale_depth": {"scale_depth": 1.4}},
    ),
]

# The reference stack makes the embedding of the padding token zero when it loads a Youtu whose head is tied.
YOUTU_CONFIG = {**LATENT, "pad_token_id": None}

YOUTU = [
    Variant(
        name="youtu",
        seed=3515,
        architecture="Youtu",
        embedding=0.1,
        config={**YOUTU_CONFIG, "q_lora_rank": 12, "tie_word_embeddings": True, **rope("default", 10000.0)},
        about="dense layers under the attention of DeepSeek V3; tied",
        spelling=4,
        misread={"pairs": {"rope_interleave": False}},
    ),
    Variant(
        name="youtu_halves",
        seed=3508,
        architecture="Youtu",
        embedding=0.4,
        config={**YOUTU_CONFIG, "rope_interleave": False, "attention_bias": True, **rope("linear", 10000.0, factor=2.0)},
        about="other pairs, linear scaling, biases, queries in one projection",
        misread={"rope scaling": rope("default", 10000.0)},
    ),
]

# The share of a query that is rotated: 6 of 16.
MISTRAL4_ROPE = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1, "partial_rotary_factor": 0.375}
MISTRAL4_ROPE["original_max_position_embeddings"] = 64

MISTRAL4_CONFIG = {
    **LATENT,
    **EXPERTS,
    "q_lora_rank": 12,
    "num_hidden_layers": 2,
    "n_routed_experts": 8,
    "n_group": 4,
    "topk_group": 2,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    **rope("yarn", 10000.0, **MISTRAL4_ROPE),
}

MISTRAL4 = [
    Variant(
        name="mistral4",
        seed=3605,
        architecture="Mistral4",
        config=MISTRAL4_CONFIG,
        about="softmax scores, two of four groups by their two best experts; YaRN with scores that would grow with the position",
        embedding=0.4,
        spelling=4,
        misread={
            "groups": {"n_group": 1, "topk_group": 1},
            "shares that add up to one": {"norm_topk_prob": False},
            "scores that YaRN makes larger": rope("yarn", 10000.0, **{**MISTRAL4_ROPE, "mscale_all_dim": 0.0}),
        },
    ),
    Variant(
        name="mistral4_container",
        seed=3602,
        architecture="Mistral3",
        model_class="Mistral3ForConditionalGeneration",
        config={**MISTRAL4_CONFIG, "model_type": "mistral4", "q_lora_rank": None, "vocab_size": 61, "num_hidden_layers": 1, "first_k_dense_replace": 0},
        container={
            "vision_config": {**VISION, "model_type": "pixtral"},
            "image_token_index": 60,
            "tie_word_embeddings": False,
        },
        about="the language model of a container with an image tower, with a head of its own",
        embedding=0.4,
        misread={"groups": {"n_group": 1, "topk_group": 1}},
    ),
]

# As many positions as the longest prompt with its answer, so that the indexer chooses all of them.
SPARSE = {"index_topk": 64, "index_head_dim": 8, "index_n_heads": 2}
LEAVING_POSITIONS_OUT = {"positions that the indexer leaves out": {"index_topk": 4}}

DEEPSEEK_V32 = [
    Variant(
        name="deepseek_v32",
        seed=3702,
        architecture="DeepseekV32",
        embedding=0.4,
        config={
            **LATENT,
            **EXPERTS,
            **SPARSE,
            "num_hidden_layers": 2,
            "q_lora_rank": 12,
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            **rope("yarn", 10000.0, **YARN, mscale=1.0, mscale_all_dim=1.0),
        },
        about="DeepSeek 3 with an indexer that chooses all positions; two of four groups of experts; YaRN",
        spelling=4,
        misread={
            **LEAVING_POSITIONS_OUT,
            "scores that YaRN makes larger": rope("yarn", 10000.0, **YARN),
            "groups": {"n_group": 1, "topk_group": 1},
        },
    ),
    Variant(
        name="glm_moe_dsa",
        seed=3721,
        architecture="GlmMoeDsa",
        embedding=0.4,
        config={
            **LATENT,
            **EXPERTS,
            **SPARSE,
            "q_lora_rank": 12,
            "n_shared_experts": 1,
            "norm_topk_prob": False,
            "attention_bias": True,
            "mlp_layer_types": ["dense", "sparse", "dense"],
            "indexer_types": ["full", "shared", "full"],
            **rope("default", 1000000.0),
        },
        about="an indexer that chooses all positions, and a layer that shares them; a list of which layers have experts; biases",
        fused=True,
        misread={**LEAVING_POSITIONS_OUT, "shares that add up to one": {"norm_topk_prob": True}},
    ),
]

KIMI_CONFIG = {
    **LATENT,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.7,
    "linear_head_dim": 10,
    "linear_num_heads": 2,
    "linear_conv_kernel_dim": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}

KIMI = [
    Variant(
        name="kimi_linear",
        seed=4101,
        architecture="KimiLinear",
        config=KIMI_CONFIG,
        about="delta nets whose keys decay number by number, and latent attention without a rotation; a dense layer, then "
        "experts; three convolutions",
        embedding=0.4,
        spelling=4,
        misread={
            "experts of a token": {"num_experts_per_tok": 1},
            "routed_scaling_factor": {"routed_scaling_factor": 1.0},
            "shares that add up to one": {"norm_topk_prob": False},
        },
    ),
    Variant(
        name="kimi_linear_fused",
        seed=4113,
        architecture="KimiLinear",
        config={
            **KIMI_CONFIG,
            "q_lora_rank": 12,
            "num_hidden_layers": 2,
            "linear_head_dim": 17,
            "n_group": 3,
            "topk_group": 2,
            "layer_types": ["full_attention", "linear_attention"],
            "mlp_layer_types": ["sparse", "sparse"],
        },
        about="queries of low rank, groups of experts; one tensor for all experts, one for all convolutions",
        embedding=0.4,
        fused=True,
        misread={"groups": {"n_group": 1, "topk_group": 1}},
    ),
]

VARIANTS = [*DEEPSEEK_V2, *DEEPSEEK_V3, *GLM4_MOE_LITE, *MINICPM3, *YOUTU, *MISTRAL4, *DEEPSEEK_V32, *KIMI]
