"""Golden checkpoints with one key of their configuration changed, and what transformers makes of each.

    python tools/config_variants.py OUT_DIR [--like NAME ...] [--all]
    cargo run --example compare_configs -p ablate-engine -- OUT_DIR

Configurations of strangers have keys that a class ignores, that stand in two places, or that contradict the tensors. The
question is whether both programs read the same model. A folder of OUT_DIR holds config.json, links to the golden's weights
and variant.json: the change, the error of transformers or the tensors that it missed or did not expect, prompts and the
logits at the last token of each. One golden checkpoint for each architecture is taken, or --all.
"""

import argparse
import copy
import json
import logging
import os
import pathlib
import warnings

import torch
import transformers

import reference

LINEAR = {"rope_type": "linear", "factor": 4.0}
OLD_LINEAR = {"type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip
PROMPT_LENGTHS = [6, 24]
ABSENT = object()


def changes(config: dict) -> dict[str, dict]:
    """Changes of the language model's part of a configuration, by name. A value of ABSENT removes the key."""
    layers = config.get("num_hidden_layers") or len(config.get("hybrid_override_pattern", "")) or 2
    sliding = ["sliding_attention" if layer % 2 else "full_attention" for layer in range(layers)]
    found = {
        "window": {"sliding_window": 3},
        "window_on": {"sliding_window": 3, "use_sliding_window": True},
        "window_off": {"sliding_window": 3, "use_sliding_window": False},
        "window_layers": {"sliding_window": 3, "use_sliding_window": True, "max_window_layers": 1},
        "window_none": {"sliding_window": None},
        "window_types": {"sliding_window": 3, "layer_types": sliding},
        "window_types_on": {"sliding_window": 3, "layer_types": sliding, "use_sliding_window": True},
        "window_pattern": {"sliding_window": 3, "sliding_window_pattern": 2, "layer_types": ABSENT},
        "scaling": {"rope_scaling": LINEAR},
        "scaling_old": {"rope_scaling": OLD_LINEAR},
        "scaling_empty": {"rope_scaling": {}},
        "scaling_and_theta": {"rope_scaling": LINEAR, "rope_theta": 77.0},
        "scaling_beside_parameters": {"rope_scaling": LINEAR, "rope_parameters": {"rope_type": "default", "rope_theta": 33.0}},
        "scaling_beside_parameters_and_theta": {
            "rope_scaling": LINEAR, "rope_theta": 77.0, "rope_parameters": {"rope_type": "default", "rope_theta": 33.0}},
        "scaling_empty_beside_parameters": {"rope_scaling": {}, "rope_parameters": {**LINEAR, "rope_theta": 33.0}},
        "scaling_default_beside_parameters": {
            "rope_scaling": {"rope_type": "default"}, "rope_parameters": {**LINEAR, "rope_theta": 33.0}},
        "theta": {"rope_theta": 77.0},
        "theta_twice": {"rope_theta": 77.0, "rope_parameters": {"rope_type": "default", "rope_theta": 33.0}},
        "theta_beside_parameters": {"rope_theta": 77.0, "rope_parameters": LINEAR},
        "theta_local": {"rope_local_base_freq": 33.0},
        "partial": {"partial_rotary_factor": 0.5},
        "partial_within": {"rope_parameters": {"rope_type": "default", "rope_theta": 33.0, "partial_rotary_factor": 0.5}},
        "partial_twice": {
            "partial_rotary_factor": 0.25,
            "rope_parameters": {"rope_type": "default", "rope_theta": 33.0, "partial_rotary_factor": 0.5}},
        "yarn": {"rope_scaling": YARN},
        "yarn_trained_twice": {"rope_scaling": YARN, "original_max_position_embeddings": 32},
        "yarn_trained_above": {
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "original_max_position_embeddings": 32},
        "yarn_untold": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        "llama3": {"rope_scaling": LLAMA3},
        "llama3_trained_twice": {"rope_scaling": LLAMA3, "original_max_position_embeddings": 64},
        "rope_and_type": {"rope_scaling": {"rope_type": "default", "type": "linear", "factor": 4.0}},
        "rotary_pct": {"rotary_pct": 0.5},
        "rotary_dim": {"rotary_dim": 4},
        "no_rope": {"no_rope_layers": [layer % 2 for layer in range(layers)]},
        "no_rope_interval": {"no_rope_layer_interval": 2},
        "attention_bias": {"attention_bias": True},
        "no_attention_bias": {"attention_bias": False},
        "mlp_bias": {"mlp_bias": True},
        "no_mlp_bias": {"mlp_bias": False},
        "use_bias": {"use_bias": True},
        "no_use_bias": {"use_bias": False},
        "tied": {"tie_word_embeddings": True},
        "untied": {"tie_word_embeddings": False},
        "ties_absent": {"tie_word_embeddings": ABSENT},
        "gelu": {"hidden_act": "gelu"},
        "gelu_hidden_activation": {"hidden_activation": "gelu"},
        "epsilon": {"rms_norm_eps": 0.3},
        "epsilon_layer": {"layer_norm_eps": 0.3},
        "epsilon_norm": {"norm_eps": 0.3},
        "epsilon_layer_norm": {"layer_norm_epsilon": 0.3},
        "epsilon_absent": {"rms_norm_eps": ABSENT},
        "head_dim_absent": {"head_dim": ABSENT},
        "head_dim_null": {"head_dim": None},
        "groups_absent": {"num_key_value_heads": ABSENT},
        "logit_scale": {"logit_scale": 0.5},
        "logits_scaling": {"logits_scaling": 3.0},
        "softcap": {"final_logit_softcapping": 2.0},
        "softcap_attention": {"attn_logit_softcapping": 0.5},
        "softcap_none": {"final_logit_softcapping": None, "attn_logit_softcapping": None},
        "scalar": {"query_pre_attn_scalar": 3},
        "multipliers": {"attention_multiplier": 0.3, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
        "clipped": {"clip_qkv": 0.1},
        "qk_norm": {"use_qk_norm": True},
        "qk_layernorm": {"qk_layernorm": True},
        "no_qk_norm": {"use_qk_norm": False, "qk_layernorm": False},
        "topk_normalized": {"norm_topk_prob": True},
        "topk_not_normalized": {"norm_topk_prob": False},
        "topk_absent": {"norm_topk_prob": ABSENT},
        "experts_scale": {"routed_scaling_factor": 3.0},
        "experts_sigmoid": {"scoring_func": "sigmoid"},
        "experts_softmax": {"scoring_func": "softmax"},
        "experts_method": {"topk_method": "greedy"},
        "moe_frequency": {"moe_layer_freq": 2},
        "sparse_step": {"decoder_sparse_step": 2},
        "context_short": {"max_position_embeddings": 8},
        "step_limit": {"time_step_limit": [0.4, 0.9]},
        "step_least": {"time_step_min": 0.4, "time_step_max": 0.9, "time_step_floor": 0.2},
        "tensor_parallel": {"pretraining_tp": 2},
        "fewer_layers": {"num_hidden_layers": max(1, layers - 1)},
        "model_type_alone": {"architectures": ABSENT},
    }  # fmt: skip
    return found


def changed(config: dict, change: dict) -> dict:
    config = copy.deepcopy(config)
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    for key, value in change.items():
        # What belongs to the whole stands outside.
        for part in [config, text] if key in ("architectures", "tie_word_embeddings") else [text]:
            if value is ABSENT:
                part.pop(key, None)
            elif part is text or key in part:
                part[key] = value
    return config


def load(folder: pathlib.Path, architecture: str):
    model_class = getattr(transformers, architecture)
    plain = {"attn_implementation": "eager", "experts_implementation": "eager", "dtype": torch.float32}
    model, info = model_class.from_pretrained(folder, output_loading_info=True, **plain)
    return model.eval(), info


@torch.no_grad()
def logits_of(folder: pathlib.Path, architecture: str, prompts: list[list[int]]) -> tuple[list, dict]:
    model, info = load(folder, architecture)
    logits = [model(torch.tensor([ids]), use_cache=False).logits[0, -1].float().tolist() for ids in prompts]
    return logits, {key: sorted(map(str, info[key]))[:5] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, metavar="OUT_DIR")
    parser.add_argument("--like", nargs="+", metavar="NAME", help="goldens, by a part of their names")
    parser.add_argument("--only", nargs="+", metavar="CHANGE")
    parser.add_argument("--all", action="store_true", help="every golden, not one for each architecture")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity(logging.CRITICAL)
    root = pathlib.Path(__file__).resolve().parent.parent / "crates/engine/tests/golden"
    seen = set()
    for golden in sorted(it for it in root.iterdir() if (it / "golden.json").exists()):
        original = json.loads((golden / "config.json").read_text())
        architecture = original["architectures"][0]
        spelling = "rope_parameters" in (original.get("text_config") or original)
        quantized = "quantization_config" in original
        if quantized or ((architecture, spelling) in seen and not arguments.all):
            continue
        if arguments.like and not any(part in golden.name for part in arguments.like):
            continue
        seen.add((architecture, spelling))
        text = original.get("text_config") or original
        generator = torch.Generator().manual_seed(1)
        prompts = [torch.randint(text["vocab_size"], (it,), generator=generator).tolist() for it in PROMPT_LENGTHS]
        differing = 0
        plain, _ = logits_of(golden, architecture, prompts)
        for name, change in changes(text).items():
            if arguments.only and name not in arguments.only:
                continue
            folder = arguments.out / f"{golden.name}--{name}"
            folder.mkdir(parents=True, exist_ok=True)
            for file in golden.glob("model*"):
                link = folder / file.name
                if not link.exists():
                    os.symlink(file, link)
            config = changed(original, change)
            (folder / "config.json").write_text(json.dumps(config, indent=2))
            told = {key: "(absent)" if value is ABSENT else value for key, value in change.items()}
            record = {"golden": golden.name, "change": told, "prompts": prompts}
            try:
                logits, info = logits_of(folder, architecture, prompts)
                record |= {"logits": logits, "info": info, "matters": logits != plain}
                differing += logits != plain
            except Exception as error:
                record["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            (folder / "variant.json").write_text(json.dumps(record))
        print(f"{golden.name}: {differing} changes matter", flush=True)


if __name__ == "__main__":
    main()
