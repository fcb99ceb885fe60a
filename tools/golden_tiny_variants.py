"""The tiny random checkpoints that golden_tiny.py makes, family by family.

Each is there for something that could be misread; `misread` says what, as the wrong configuration.
"""

import dataclasses

import torch


@dataclasses.dataclass
class Variant:
    """One checkpoint: its configuration, how it is stored, and what must be noticed when misread."""

    name: str
    seed: int
    architecture: str  # of transformers: Llama, Gemma3Text; `…Config` is its configuration
    config: dict  # of a container: that of its language model
    about: str
    dtype: torch.dtype = torch.bfloat16
    spelling: int = 5  # the transformers version whose spelling config.json has
    shards: int = 1
    model_class: str = ""  # where it is not the architecture and ForCausalLM
    gain_offset: float = 1.0  # what the gains of norms are around
    head_gain: float = 0.0  # added to the gains of query and key norms, which makes attention choose
    embedding: float | None = None  # how wide the embedding is drawn; 1, or 0.3 where it is the head as well
    container: dict = dataclasses.field(default_factory=dict)  # what a container has beside its language model
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)  # beginnings of tensor names in another layout
    fused: bool = False  # tensors as transformers 5 holds them: one for all experts of a layer
    microscaled: bool = False  # the weights of experts in blocks of 4 bits with a scale each (MXFP4)
    misread: dict[str, dict] = dataclasses.field(default_factory=dict)  # what is misread -> configuration overrides


SMALL = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}


def rope(kind: str, theta: float, **more) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


GQA_TIED = {**SMALL, "tie_word_embeddings": True, "rms_norm_eps": 0.02, **rope("default", 500.0)}

LLAMA = [
    Variant(
        name="llama_gqa_tied",
        seed=1,
        architecture="Llama",
        config=GQA_TIED,
        about="six heads on two key/value heads, tied embeddings, a large epsilon in the norms",
        dtype=torch.float32,
        spelling=4,
        misread={
            "epsilon": {"rms_norm_eps": 1e-5},
            "rope_theta": rope("default", 10000.0),
        },
    ),
    Variant(
        name="llama_sharded",
        seed=1,
        architecture="Llama",
        config=GQA_TIED,
        about="llama_gqa_tied again, in two files",
        dtype=torch.float32,
        spelling=5,
        shards=2,
    ),
    Variant(
        name="llama_untied_bias",
        seed=102,
        architecture="Llama",
        config={
            **SMALL,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 16,
            "attention_bias": True,
            "mlp_bias": True,
            "vocab_size": 131,
            **rope("default", 10000.0),
        },
        about="biases everywhere, heads wider than d_model / heads, no sharing of keys and values, untied",
        misread={
            "attention biases": {"attention_bias": False},
            "mlp biases": {"mlp_bias": False},
        },
    ),
    Variant(
        name="llama3_rope",
        seed=3,
        architecture="Llama",
        config={
            **SMALL,
            "num_attention_heads": 4,
            "head_dim": 16,
            **rope(
                "llama3",
                500.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        },
        about="llama3 scaling with kept, blended and slowed frequencies, prompts beyond the original length",
        misread={"rope scaling": rope("default", 500.0)},
    ),
    Variant(
        name="llama_linear_rope",
        seed=104,
        architecture="Llama",
        config={**SMALL, "num_hidden_layers": 2, **rope("linear", 100.0, factor=4.0)},
        about="linear scaling; the transformers 4 spelling has the old key `type`",
        spelling=4,
        misread={"rope scaling": rope("default", 100.0)},
    ),
    Variant(
        name="llama_dynamic_rope",
        seed=5,
        architecture="Llama",
        config={**SMALL, "num_hidden_layers": 2, "max_position_embeddings": 64, **rope("dynamic", 100.0, factor=4.0)},
        about="dynamic scaling, which is no scaling up to max_position_embeddings; nothing here is longer",
        dtype=torch.float16,
        misread={"dynamic as linear": rope("linear", 100.0, factor=4.0)},
    ),
    Variant(
        name="llama_yarn",
        seed=6,
        architecture="Llama",
        config={
            **SMALL,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "head_dim": 16,
            **rope("yarn", 10000.0, factor=4.0, original_max_position_embeddings=32),
        },
        about="YaRN with everything at its default: attention factor 0.1 ln(factor) + 1, truncated ramp",
        spelling=4,
        misread={
            "rope scaling": rope("default", 10000.0),
            "attention factor": rope(
                "yarn", 10000.0, factor=4.0, original_max_position_embeddings=32, attention_factor=1.0
            ),
        },
    ),
    Variant(
        name="llama_yarn_explicit",
        seed=7,
        architecture="Llama",
        config={
            **SMALL,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "head_dim": 16,
            **rope(
                "yarn",
                1000.0,
                factor=4.0,
                original_max_position_embeddings=32,
                attention_factor=1.3,
                beta_fast=4.0,
                beta_slow=0.5,
                truncate=False,
            ),
        },
        about="YaRN with its attention factor, both ends of its ramp and no truncation given",
        misread={
            "beta_fast and beta_slow": rope(
                "yarn",
                1000.0,
                factor=4.0,
                original_max_position_embeddings=32,
                attention_factor=1.3,
                truncate=False,
            ),
            "truncate": rope(
                "yarn",
                1000.0,
                factor=4.0,
                original_max_position_embeddings=32,
                attention_factor=1.3,
                beta_fast=4.0,
                beta_slow=0.5,
            ),
        },
    ),
    Variant(
        name="mistral_window",
        seed=8,
        architecture="Mistral",
        config={**SMALL, "head_dim": 16, "vocab_size": 101, "sliding_window": 5, **rope("default", 10000.0)},
        about="every token sees itself and four before it; prompts shorter, as long and longer",
        misread={
            "window": {"sliding_window": None},
            "window one too short": {"sliding_window": 4},
            "window one too long": {"sliding_window": 6},
        },
    ),
    Variant(
        name="smollm3_nope",
        seed=9,
        architecture="SmolLM3",
        config={
            **SMALL,
            "num_hidden_layers": 4,
            "tie_word_embeddings": True,
            "no_rope_layers": [1, 0, 1, 0],
            **rope("default", 2000.0),
        },
        about="every second layer without rotary positions",
        spelling=4,
        misread={
            "layers without rotary positions": {"no_rope_layers": [1, 1, 1, 1]},
            "which layers": {"no_rope_layers": [0, 1, 0, 1]},
        },
    ),
    Variant(
        name="smollm3_window",
        seed=110,
        architecture="SmolLM3",
        config={
            **SMALL,
            "num_hidden_layers": 4,
            "use_sliding_window": True,
            "sliding_window": 5,
            "no_rope_layers": [1, 1, 1, 0],
            "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
            **rope("default", 2000.0),
        },
        about="a window in the first and the last layer, no rotary positions in the last",
        misread={
            "windows": {"layer_types": ["full_attention"] * 4},
            "window of the first layer": {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]},
        },
    ),
]

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 67,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}


