"""Tiny random checkpoints of every family and what the reference stack computes with them.

    python tools/golden_tiny.py [OUT_DIR] [--only NAME ...]

writes one folder per variant under OUT_DIR (default: crates/engine/tests/golden):

    config.json                  as transformers 4 or 5 spells it, by turns
    config.transformers-N.json   the same configuration in the other spelling
    model.safetensors            or two shards and model.safetensors.index.json
    golden.json                  prompts, greedy answers, teacher-forced log-probabilities, what matters
    golden.safetensors           logits [prompts, vocab], residuals [prompts, blocks + 1, d_model] and
                                 before_final_norm [prompts, d_model], each at the last token of a prompt, f32

There is no tokenizer: prompts are lists of token ids. Everything is computed in f32 from the stored weights, one
unpadded prompt at a time, after reading the folder back from disk. The last of `residuals` is read after the final
norm, as hidden_states are. In golden.json:

- `answers[i]`: the greedy continuation of prompt i (end-of-sequence is not obeyed) and the smallest lead of the top
  logit over the second on the way; the script refuses a seed for which rounding could change an answer.
- `continuations`: given tokens after prompt `prompt`, the natural log-probability of each and the top token there.
- `matters`: how far the logits move (largest absolute change) when a part of the model is misread, so that a test
  with a tolerance well below can be trusted to notice.
- `f64_difference`: how far logits and residuals move when the matrix products run in f64 (the norms, the rotary
  angles and the softmax stay f32 in transformers): the size of rounding noise, for choosing tolerances.

Weights are drawn wide (projections about 0.25, norm gains around 1, biases about 0.5) so that every part matters and
greedy answers vary; with the usual 0.02 the blocks would hardly move the residual stream.
"""

import argparse
import copy
import json
import pathlib
import shutil
import tempfile

import safetensors.torch
import torch
import transformers

import reference
import golden_tiny_dense
import golden_tiny_experts
import golden_tiny_gemma3n
import golden_tiny_gemma4
import golden_tiny_hybrid
import golden_tiny_latent
import golden_tiny_mixtures
import golden_tiny_recurrent
import golden_tiny_variants
from golden_tiny_variants import Variant

MODULES = [
    golden_tiny_variants,
    golden_tiny_experts,
    golden_tiny_latent,
    golden_tiny_mixtures,
    golden_tiny_recurrent,
    golden_tiny_hybrid,
    golden_tiny_gemma4,
    golden_tiny_gemma3n,
    golden_tiny_dense,
]
VARIANTS = [variant for module in MODULES for variant in module.VARIANTS]
assert len({variant.name for variant in VARIANTS}) == len(VARIANTS), "two variants of one name share a folder"

PROMPT_LENGTHS = [1, 3, 5, 6, 17, 40]
ANSWER_TOKENS = 16
# Below this lead two implementations that both round to f32 could choose differently.
SMALLEST_GAP = 2e-3
# A misreading that moves the logits less than this would prove nothing.
SMALLEST_MATTER = 0.05
# Even one build of torch on one machine rounds differently when a weight lies elsewhere in memory.
SAME_LOGITS = 1e-4


def untrained(variant: Variant, overrides: dict | None = None):
    """The model of a variant, with some of its configuration otherwise, in f32, with eager attention."""
    text = {**copy.deepcopy(variant.config), **(overrides or {})}
    whole = {**copy.deepcopy(variant.container), "text_config": text} if variant.container else text
    resolved = getattr(transformers, f"{variant.architecture}Config")(**whole)
    resolved._attn_implementation = resolved._experts_implementation = "eager"
    model_class = variant.model_class or f"{variant.architecture}ForCausalLM"
    return getattr(transformers, model_class)(resolved).float().eval()


