"""Golden checkpoints with settings drawn at random, to find what the chosen ones of golden_tiny.py miss.

    python tools/golden_random.py OUT_DIR --count 40 --seed 1 [--like NAME ...]
    ABLATE_GOLDENS=OUT_DIR cargo test -p ablate-engine --test families -- logits log_prob notation batch_has common_head

(The other tests of that file count on checkpoints that are there for them.)

Each begins as one of golden_tiny.py's variants; some of its settings are drawn anew. What the reference stack refuses, or
answers with near ties at every seed tried, is left out and counted.
"""

import argparse
import copy
import dataclasses
import pathlib
import random
import shutil

import torch

from golden_tiny import VARIANTS, write_checkpoint, write_golden

SEEDS_TRIED = 6
HEADS = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 3), (4, 1), (4, 2), (5, 1), (6, 2), (6, 3)]
# What may be drawn for a setting that a variant has.
CHOICES = {
    "head_dim": [4, 6, 8, 10, 12, 16, 20, 24, 34],
    "intermediate_size": [7, 12, 16, 33, 48, 72],
    "moe_intermediate_size": [7, 12, 16, 33, 40],
    "vocab_size": [31, 48, 61, 97, 131],
    "rms_norm_eps": [1e-6, 1e-5, 0.02],
    "layer_norm_eps": [1e-6, 1e-5, 0.02],
    "norm_eps": [1e-6, 1e-5, 0.02],
    "layer_norm_epsilon": [1e-6, 1e-5, 0.02],
    "tie_word_embeddings": [False, True],
    "attention_bias": [False, True],
    "mlp_bias": [False, True],
    "use_bias": [False, True],
    "use_qk_norm": [False, True],
    "qk_layernorm": [False, True],
    "norm_topk_prob": [False, True],
    "use_parallel_residual": [False, True],
    "sliding_window": [1, 2, 3, 5, 8, 16],
    "rope_theta": [50.0, 500.0, 10000.0, 1000000.0],
    "partial_rotary_factor": [0.25, 0.5, 0.75, 1.0],
    "logits_scaling": [0.5, 3.0],
    "logit_scale": [0.25, 2.0],
    "residual_multiplier": [0.4, 1.0, 1.5],
    "embedding_multiplier": [1.0, 3.0],
    "attention_multiplier": [0.1, 0.4],
    "final_logit_softcapping": [None, 5.0, 30.0],
    "attn_logit_softcapping": [None, 5.0, 50.0],
    "query_pre_attn_scalar": [4, 24, 100],
    "routed_scaling_factor": [0.5, 1.0, 2.5],
    "conv_L_cache": [2, 3, 4],
    "conv_bias": [False, True],
    "use_attention_gate": [False, True],
    "use_sandwich_norm": [False, True],
    "linear_conv_kernel_dim": [2, 3, 4],
    "linear_key_head_dim": [4, 5, 8, 12],
    "linear_value_head_dim": [4, 6, 7, 16],
    "linear_allow_neg_eigval": [False, True],
    "num_global_key_value_heads": [None, 1],
    "global_head_dim": [4, 12, 16],
    "attention_k_eq_v": [False, True],
    "layer_rope_theta": [None, [0, 100.0, 50.0, 500.0, 0], [1000.0] * 5],
    "mamba_d_conv": [2, 3, 4],
    "conv_kernel": [2, 3, 4],
    "q_lora_rank": [None, 8, 12],
    "kv_lora_rank": [6, 8, 16],
    "v_head_dim": [4, 6, 8, 12],
    "qk_nope_head_dim": [4, 6, 8, 12],
    "qk_rope_head_dim": [2, 4, 8],
}
# Kinds of rotation, with the numbers that they need.
ROTATIONS = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 32, "beta_fast": 16.0, "beta_slow": 2.0,
     "attention_factor": 1.3},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 16},
]  # fmt: skip


def redrawn(settings: dict, chance: random.Random) -> tuple[dict, list[str]]:
    """Settings of which some are drawn anew, and which those are."""
    settings, changed = copy.deepcopy(settings), []

    def put(within: dict, key: str, value) -> None:
        if within.get(key) != value:
            within[key] = value
            changed.append(f"{key} = {value}")

    if "num_attention_heads" in settings and chance.random() < 0.5:
        heads, shared = chance.choice(HEADS)
        put(settings, "num_attention_heads", heads)
        if "num_key_value_heads" in settings:
            same = settings.get("kv_lora_rank") is not None  # every head has keys of its own
            put(settings, "num_key_value_heads", heads if same else shared)
    if "hidden_size" in settings and chance.random() < 0.5:
        heads = settings.get("num_attention_heads", 1)
        step = 2 if "head_dim" in settings else 2 * heads
        put(settings, "hidden_size", step * chance.randint(max(1, 12 // step), 48 // step + 1))
    lists = any(isinstance(value, list) for value in settings.values())
    if "num_hidden_layers" in settings and not lists and chance.random() < 0.3:
        put(settings, "num_hidden_layers", chance.randint(1, 5))
    if "num_experts_per_tok" in settings and chance.random() < 0.5:
        put(settings, "num_experts_per_tok", chance.randint(1, 3))
    of_rope = settings.get("rope_parameters") or {}
    if of_rope.get("rope_type") in {"default", "linear", "llama3"} and "mrope_section" not in of_rope and chance.random() < 0.4:
        kept = {key: of_rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in of_rope}
        put(settings, "rope_parameters", {**kept, **chance.choice(ROTATIONS)})
        of_rope = settings["rope_parameters"]
    for within in [settings, of_rope, *(it for it in of_rope.values() if isinstance(it, dict))]:
        for key, choices in CHOICES.items():
            if key in within and chance.random() < 0.35:
                put(within, key, chance.choice(choices))
    return settings, changed


def made(variant, folder: pathlib.Path) -> str | None:
    """Writes a checkpoint and its goldens; why it could not, otherwise."""
    why = None
    for seed in range(variant.seed, variant.seed + SEEDS_TRIED):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tried = dataclasses.replace(variant, seed=seed)
        try:
            write_checkpoint(tried, folder)
            write_golden(tried, folder)
            return None
        except SystemExit as error:  # this seed is of no use
            why = str(error)
        except Exception as error:  # the reference stack knows no such model
            shutil.rmtree(folder)
            return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    shutil.rmtree(folder)
    return why


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, metavar="OUT_DIR")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--like", nargs="+", metavar="NAME", help="variants to begin with, by a part of their names")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    chance = random.Random(arguments.seed)
    variants = [it for it in VARIANTS if not it.microscaled]
    if arguments.like:
        variants = [it for it in variants if any(part in it.name for part in arguments.like)]
    left_out = 0
    for index in range(arguments.count):
        variant = chance.choice(variants)
        settings, changed = redrawn(variant.config, chance)
        name = f"{variant.name}_{arguments.seed}_{index}"
        drawn = dataclasses.replace(
            variant, name=name, seed=100 * chance.randint(1, 10**6), config=settings, misread={}, about=", ".join(changed)
        )
        why = made(drawn, arguments.out / name)
        left_out += why is not None
        print(f"{name}: {', '.join(changed)}{f'  LEFT OUT: {why}' if why else ''}", flush=True)
    print(f"{arguments.count - left_out} made, {left_out} left out")


if __name__ == "__main__":
    main()
