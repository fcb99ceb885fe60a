"""The tiny random checkpoints of golden_tiny.py whose layers are recurrent."""

from golden_tiny_variants import TINY, VISION, Variant, rope

RECURRENT = {**TINY, "hidden_size": 32, "num_hidden_layers": 4}

LFM2_CONFIG = {
    **{key: value for key, value in RECURRENT.items() if key != "rms_norm_eps"},
    "norm_eps": 1e-5,
    "intermediate_size": 60,
    "block_multiple_of": 8,
    "layer_types": ["conv", "conv", "full_attention", "conv"],
    **rope("default", 10000.0),
}

LFM2 = [
    Variant(
        name="lfm2",
        seed=3101,
        architecture="Lfm2",
        config={**LFM2_CONFIG, "tie_word_embeddings": True},
        about="convolutions over three positions and one layer of attention; an MLP whose width is computed",
        head_gain=1.0,
        spelling=4,
        misread={"rope_theta": rope("default", 100.0)},
    ),
    Variant(
        name="lfm2_bias",
        seed=3102,
        architecture="Lfm2",
        config={
            **LFM2_CONFIG,
            "conv_bias": True,
            "conv_L_cache": 4,
            "block_auto_adjust_ff_dim": False,
            "intermediate_size": 40,
            "layer_types": ["full_attention", "conv", "conv", "conv"],
            "norm_eps": 0.02,
        },
        about="biases of the convolutions, which see four positions; the last layer is one; a head of its own",
        head_gain=1.0,
        misread={"epsilon": {"norm_eps": 1e-5}, "biases": {"conv_bias": False}},
    ),
]

LFM2_MOE_CONFIG = {
    **{key: value for key, value in LFM2_CONFIG.items() if key != "block_multiple_of"},
    "intermediate_size": 40,
    "moe_intermediate_size": 12,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "num_dense_layers": 1,
    "layer_types": ["conv", "full_attention", "conv"],
    "num_hidden_layers": 3,
}

LFM2_MOE = [
    Variant(
        name="lfm2_moe",
        seed=3202,
        architecture="Lfm2Moe",
        config={**LFM2_MOE_CONFIG, "routed_scaling_factor": 1.5},
        about="one dense layer, then two of six experts by logistic scores with a correction",
        head_gain=1.0,
        spelling=4,
        misread={"routed_scaling_factor": {"routed_scaling_factor": 1.0}},
    ),
    Variant(
        name="lfm2_moe_plain",
        seed=3202,
        architecture="Lfm2Moe",
        config={
            **LFM2_MOE_CONFIG,
            "use_expert_bias": False,
            "norm_topk_prob": False,
            "tie_word_embeddings": True,
            "num_dense_layers": 0,
        },
        about="experts in every layer without a correction, shares that do not add up to one; one tensor for all",
        fused=True,
        head_gain=1.0,
        misread={"shares that add up to less than one": {"norm_topk_prob": True}},
    ),
    Variant(
        name="lfm2_moe_usual",
        seed=3203,
        architecture="Lfm2Moe",
        config={**LFM2_MOE_CONFIG, "tie_word_embeddings": True},
        about="as GGUF files can hold it: tied, shares that add up to one",
        head_gain=1.0,
        misread={"experts of a token": {"num_experts_per_tok": 1}},
    ),
]

LFM2_VL = [
    Variant(
        name="lfm2_vl_container",
        seed=3901,
        architecture="Lfm2Vl",
        model_class="Lfm2VlForConditionalGeneration",
        config={
            **LFM2_CONFIG,
            "model_type": "lfm2",
            "vocab_size": 61,
            "num_hidden_layers": 3,
            "layer_types": ["conv", "full_attention", "conv"],
        },
        container={
            "vision_config": {**VISION, "model_type": "siglip2_vision_model", "num_patches": 4},
            "image_token_id": 60,
            "projector_hidden_size": 8,
            "downsample_factor": 1,
            "tie_word_embeddings": True,
        },
        about="the language model of a container with an image tower; tied",
        head_gain=1.0,
        misread={"rope_theta": rope("default", 100.0)},
    ),
]

GRANITE_HYBRID_CONFIG = {
    **RECURRENT,
    "num_hidden_layers": 3,
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "shared_intermediate_size": 40,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 12,
    "mamba_d_conv": 4,
    "mamba_chunk_size": 8,
    "embedding_multiplier": 2.0,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.7,
    "logits_scaling": 1.5,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    **rope("default", 10000.0),
}