def draw_weights(model, variant: Variant, generator: torch.Generator) -> None:
    """Wide random weights, in the order of the parameters' names."""
    for name, parameter in sorted(model.named_parameters()):
        normal = torch.randn(parameter.shape, generator=generator)
        if name.endswith("e_score_correction_bias"):
            value = 0.1 * normal
        elif name.endswith("bias"):
            value = 0.5 * normal
        elif name.endswith("sinks"):
            value = normal
        elif name.endswith("modality_router.weight"):
            value = 5.0 * normal  # what it reads is divided by the width of the stream
        elif name.endswith("correct_output_scale"):
            value = 1.0 + 0.3 * normal
        elif "norm" in name:
            value = variant.gain_offset + 0.3 * normal
            if "q_norm" in name or "k_norm" in name:
                value += variant.head_gain
        elif "embed_tokens" in name:
            usual = 0.3 if getattr(model.config, "tie_word_embeddings", False) else 1.0
            value = (variant.embedding or usual) * normal
        else:
            value = 0.25 * normal
        parameter.data.copy_(value)
    for name, buffer in sorted(model.named_buffers()):
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith("layer_scalar"):
            buffer.copy_(0.8 + 0.2 * torch.randn(buffer.shape, generator=generator))


def respell(config: dict, spelling: int) -> dict:
    """The configuration with the keys that transformers 4 or 5 writes. `config` is as 5 writes it."""
    config = {key: value for key, value in config.items() if key != "transformers_version"}
    if spelling == 5:
        return config
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    if config.get("model_type") in {"qwen3_moe", "olmoe"}:
        config["num_experts"] = config.pop("num_local_experts", config.get("num_experts"))
    if config.get("model_type") == "lfm3":  # transformers 4 knew none
        return dict(sorted(config.items()))
    if config.get("model_type") in {"gemma4_text", "gemma4_unified_text"}:
        return dict(sorted(first_spelling_of_gemma4(config).items()))
    if config.get("model_type") in RELEASED:
        return dict(sorted(RELEASED[config["model_type"]](config).items()))
    if "text_config" in config:
        config["text_config"] = respell(config["text_config"], spelling)
        if config["model_type"] == "exaone4_5":  # as first released
            config["text_config"]["model_type"] = "exaone4_5_text"
        if config["model_type"] in {"qwen2_vl", "qwen2_5_vl"}:  # flat, as on the hub
            config = {**config.pop("text_config"), **config}
        return dict(sorted(config.items()))
    if config.get("model_type") == "nemotron_h":
        letters = {"linear_attention": "M", "full_attention": "*", "mlp": "-", "moe": "E"}
        kinds = config.pop("layers_block_type", None) or config.pop("layer_types")
        config.pop("layer_types", None)
        config["hybrid_override_pattern"] = "".join(letters[kind] for kind in kinds)
        config["num_hidden_layers"] = len(kinds)
    if "rope_parameters" not in config:
        return dict(sorted(config.items()))
    scaling = config.pop("rope_parameters")
    by_layer_type = "full_attention" in scaling
    if by_layer_type:
        local = scaling["sliding_attention"]["rope_theta"]
        scaling = scaling["full_attention"]
        if local != scaling["rope_theta"]:
            config["rope_local_base_freq"] = local
    config["rope_theta"] = scaling.pop("rope_theta")
    if "partial_rotary_factor" in scaling:
        config["partial_rotary_factor"] = scaling.pop("partial_rotary_factor")
    if scaling["rope_type"] == "linear" and not by_layer_type:  # as files from 2023 have it
        scaling["type"] = scaling.pop("rope_type")
    if "mrope_section" in scaling and "mrope_interleaved" not in scaling:
        scaling["type"] = "mrope"
        del scaling["rope_type"]
    plain = scaling.get("rope_type") == "default" and "mrope_section" not in scaling
    config["rope_scaling"] = None if plain else scaling
    return dict(sorted(config.items()))


def first_spelling_of_gemma4(config: dict) -> dict:
    """As the first files have it, with two keys for the layers that see everything. transformers 4 knew no Gemma 4."""
    layers = list(config.pop("per_layer_config").values())
    config["global_head_dim"] = layers[0]["head_dim"]
    config["num_global_key_value_heads"] = layers[0].get("num_key_value_heads")
    return config


def release_of_mimo(config: dict) -> dict:
    """As the released model has it, which transformers 4 did not know; its own lists go before these."""
    ropes = config["rope_parameters"]
    usual = [ropes[kind]["rope_theta"] for kind in ("full_attention", "sliding_attention")] == [5e6, 1e4]
    kinds = config["layer_types"]
    if not usual or kinds != ["full_attention"] + ["sliding_attention"] * (len(kinds) - 1):
        return config
    for key in ("rope_parameters", "layer_types", "mlp_layer_types"):
        del config[key]
    first = [0] + [1] * (len(kinds) - 1)
    return {
        **config,
        "rope_theta": 5000000,
        "swa_rope_theta": 10000,
        "partial_rotary_factor": 0.334,
        "hybrid_layer_pattern": first,
        "moe_layer_freq": first,
        "swa_num_key_value_heads": 2 * config["num_key_value_heads"],
        "swa_head_dim": config["head_dim"],
        "swa_v_head_dim": config["v_head_dim"],
        "sliding_window_size": config["sliding_window"] - 1,
        "sliding_window": config["sliding_window"] - 1,
        "routed_scaling_factor": None,
        "n_shared_experts": None,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    }