def two_ropes(full: dict, sliding: dict) -> dict:
    """Rotary parameters for each type of layer."""
    return {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", **full},
            "sliding_attention": {"rope_type": "default", **sliding},
        }
    }


LLAMA.append(
    Variant(
        name="smollm3_usual",
        seed=2010,
        architecture="SmolLM3",
        config={
            **TINY,
            "tie_word_embeddings": True,
            "num_hidden_layers": 4,
            "no_rope_layers": [1, 1, 1, 0],
            **rope("default", 500.0),
        },
        about="every fourth layer without rotary positions, as in the real models",
        misread={"layers without rotary positions": {"no_rope_layers": [1, 1, 1, 1]}},
    )
)

SLIDING, FULL = "sliding_attention", "full_attention"

QWEN = [
    Variant(
        name="qwen2_tied",
        seed=201,
        architecture="Qwen2",
        config={**TINY, "tie_word_embeddings": True, **rope("default", 500.0)},
        about="biases of queries, keys and values only; tied",
        misread={"rope_theta": rope("default", 10000.0)},
    ),
    Variant(
        name="qwen2_window",
        seed=202,
        architecture="Qwen2",
        config={
            **TINY,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "hidden_size": 36,
            "vocab_size": 61,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            **rope("default", 500.0),
        },
        about="windows from the second layer on, six heads on three, untied",
        spelling=4,
        misread={
            "windows": {"use_sliding_window": False},
            "the layer where windows begin": {"max_window_layers": 2},
        },
    ),
    Variant(
        name="qwen2_yarn",
        seed=203,
        architecture="Qwen2",
        config={
            **TINY,
            "num_hidden_layers": 2,
            **rope("yarn", 1000.0, factor=4.0, original_max_position_embeddings=32),
        },
        about="YaRN, as the model cards of Qwen 2.5 ask for long contexts",
        spelling=4,
        misread={"rope scaling": rope("default", 1000.0)},
    ),
    Variant(
        name="qwen3_tied",
        seed=4204,
        architecture="Qwen3",
        config={
            **TINY,
            "tie_word_embeddings": True,
            "head_dim": 12,
            "num_attention_heads": 6,
            **rope("default", 500.0),
        },
        about="norms of each query and key head; six heads of 12 in a stream of 32",
        misread={"rope_theta": rope("default", 10000.0), "epsilon": {"rms_norm_eps": 0.5}},
    ),
    Variant(
        name="qwen3_bias",
        seed=6205,
        architecture="Qwen3",
        config={**TINY, "head_dim": 16, "vocab_size": 59, "attention_bias": True, **rope("default", 500.0)},
        about="biases of all four projections of attention, untied",
        spelling=4,
        dtype=torch.float32,
        misread={"attention biases": {"attention_bias": False}},
    ),
]

