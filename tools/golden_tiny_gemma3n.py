"""The tiny random checkpoints of golden_tiny.py with several residual streams."""

from golden_tiny_variants import FULL, SLIDING, TINY, Variant, two_ropes

ROPES = two_ropes({"rope_theta": 500.0}, {"rope_theta": 50.0})

GEMMA_3N = {
    **TINY,
    "hidden_size": 24,
    "tie_word_embeddings": True,
    "head_dim": 8,
    "num_hidden_layers": 4,
    "intermediate_size": [32, 40, 24, 32],
    "sliding_window": 5,
    "hidden_activation": "gelu_pytorch_tanh",
    "layer_types": [SLIDING, FULL, SLIDING, FULL],
    "activation_sparsity_pattern": [0.5, 0.9, 0.0, 0.0],
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": 50,
    "final_logit_softcapping": 4.0,
    "laurel_rank": 5,
    "altup_num_inputs": 4,
    **ROPES,
}
# What the checkpoints on the hub have beside the language model, in a few numbers. transformers makes the towers with
# another library, which would need far larger ones: they are put into the file by hand.
TOWERS = {
    "model.vision_tower.timm_model.conv_stem.conv.weight": [4, 3, 3, 3],
    "model.embed_vision.embedding_projection.weight": [24, 8],
    "model.audio_tower.subsample_conv_projection.conv_0.conv.weight": [4, 1, 3, 3],
    "model.embed_audio.embedding.weight": [4, 8],
}
CONTAINER = {
    "architectures": ["Gemma3nForConditionalGeneration"],
    "model_type": "gemma3n",
    "vision_config": {"model_type": "gemma3n_vision", "hidden_size": 8, "vocab_size": 4, "vocab_offset": 67},
    "audio_config": {"model_type": "gemma3n_audio", "hidden_size": 8, "vocab_size": 4, "vocab_offset": 71},
}

VARIANTS = [
    Variant(
        name="gemma3n",
        seed=3104,
        architecture="Gemma3nText",
        model_class="Gemma3nForCausalLM",
        config=GEMMA_3N,
        embedding=0.3,
        about="four streams, sparse gates in two layers, MLPs of several widths, two layers that read keys and values of"
        " others, tokens without an embedding of each layer",
        spelling=4,
        misread={
            "the active stream": {"altup_active_idx": 1},
            "sparse gates": {"activation_sparsity_pattern": [0.0] * 4},
            "how sparse a gate is": {"activation_sparsity_pattern": [0.5, 0.8, 0.0, 0.0]},
            "factors of the corrected stream": {"altup_correct_scale": False},
            "windows": {"sliding_window": 100},
            "soft cap of logits": {"final_logit_softcapping": 30.0},
            "rotation of layers with a window": two_ropes({"rope_theta": 500.0}, {"rope_theta": 500.0}),
        },
    ),
    Variant(
        name="gemma3n_second",
        seed=3230,
        architecture="Gemma3nText",
        model_class="Gemma3nForCausalLM",
        config={
            **GEMMA_3N,
            "hidden_size": 20,
            "rms_norm_eps": 0.01,
            "vocab_size": 61,
            "vocab_size_per_layer_input": 61,
            "tie_word_embeddings": False,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "num_hidden_layers": 5,
            "intermediate_size": 24,
            "layer_types": None,
            "activation_sparsity_pattern": None,
            "num_kv_shared_layers": 0,
            "altup_num_inputs": 3,
            "altup_active_idx": 1,
            "altup_correct_scale": False,
        },
        about="the second of three streams is the active one, the usual pattern of windows; untied",
        misread={
            "the active stream": {"altup_active_idx": 0},
            "windows": {"sliding_window": 100},
            "which layers have windows": {"layer_types": [SLIDING, FULL, SLIDING, FULL, FULL]},
        },
    ),
    Variant(
        name="gemma3n_deep",
        seed=3561,
        architecture="Gemma3nText",
        model_class="Gemma3nForCausalLM",
        config={
            **GEMMA_3N,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "num_hidden_layers": 11,
            # The norm behind a sparse MLP blows up what has barely passed the gate; a large epsilon stops that.
            "rms_norm_eps": 0.02,
            "vocab_size": 43,
            "head_dim": 4,
            "attention_bias": True,
            "intermediate_size": 24,
            "layer_types": None,
            "activation_sparsity_pattern": None,
            "num_kv_shared_layers": 5,
            "altup_num_inputs": 2,
            "laurel_rank": 3,
            "vocab_size_per_layer_input": 43,
        },
        embedding=0.1,
        about="two streams, biases of attention, and ten sparse layers of eleven because nothing is said of them",
        misread={
            "attention biases": {"attention_bias": False},
            "sparse gates": {"activation_sparsity_pattern": [0.0] * 11},
            "which gates are sparse": {"activation_sparsity_pattern": [0.95] * 9 + [0.0] * 2},
        },
    ),
    Variant(
        name="gemma3n_container",
        seed=3408,
        architecture="Gemma3nText",
        model_class="Gemma3nForCausalLM",
        config={
            **GEMMA_3N,
            "num_hidden_layers": 3,
            "intermediate_size": 32,
            "layer_types": [SLIDING, FULL, FULL],
            "activation_sparsity_pattern": [0.8, 0.0, 0.0],
            "num_kv_shared_layers": 1,
        },
        embedding=0.1,
        wrapped=CONTAINER,
        towers=TOWERS,
        about="the language model of a container with towers for images and sounds, computed before it was put there",
        misread={"sparse gates": {"activation_sparsity_pattern": [0.0] * 3}},
    ),
]