def release_of_step(config: dict) -> dict:
    """As the released model has it: lists with an entry for each layer, and one more for a layer that is not used."""
    ropes, kinds = config.pop("rope_parameters"), config["layer_types"]
    experts = [str(layer) for layer, kind in enumerate(config.pop("mlp_layer_types")) if kind == "sparse"]
    for key in ("per_layer_config", "mtp_layer_types", "mtp_mlp_layer_types"):
        config.pop(key, None)
    if config["query_pre_attn_scalar"] == config["head_dim"]:
        del config["query_pre_attn_scalar"]
    of_windows = config.pop("num_sliding_attention_heads")
    more = lambda values, last: None if values is None else [*values, last]
    renamed = {
        "num_key_value_heads": "num_attention_groups",
        "n_routed_experts": "moe_num_experts",
        "num_experts_per_tok": "moe_top_k",
    }
    config.pop("num_local_experts", None)
    for new, old in renamed.items():
        config[old] = config.pop(new)
    return {
        **config,
        "num_nextn_predict_layers": 1,
        "layer_types": more(kinds, "sliding_attention"),
        "swiglu_limits": more(config["swiglu_limits"], 3.0),
        "swiglu_limits_shared": more(config["swiglu_limits_shared"], 3.0),
        "rope_theta": [ropes[kind]["rope_theta"] for kind in kinds] + [1.0],
        "partial_rotary_factors": [ropes[kind]["partial_rotary_factor"] for kind in kinds] + [1.0],
        "moe_layers_enum": ",".join(experts),
        "attention_other_setting": {"num_attention_heads": of_windows},
    }


def release_of_kimi(config: dict) -> dict:
    """As the released model has it: other names, and a section for the delta nets, which counts layers from 1."""
    kinds = config.pop("layer_types")
    layers = {kind: [layer + 1 for layer, it in enumerate(kinds) if it == kind] for kind in kinds}
    dense = config.pop("mlp_layer_types").count("dense")
    net = {
        "full_attn_layers": layers["full_attention"],
        "kda_layers": layers["linear_attention"],
        "head_dim": config.pop("linear_head_dim"),
        "num_heads": config.pop("linear_num_heads"),
        "short_conv_kernel_size": config.pop("linear_conv_kernel_dim"),
    }
    renamed = {
        "max_position_embeddings": "model_max_length",
        "norm_topk_prob": "moe_renormalize",
        "n_group": "num_expert_group",
        "num_local_experts": "num_experts",
        "num_experts_per_tok": "num_experts_per_token",
        "n_shared_experts": "num_shared_experts",
    }
    for new, old in renamed.items():
        if new in config:
            config[old] = config.pop(new)
    return {
        **config,
        "first_k_dense_replace": dense,
        "linear_attn_config": net,
        "mla_use_nope": True,
        "moe_layer_freq": 1,
        "moe_router_activation_func": "sigmoid",
        "rope_scaling": None,
        "rope_theta": 10000.0,
    }


# Kinds of models that transformers 4 did not know, and how their released configurations are written.
RELEASED = {"mimo_v2_flash": release_of_mimo, "step3p5": release_of_step, "laguna": lambda config: config, "kimi_linear": release_of_kimi}