GEMMA_2 = {
    **TINY,
    "tie_word_embeddings": False,
    "head_dim": 12,
    "num_hidden_layers": 4,
    "query_pre_attn_scalar": 2,
    "sliding_window": 5,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 10.0,
    "hidden_activation": "gelu_pytorch_tanh",
    **rope("default", 500.0),
}
GEMMA_3 = {
    **TINY,
    "tie_word_embeddings": True,
    "head_dim": 12,
    "num_key_value_heads": 1,
    "num_hidden_layers": 4,
    "query_pre_attn_scalar": 20,
    "sliding_window": 5,
    "hidden_activation": "gelu_pytorch_tanh",
    "layer_types": [SLIDING, SLIDING, FULL, SLIDING],
    **two_ropes({"rope_theta": 5000.0}, {"rope_theta": 50.0}),
}
VISION = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
# Sizes that the language model of a container does not write down, because they are the usual ones, are not tiny.
GEMMA_3_CONTAINER = {
    "vision_config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
    "mm_tokens_per_image": 4,
    "image_token_index": 60,
    "boi_token_index": 61,
    "eoi_token_index": 62,
}

GEMMA = [
    Variant(
        name="gemma2",
        seed=2301,
        architecture="Gemma2",
        config=GEMMA_2,
        gain_offset=0.0,
        embedding=0.2,
        about="norms before and after both branches, soft caps of scores and logits, every other layer a window; untied",
        misread={
            "soft cap of scores": {"attn_logit_softcapping": None},
            "soft cap of logits": {"final_logit_softcapping": None},
            "scale of scores": {"query_pre_attn_scalar": 12},
            "windows": {"layer_types": [FULL] * 4},
            "which layers have windows": {"layer_types": [FULL, SLIDING] * 2},
        },
    ),
    Variant(
        name="gemma2_bias",
        seed=302,
        architecture="Gemma2",
        config={
            **GEMMA_2,
            "num_attention_heads": 6,
            "hidden_size": 36,
            "vocab_size": 61,
            "num_hidden_layers": 2,
            "attention_bias": True,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
        gain_offset=0.0,
        embedding=0.2,
        about="biases of attention, no soft caps",
        spelling=4,
        misread={"attention biases": {"attention_bias": False}, "soft cap": {"attn_logit_softcapping": 5.0}},
    ),
    Variant(
        name="gemma3",
        seed=2303,
        architecture="Gemma3Text",
        model_class="Gemma3ForCausalLM",
        config=GEMMA_3,
        gain_offset=0.0,
        embedding=0.1,
        head_gain=1.5,
        about="two rotary embeddings, windows by a list of layer types, norms of heads",
        misread={
            "rotation of layers with a window": two_ropes({"rope_theta": 5000.0}, {"rope_theta": 5000.0}),
            "rotation of layers without": two_ropes({"rope_theta": 50.0}, {"rope_theta": 50.0}),
            "scale of scores": {"query_pre_attn_scalar": 12},
            "windows": {"layer_types": [FULL] * 4},
            "which layers have windows": {"layer_types": [SLIDING, FULL, SLIDING, SLIDING]},
        },
    ),
    Variant(
        name="gemma3_scaled",
        seed=304,
        architecture="Gemma3Text",
        model_class="Gemma3ForCausalLM",
        config={
            **GEMMA_3,
            "tie_word_embeddings": False,
            "vocab_size": 61,
            "num_attention_heads": 6,
            "hidden_size": 36,
            "num_key_value_heads": 2,
            "num_hidden_layers": 3,
            "layer_types": [FULL, SLIDING, FULL],
            **two_ropes({"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}, {"rope_theta": 50.0}),
        },
        gain_offset=0.0,
        embedding=0.2,
        head_gain=1.5,
        about="linear scaling of the layers without a window only; untied",
        spelling=4,
        misread={"rope scaling": two_ropes({"rope_theta": 5000.0}, {"rope_theta": 50.0})},
    ),
    Variant(
        name="gemma3_container",
        seed=2305,
        architecture="Gemma3",
        model_class="Gemma3ForConditionalGeneration",
        config={**GEMMA_3, "num_hidden_layers": 2, "layer_types": [SLIDING, FULL]},
        container=GEMMA_3_CONTAINER,
        gain_offset=0.0,
        embedding=0.1,
        head_gain=1.5,
        about="the language model of a container with an image tower, names as transformers 5 has them",
        renamed={
            "language_model.model.": "model.language_model.",
            "vision_tower.": "model.vision_tower.",
            "multi_modal_projector.": "model.multi_modal_projector.",
            "model.": "model.",
        },
        misread={"windows": {"layer_types": [FULL] * 2}},
    ),
    Variant(
        name="gemma3_container_4",
        seed=2305,
        architecture="Gemma3",
        model_class="Gemma3ForConditionalGeneration",
        config={**GEMMA_3, "num_hidden_layers": 2, "layer_types": [SLIDING, FULL]},
        container=GEMMA_3_CONTAINER,
        gain_offset=0.0,
        embedding=0.1,
        head_gain=1.5,
        about="gemma3_container again, names as transformers 4 has them",
        spelling=4,
        renamed={
            "model.language_model.": "language_model.model.",
            "model.vision_tower.": "vision_tower.",
            "model.multi_modal_projector.": "multi_modal_projector.",
            "language_model.": "language_model.",
            "vision_tower.": "vision_tower.",
            "multi_modal_projector.": "multi_modal_projector.",
        },
    ),
]

# What GGUF files leave out is as in the real models: which layers have windows, and the scale of scores.
GEMMA += [
    Variant(
        name="gemma2_usual",
        seed=114306,
        architecture="Gemma2",
        config={
            **GEMMA_2,
            "num_hidden_layers": 3,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "tie_word_embeddings": True,
            **rope("default", 10000.0),
        },
        gain_offset=0.0,
        embedding=0.1,
        about="tied, scores divided by the root of the width of a head",
        misread={"windows": {"layer_types": [FULL] * 3}},
    ),
    Variant(
        name="gemma3_usual",
        seed=2307,
        architecture="Gemma3Text",
        model_class="Gemma3ForCausalLM",
        config={
            **GEMMA_3,
            "hidden_size": 24,
            "intermediate_size": 32,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "num_hidden_layers": 7,
            "layer_types": [SLIDING] * 5 + [FULL, SLIDING],
            **two_ropes({"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}, {"rope_theta": 50.0}),
        },
        gain_offset=0.0,
        embedding=0.1,
        head_gain=1.0,
        about="every sixth layer without a window, scaled; tied",
        spelling=4,
        misread={
            "windows": {"layer_types": [FULL] * 7},
            "rope scaling": two_ropes({"rope_theta": 5000.0}, {"rope_theta": 50.0}),
        },
    ),
]

PHI = [
    Variant(
        name="phi3",
        seed=401,
        architecture="Phi3",
        config={**TINY, "sliding_window": 5, "original_max_position_embeddings": 128, **rope("default", 500.0)},
        about="one tensor of queries, keys and values, one of gate and up; a window",
        misread={"window": {"sliding_window": None}},
    ),
    Variant(
        name="phi3_long",
        seed=4402,
        architecture="Phi3",
        config={
            **TINY,
            "tie_word_embeddings": True,
            "vocab_size": 61,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 512,
            "original_max_position_embeddings": 64,
            **rope(
                "longrope",
                500.0,
                original_max_position_embeddings=64,
                partial_rotary_factor=0.75,
                short_factor=[1.0, 1.1, 1.3, 1.5, 2.0, 2.5],
                long_factor=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
            ),
        },
        about="long scaling up to the original length, three quarters of each head rotated; tied",
        spelling=4,
        misread={
            "rope scaling": rope("default", 500.0, partial_rotary_factor=0.75),
        },
    ),
]

OLMO = [
    Variant(
        name="olmo2",
        seed=501,
        architecture="Olmo2",
        config={**TINY, **rope("default", 500.0)},
        about="norms after both branches only; norms over all queries and over all keys",
        misread={"epsilon": {"rms_norm_eps": 0.5}, "rope_theta": rope("default", 10000.0)},
    ),
    Variant(
        name="olmo2_bias",
        seed=8502,
        architecture="Olmo2",
        config={
            **TINY,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "hidden_size": 30,
            "vocab_size": 61,
            "attention_bias": True,
            **rope("default", 500.0),
        },
        about="three heads of ten, biases of attention",
        spelling=4,
        misread={"attention biases": {"attention_bias": False}},
    ),
    Variant(
        name="olmo3",
        seed=2503,
        architecture="Olmo3",
        config={
            **TINY,
            "num_hidden_layers": 4,
            "sliding_window": 5,
            **two_ropes(
                {
                    "rope_type": "yarn",
                    "rope_theta": 500000.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 32,
                },
                {"rope_theta": 500000.0},
            ),
        },
        about="three layers of four with a window, YaRN in the others only",
        misread={
            "windows": {"layer_types": [FULL] * 4},
            "rope scaling": two_ropes({"rope_theta": 500000.0}, {"rope_theta": 500000.0}),
        },
    ),
    Variant(
        name="olmo3_types",
        seed=4504,
        architecture="Olmo3",
        config={
            **TINY,
            "vocab_size": 61,
            "sliding_window": 5,
            "layer_types": [FULL, SLIDING, FULL],
            "num_key_value_heads": 4,
            **two_ropes({"rope_theta": 500000.0}, {"rope_theta": 500000.0}),
        },
        about="layer types by a list, no scaling, no sharing of keys and values",
        spelling=4,
        misread={"which layers have windows": {"layer_types": [SLIDING, FULL, SLIDING]}},
    ),
]

GRANITE = [
    Variant(
        name="granite",
        seed=10601,
        architecture="Granite",
        config={
            **TINY,
            "tie_word_embeddings": True,
            "embedding_multiplier": 2.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.8,
            "logits_scaling": 3.0,
            **rope("default", 500.0),
        },
        embedding=0.3,
        about="multipliers of embeddings, scores, branches and logits; tied",
        misread={
            "embedding multiplier": {"embedding_multiplier": 1.0},
            "attention multiplier": {"attention_multiplier": 8**-0.5},
            "residual multiplier": {"residual_multiplier": 1.0},
            "logits scaling": {"logits_scaling": 1.0},
        },
    ),
    Variant(
        name="granite_bias",
        seed=4602,
        architecture="Granite",
        config={
            **TINY,
            "vocab_size": 61,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "hidden_size": 30,
            "attention_bias": True,
            "mlp_bias": True,
            "embedding_multiplier": 2.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
            **rope("default", 500.0),
        },
        about="biases everywhere, three heads on one, untied",
        spelling=4,
        misread={"attention biases": {"attention_bias": False}, "mlp biases": {"mlp_bias": False}},
    ),
]

GLM = [
    Variant(
        name="glm4",
        seed=701,
        architecture="Glm4",
        config={**TINY, "head_dim": 12, "attention_bias": True, **rope("default", 500.0, partial_rotary_factor=0.5)},
        about="half of each head rotated in neighbouring pairs, four norms, one tensor of gate and up, biases",
        misread={
            "share of the head that is rotated": rope("default", 500.0, partial_rotary_factor=1.0),
            "attention biases": {"attention_bias": False},
        },
    ),
    Variant(
        name="glm4_plain",
        seed=14702,
        architecture="Glm4",
        config={
            **TINY,
            "head_dim": 8,
            "num_attention_heads": 6,
            "vocab_size": 61,
            "attention_bias": False,
            "tie_word_embeddings": True,
            **rope("default", 500.0, partial_rotary_factor=0.5),
        },
        about="no biases, six heads of eight, tied",
        spelling=4,
        misread={"rope_theta": rope("default", 10000.0, partial_rotary_factor=0.5)},
    ),
]

COHERE = {key: value for key, value in TINY.items() if key != "rms_norm_eps"} | {
    "layer_norm_eps": 1e-5,
    "logit_scale": 0.25,
    "tie_word_embeddings": True,
}

COHERES = [
    Variant(
        name="cohere",
        seed=8801,
        architecture="Cohere",
        config={**COHERE, **rope("default", 500.0)},
        about="both branches read the same layer norm, neighbouring pairs, a logit scale; tied",
        misread={"logit scale": {"logit_scale": 1.0}, "rope_theta": rope("default", 10000.0)},
    ),
    Variant(
        name="cohere_qk_norm",
        seed=16802,
        architecture="Cohere",
        config={
            **COHERE,
            "hidden_size": 36,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "vocab_size": 61,
            "use_qk_norm": True,
            "attention_bias": True,
            **rope("default", 500.0),
        },
        embedding=0.15,
        about="a layer norm of each head with a gain of its own, biases of attention",
        spelling=4,
        misread={"norms of heads": {"use_qk_norm": False}, "attention biases": {"attention_bias": False}},
    ),
    Variant(
        name="cohere2",
        seed=4803,
        architecture="Cohere2",
        config={**COHERE, "num_hidden_layers": 4, "sliding_window": 5, **rope("default", 500.0)},
        about="three layers of four with a window and rotary positions, the fourth with neither",
        misread={"windows": {"sliding_window": 100}, "layer types": {"layer_types": [SLIDING] * 4}},
    ),
]

STABLELM = [
    Variant(
        name="stablelm",
        seed=901,
        architecture="StableLm",
        config={
            **{key: value for key, value in TINY.items() if key != "rms_norm_eps"},
            "layer_norm_eps": 1e-5,
            "use_qkv_bias": True,
            **rope("default", 500.0, partial_rotary_factor=0.5),
        },
        about="layer norms with biases, half of each head rotated, biases of queries, keys and values",
        misread={
            "share of the head that is rotated": rope("default", 500.0, partial_rotary_factor=1.0),
            "biases of queries, keys and values": {"use_qkv_bias": False},
        },
    ),
    Variant(
        name="stablelm_parallel",
        seed=10902,
        architecture="StableLm",
        config={
            **{key: value for key, value in TINY.items() if key != "rms_norm_eps"},
            "layer_norm_eps": 1e-5,
            "vocab_size": 61,
            "num_key_value_heads": 4,
            "use_parallel_residual": True,
            "qk_layernorm": True,
            **rope("default", 500.0, partial_rotary_factor=0.25),
        },
        about="both branches read the same norm; a norm of its own for each head, no sharing of keys and values",
        spelling=4,
        misread={"norms of heads": {"qk_layernorm": False}},
    ),
]

EXAONE = [
    Variant(
        name="exaone4",
        seed=5001,
        architecture="Exaone4",
        config={**TINY, "num_hidden_layers": 4, "sliding_window": 5, **rope("default", 500.0)},
        about="norms after both branches, norms of heads; no rotary positions in the layers without a window",
        misread={"windows": {"sliding_window": 100}, "layer types": {"layer_types": [SLIDING] * 4}},
    ),
    Variant(
        name="exaone4_whole",
        seed=9002,
        architecture="Exaone4",
        config={
            **TINY,
            "vocab_size": 61,
            "tie_word_embeddings": True,
            "sliding_window": None,
            "sliding_window_pattern": 0,
            "layer_types": [FULL] * 3,
            **rope(
                "llama3",
                500.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        },
        embedding=0.15,
        about="no windows, so that all layers have rotary positions; llama3 scaling; tied",
        spelling=4,
        misread={"rope scaling": rope("default", 500.0)},
    ),
]

MINISTRAL = [
    Variant(
        name="ministral3",
        seed=3101,
        architecture="Ministral3",
        config={
            **TINY,
            "head_dim": 16,
            **rope(
                "yarn",
                1000.0,
                factor=4.0,
                original_max_position_embeddings=64,
                beta_fast=8.0,
                beta_slow=1.0,
                mscale=1.0,
                mscale_all_dim=1.0,
                llama_4_scaling_beta=0.1,
            ),
        },
        about="YaRN without a magnitude; scores that would grow past the original length, where nothing here is",
        misread={"rope scaling": rope("default", 1000.0, original_max_position_embeddings=64, llama_4_scaling_beta=0.1)},
    ),
]

MINISTRAL.append(
    Variant(
        name="ministral3_container",
        seed=1102,
        architecture="Mistral3",
        model_class="Mistral3ForConditionalGeneration",
        config={**MINISTRAL[0].config, "model_type": "ministral3", "vocab_size": 61, "num_hidden_layers": 2},
        container={
            "vision_config": {**VISION, "model_type": "pixtral"},
            "image_token_index": 60,
            "tie_word_embeddings": False,
        },
        about="the language model of a container with an image tower, with a head of its own",
        misread={"rope scaling": MINISTRAL[0].misread["rope scaling"]},
    )
)

VARIANTS = [*LLAMA, *QWEN, *GEMMA, *PHI, *OLMO, *GRANITE, *GLM, *COHERES, *STABLELM, *EXAONE, *MINISTRAL]