GRANITE_HYBRID = [
    Variant(
        name="granite_hybrid",
        seed=3301,
        architecture="GraniteMoeHybrid",
        config=GRANITE_HYBRID_CONFIG,
        about="Mamba-2 with one group, attention without rotary positions, no experts",
        misread={
            "rotary positions": {"position_embedding_type": "rope"},
            "residual_multiplier": {"residual_multiplier": 1.0},
        },
    ),
    Variant(
        name="granite_hybrid_moe",
        seed=3302,
        architecture="GraniteMoeHybrid",
        config={
            **GRANITE_HYBRID_CONFIG,
            "intermediate_size": 12,
            "num_local_experts": 4,
            "num_experts_per_tok": 3,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_expand": 1,
            "mamba_n_groups": 2,
            "mamba_proj_bias": True,
            "mamba_conv_bias": False,
            "mamba_d_conv": 3,
            "attention_bias": True,
            "position_embedding_type": "rope",
            "tie_word_embeddings": True,
        },
        about="Mamba-2 with two groups and biases, experts beside an MLP for every token, rotary positions",
        misread={
            "experts of a token": {"num_experts_per_tok": 1},
            "rotary positions": {"position_embedding_type": None},
        },
    ),
]

NEMOTRON_H_CONFIG = {
    **{key: value for key, value in RECURRENT.items() if key not in ("rms_norm_eps", "num_hidden_layers")},
    "layers_block_type": ["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"],
    "head_dim": 10,
    "mamba_num_heads": 4,
    "mamba_head_dim": 12,
    "n_groups": 2,
    "ssm_state_size": 8,
    "chunk_size": 8,
    "layer_norm_epsilon": 1e-5,
}

NEMOTRON_H = [
    Variant(
        name="nemotron_h",
        seed=3702,
        architecture="NemotronH",
        config=NEMOTRON_H_CONFIG,
        about="blocks of one branch, the last an MLP without a gate; two groups",
        misread={"epsilon": {"layer_norm_epsilon": 0.1}},
    ),
    Variant(
        name="nemotron_h_bias",
        seed=3702,
        architecture="NemotronH",
        config={
            **NEMOTRON_H_CONFIG,
            "layers_block_type": ["mlp", "full_attention", "mlp", "linear_attention"],
            "use_bias": True,
            "mlp_bias": True,
            "use_conv_bias": False,
            "conv_kernel": 3,
            "n_groups": 1,
            "time_step_limit": [0.3, 1.5],
            "time_step_min": 0.9,
            "tie_word_embeddings": True,
        },
        about="biases, steps of 0.3 to 1.5, the last block a Mamba-2 and the first an MLP; a tie that does not hold",
        misread={"the limits of steps": {"time_step_limit": [0.0, 1e30]}, "the largest step": {"time_step_limit": [0.3, 1e30]}},
    ),
]

NEMOTRON_H_MOE_CONFIG = {
    **NEMOTRON_H_CONFIG,
    "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"],
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "moe_shared_expert_intermediate_size": 20,
    "n_group": 3,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
}

NEMOTRON_H_MOE = [
    Variant(
        name="nemotron_h_moe",
        seed=3704,
        architecture="NemotronH",
        config=NEMOTRON_H_MOE_CONFIG,
        about="experts without gates in two of three groups, by logistic scores with a correction, and one for every token",
        spelling=4,
        misread={
            "experts of a token": {"num_experts_per_tok": 1},
            "groups": {"n_group": 1, "topk_group": 1},
            "routed_scaling_factor": {"routed_scaling_factor": 1.0},
        },
    ),
    Variant(
        name="nemotron_h_moe_fused",
        seed=3704,
        architecture="NemotronH",
        config={
            **NEMOTRON_H_MOE_CONFIG,
            "layers_block_type": ["moe", "full_attention", "mlp", "linear_attention", "moe"],
            "n_routed_experts": 4,
            "num_experts_per_tok": 3,
            "n_group": 1,
            "topk_group": 1,
            "routed_scaling_factor": 1.0,
            "norm_topk_prob": False,
            "mlp_bias": True,
        },
        about="one tensor for the up and one for the down projections of all, one group, shares as they are, biases",
        fused=True,
        misread={"shares that do not add up to one": {"norm_topk_prob": True}, "biases": {"mlp_bias": False}},
    ),
]