def write_checkpoint(variant: Variant, folder: pathlib.Path) -> None:
    model = untrained(variant)
    draw_weights(model, variant, torch.Generator().manual_seed(variant.seed))
    model = model.to(variant.dtype)
    with tempfile.TemporaryDirectory() as scratch:
        # Two shards: a file may hold a little more than half.
        size = sum(tensor.nbytes for tensor in model.parameters())
        model.save_pretrained(scratch, max_shard_size=size * 10 // (10 * variant.shards - 4))
        if variant.fused:
            safetensors.torch.save_file(stored_tensors(model), f"{scratch}/model.safetensors", {"format": "pt"})
        if variant.microscaled:
            pack_experts(pathlib.Path(scratch))
        for file in sorted(pathlib.Path(scratch).glob("model*")):
            shutil.copyfile(file, folder / file.name)
            if variant.renamed:
                rename_tensors(folder / file.name, variant.renamed)
        written = json.loads((pathlib.Path(scratch) / "config.json").read_text())
    found = len(list(folder.glob("*.safetensors")))
    if found != variant.shards:
        raise SystemExit(f"{variant.name}: expected {variant.shards} weight files, found {found}")
    for spelling in (4, 5):
        name = "config.json" if spelling == variant.spelling else f"config.transformers-{spelling}.json"
        text = json.dumps(respell(copy.deepcopy(written), spelling), indent=2, sort_keys=True)
        (folder / name).write_text(text + "\n")


def stored_tensors(model) -> dict[str, torch.Tensor]:
    """What a model holds, without the head where that is the embedding."""
    tied = {"lm_head.weight"} if getattr(model.config, "tie_word_embeddings", False) else set()
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}


# What the 16 codes of 4 bits mean: a sign, two bits of exponent, one of mantissa (OCP Microscaling Formats 1.0).
MAGNITUDES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def microscaled(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of 32 numbers of `[…, outputs, inputs]` in bytes, and the exponents of their scales, which are off by 127."""
    blocks = weight.float().unflatten(-1, (-1, 32))  # […, outputs, blocks, 32]
    exponents = torch.floor(torch.log2(blocks.abs().amax(-1))) - 2  # so that the largest number is at most 8
    scaled = blocks / torch.exp2(exponents).unsqueeze(-1)
    codes = (scaled.abs().unsqueeze(-1) - MAGNITUDES).abs().argmin(-1) + 8 * (scaled < 0)
    pairs = codes.unflatten(-1, (16, 2)).to(torch.uint8)  # the first of two in the lower bits
    return pairs[..., 0] | pairs[..., 1] << 4, (exponents + 127).to(torch.uint8)


def pack_experts(folder: pathlib.Path) -> None:
    """Stores the experts of a folder of gpt-oss as the released models do."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for name in [it for it in tensors if it.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        weight = tensors.pop(name).transpose(1, 2).contiguous()  # [experts, outputs, inputs]
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = microscaled(weight)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    others = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": others}
    (folder / "config.json").write_text(json.dumps(config))


def rename_tensors(file: pathlib.Path, renamed: dict[str, str]) -> None:
    """Gives tensors the names of another layout."""

    def other(name: str) -> str:
        for old, new in renamed.items():
            if name.startswith(old):
                return new + name.removeprefix(old)
        raise SystemExit(f"{file}: no new name for {name}")

    tensors = {other(name): tensor for name, tensor in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})


def stacked(readings: list[reference.Reading]) -> dict[str, torch.Tensor]:
    return {
        "logits": torch.stack([it.logits for it in readings]),
        "residuals": torch.stack([it.residuals for it in readings]),
        "before_final_norm": torch.stack([it.before_final_norm for it in readings]),
    }