FALCON_H1_CONFIG = {
    **RECURRENT,
    "num_hidden_layers": 2,
    "mamba_d_ssm": 48,
    "mamba_n_heads": 4,
    "mamba_d_head": 12,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
    "mamba_chunk_size": 8,
    "embedding_multiplier": 1.6,
    "lm_head_multiplier": 0.8,
    "key_multiplier": 0.6,
    "attention_in_multiplier": 1.3,
    "attention_out_multiplier": 0.7,
    "ssm_in_multiplier": 0.8,
    "ssm_out_multiplier": 0.6,
    "ssm_multipliers": [0.5, 0.9, 1.4, 1.2, 0.7],
    "mlp_multipliers": [0.7, 0.9],
    **rope("default", 10000.0),
}

FALCON_H1 = [
    Variant(
        name="falcon_h1",
        seed=3815,
        architecture="FalconH1",
        config=FALCON_H1_CONFIG,
        about="Mamba-2 without a norm beside attention, each multiplier another number",
        spelling=4,
        misread={
            "key_multiplier": {"key_multiplier": 1.0},
            "which of the two reads what": {"attention_in_multiplier": 0.8, "ssm_in_multiplier": 1.3},
            "which of the two is which": {"attention_out_multiplier": 0.6, "ssm_out_multiplier": 0.7},
            "gates of Mamba-2": {"ssm_multipliers": [1.0, 0.9, 1.4, 1.2, 0.7]},
            "values": {"ssm_multipliers": [0.5, 1.0, 1.4, 1.2, 0.7]},
            "B": {"ssm_multipliers": [0.5, 0.9, 1.0, 1.2, 0.7]},
            "C": {"ssm_multipliers": [0.5, 0.9, 1.4, 1.0, 0.7]},
            "steps": {"ssm_multipliers": [0.5, 0.9, 1.4, 1.2, 1.0]},
            "gates of the MLP": {"mlp_multipliers": [1.0, 0.9]},
            "output of the MLP": {"mlp_multipliers": [0.7, 1.0]},
        },
    ),
    Variant(
        name="falcon_h1_norm_first",
        seed=3802,
        architecture="FalconH1",
        config={
            **FALCON_H1_CONFIG,
            "mamba_d_ssm": None,
            "mamba_expand": 1,
            "mamba_d_head": "auto",
            "mamba_n_groups": 2,
            "mamba_d_conv": 3,
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": True,
            "mamba_conv_bias": False,
            "mamba_proj_bias": True,
            "projectors_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
        about="a norm of two groups before the gate, biases everywhere but behind the convolution, tied",
        misread={
            "the norm": {"mamba_norm_before_gate": False},
            "epsilon": {"rms_norm_eps": 0.1},
            "key_multiplier": {"key_multiplier": 1.0},
            "ssm_multipliers": {"ssm_multipliers": [1.0] * 5},
        },
    ),
    Variant(
        name="falcon_h1_norm_last",
        seed=3803,
        architecture="FalconH1",
        config={
            **{key: value for key, value in FALCON_H1_CONFIG.items() if "multiplier" not in key},
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": False,
        },
        about="a norm after the gate, no multipliers",
        misread={"the norm": {"mamba_norm_before_gate": True}},
    ),
]

QWEN3_5_CONFIG = {
    **RECURRENT,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    **rope("default", 10000.0, partial_rotary_factor=0.25),
}

QWEN3_5 = [
    Variant(
        name="qwen3_5",
        seed=3401,
        architecture="Qwen3_5Text",
        model_class="Qwen3_5ForCausalLM",
        config=QWEN3_5_CONFIG,
        about="gated delta nets with two value heads for each key head; attention with a gate, a quarter rotated",
        gain_offset=0.0,
        head_gain=1.0,
        spelling=4,
        misread={"how much is rotated": rope("default", 10000.0, partial_rotary_factor=0.5)},
    ),
    Variant(
        name="qwen3_5_interval",
        seed=3404,
        architecture="Qwen3_5Text",
        model_class="Qwen3_5ForCausalLM",
        config={
            **QWEN3_5_CONFIG,
            "num_hidden_layers": 3,
            "linear_num_key_heads": 3,
            "linear_num_value_heads": 3,
            "linear_conv_kernel_dim": 3,
            "linear_key_head_dim": 20,
            "linear_value_head_dim": 5,
            "layer_types": ["full_attention", "linear_attention", "linear_attention"],
            "attention_bias": True,
            "tie_word_embeddings": True,
            "rms_norm_eps": 0.02,
        },
        about="as many key heads as value heads, keys wider than values, biases of attention, tied embeddings",
        gain_offset=0.0,
        head_gain=1.0,
        misread={"epsilon": {"rms_norm_eps": 1e-5}},
    ),
]

QWEN3_NEXT_CONFIG = {
    **QWEN3_5_CONFIG,
    "num_hidden_layers": 3,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 12,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}

QWEN3_NEXT = [
    Variant(
        name="qwen3_next",
        seed=3503,
        architecture="Qwen3Next",
        config=QWEN3_NEXT_CONFIG,
        about="delta nets whose projections lie side by side by key head; experts, and one with a share of its own",
        gain_offset=0.0,
        head_gain=1.0,
        spelling=4,
        misread={"shares that add up to one": {"norm_topk_prob": False}},
    ),
    Variant(
        name="qwen3_next_dense_layers",
        seed=3502,
        architecture="Qwen3Next",
        config={
            **QWEN3_NEXT_CONFIG,
            "mlp_only_layers": [1],
            "norm_topk_prob": False,
            "linear_num_value_heads": 2,
            "linear_conv_kernel_dim": 2,
            "tie_word_embeddings": True,
            "attention_bias": True,
        },
        about="a dense layer between two with experts, one value head for each key head; one tensor for all experts",
        fused=True,
        gain_offset=0.0,
        head_gain=1.0,
        misread={"shares that add up to less than one": {"norm_topk_prob": True}},
    ),
]

QWEN3_5_MOE = [
    Variant(
        name="qwen3_5_moe",
        seed=3601,
        architecture="Qwen3_5MoeText",
        model_class="Qwen3_5MoeForCausalLM",
        config={key: value for key, value in QWEN3_NEXT_CONFIG.items() if key != "intermediate_size"},
        about="the layers of Qwen 3.5 with experts; one tensor for all",
        fused=True,
        gain_offset=0.0,
        head_gain=1.0,
        misread={"experts of a token": {"num_experts_per_tok": 1}},
    ),
]

QWEN3_5_CONTAINER = {
    "vision_config": {
        "depth": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 2,
        "patch_size": 4,
        "out_hidden_size": 32,
        "num_position_embeddings": 4,
    },
    "image_token_id": 60,
    "video_token_id": 60,
    "vision_start_token_id": 60,
    "vision_end_token_id": 60,
}
QWEN3_5_ROPE = rope("default", 10000.0, partial_rotary_factor=0.25, mrope_section=[1, 1, 0], mrope_interleaved=True)

QWEN3_5_CONTAINERS = [
    Variant(
        name="qwen3_5_container",
        seed=3911,
        architecture="Qwen3_5",
        model_class="Qwen3_5ForConditionalGeneration",
        config={
            **{key: value for key, value in QWEN3_5_CONFIG.items() if key != "tie_word_embeddings"},
            "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "full_attention"],
            **QWEN3_5_ROPE,
        },
        container={**QWEN3_5_CONTAINER, "tie_word_embeddings": False},
        about="the language model of a container with an image tower",
        gain_offset=0.0,
        head_gain=1.0,
        spelling=4,
        misread={"which layer attends": {"layer_types": ["full_attention", "linear_attention"]}},
    ),
    Variant(
        name="qwen3_5_moe_container",
        seed=3921,
        architecture="Qwen3_5Moe",
        model_class="Qwen3_5MoeForConditionalGeneration",
        config={
            **{key: value for key, value in QWEN3_5_MOE[0].config.items() if key != "tie_word_embeddings"},
            "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "full_attention"],
            **QWEN3_5_ROPE,
        },
        container={**QWEN3_5_CONTAINER, "tie_word_embeddings": True},
        about="the same with experts; tied",
        gain_offset=0.0,
        head_gain=1.0,
        fused=True,
        misread={"experts of a token": {"num_experts_per_tok": 1}},
    ),
]

VARIANTS = [*LFM2, *LFM2_MOE, *LFM2_VL, *GRANITE_HYBRID, *NEMOTRON_H, *NEMOTRON_H_MOE, *FALCON_H1, *QWEN3_5, *QWEN3_NEXT]
VARIANTS += [*QWEN3_5_MOE, *QWEN3_5_CONTAINERS]