def largest_change(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


def misread_model(folder: pathlib.Path, variant: Variant, overrides: dict):
    """The stored weights under a configuration that is wrong in one point."""
    model = untrained(variant, overrides)
    weights = reference.load(folder).state_dict()
    # Biases that the wrong configuration does not know are left over; that is the point.
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    return model


def write_golden(variant: Variant, folder: pathlib.Path) -> dict:
    generator = torch.Generator().manual_seed(1000 + variant.seed)

    def random_ids(length: int) -> list[int]:
        return torch.randint(variant.config["vocab_size"], (length,), generator=generator).tolist()

    prompts = [random_ids(length) for length in PROMPT_LENGTHS]
    given = [(4, random_ids(12)), (1, random_ids(7)), (0, random_ids(1))]

    model = reference.load(folder)
    golden = stacked([reference.read(model, ids) for ids in prompts])
    answers = [reference.greedy(model, ids, ANSWER_TOKENS) for ids in prompts]
    continuations = [reference.continuation(model, prompts[prompt], tokens) for prompt, tokens in given]

    check_other_spelling(variant, folder, prompts, golden["logits"])
    for prompt, answer in zip(prompts, answers, strict=True):
        check_generate(variant, model, prompt, answer)

    matters = {}
    for what, overrides in variant.misread.items():
        wrong = misread_model(folder, variant, overrides)
        logits = torch.stack([reference.read(wrong, ids).logits for ids in prompts])
        matters[what] = largest_change(logits, golden["logits"])
        if matters[what] < SMALLEST_MATTER:
            raise SystemExit(f"{variant.name}: misreading {what} moves the logits by {matters[what]:.2g} only")
    check_misreading_nothing(variant, folder, prompts, golden["logits"])

    precise = reference.load(folder, torch.float64)
    in_f64 = stacked([reference.read(precise, ids) for ids in prompts])

    (folder / "golden.safetensors").write_bytes(safetensors.torch.save(golden))
    record = {
        "about": variant.about,
        "made_by": {"script": pathlib.Path(__file__).name, "seed": variant.seed, **reference.versions()},
        "matters": {what: round(change, 3) for what, change in matters.items()},
        "f64_difference": {name: float(f"{largest_change(golden[name], in_f64[name]):.2g}") for name in golden},
        "prompts": prompts,
        "answers": [
            {"ids": it.ids, "smallest_gap": round(it.smallest_gap, 5), "smallest_gap_step": it.smallest_gap_step}
            for it in answers
        ],
        "continuations": [
            {"prompt": prompt, "ids": ids, "logprobs": it.logprobs, "top_ids": it.top_ids}
            for (prompt, ids), it in zip(given, continuations, strict=True)
        ],
    }
    reference.write_json(folder / "golden.json", record)
    return record


def check_misreading_nothing(variant: Variant, folder: pathlib.Path, prompts, logits: torch.Tensor) -> None:
    """What `matters` measures is the misreading, not the other way of loading."""
    model = misread_model(folder, variant, {})
    change = largest_change(torch.stack([reference.read(model, ids).logits for ids in prompts]), logits)
    if change > SAME_LOGITS:
        raise SystemExit(f"{variant.name}: the right configuration moves the logits by {change:.2g}")


def check_other_spelling(variant: Variant, folder: pathlib.Path, prompts, logits: torch.Tensor) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for file in folder.glob("model*"):
            shutil.copyfile(file, pathlib.Path(scratch) / file.name)
        other = next(folder.glob("config.transformers-*.json"))
        shutil.copyfile(other, pathlib.Path(scratch) / "config.json")
        model = reference.load(pathlib.Path(scratch))
        change = largest_change(torch.stack([reference.read(model, ids).logits for ids in prompts]), logits)
        if change > SAME_LOGITS:
            raise SystemExit(f"{variant.name}: {other.name} moves the logits by {change:.2g}")


def check_generate(variant: Variant, model, prompt: list[int], answer: reference.Answer) -> None:
    """The same answer with the reference stack's own loop, which keeps a cache; and one that rounding cannot change."""
    if answer.smallest_gap < SMALLEST_GAP:
        raise SystemExit(f"{variant.name}: the top logit leads by {answer.smallest_gap:.2g} only; choose another seed")
    if len(set(answer.ids)) < 4:
        raise SystemExit(f"{variant.name}: {answer.ids} hardly varies; choose another seed")
    found = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        # With a cache, transformers limits the steps of Mamba-2 in prompts only, not those of one token.
        use_cache="time_step_limit" not in variant.config,
    )
    if found[0, len(prompt) :].tolist() != answer.ids:
        raise SystemExit(f"{variant.name}: generate answers {found[0, len(prompt) :].tolist()}, not {answer.ids}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).resolve().parent.parent / "crates/engine/tests/golden"
    parser.add_argument("out", type=pathlib.Path, nargs="?", default=default, metavar="OUT_DIR")
    parser.add_argument("--only", nargs="+", choices=[it.name for it in VARIANTS], metavar="NAME")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for variant in VARIANTS:
        if arguments.only and variant.name not in arguments.only:
            continue
        folder = arguments.out / variant.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_checkpoint(variant, folder)
        record = write_golden(variant, folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        gap = min(it["smallest_gap"] for it in record["answers"])
        noise = record["f64_difference"]["logits"]
        print(f"{variant.name}: {size / 1e3:.0f} kB, gap {gap}, noise {noise}, matters {record['matters']}")


if __name__ == "__main__":
    main()
