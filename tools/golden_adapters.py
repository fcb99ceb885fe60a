"""Adapters with random factors for the tiny golden checkpoints, and what Python's peft computes with them.

    python tools/golden_adapters.py [OUT_DIR] [--only NAME ...]

writes one folder per case under OUT_DIR (default: crates/engine/tests/golden_adapters):

    adapter_config.json, adapter_model.safetensors   as peft's save_pretrained writes them
    golden.json         the golden checkpoint that the adapter belongs to, and greedy answers
    golden.safetensors  logits [prompts, vocab] at the last token of that checkpoint's prompts, f32

The adapter is loaded again with PeftModel.from_pretrained and is not merged: where the head is tied to the embedding, merging
in peft changes both and computes something else.
"""

import argparse
import json
import pathlib
import shutil
import warnings

import peft
import safetensors.torch
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent / "crates/engine/tests"
ANSWER_TOKENS = 12
SMALLEST_GAP = 2e-3

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
PLAIN = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]

# name: (golden checkpoint, what LoraConfig is given)
CASES = {
    "lora": ("llama_gqa_tied", dict(target_modules=PLAIN, r=3, lora_alpha=5)),
    "lora_patterns": (
        "llama_sharded",
        dict(
            target_modules="all-linear",
            r=3,
            lora_alpha=5,
            use_rslora=True,
            rank_pattern={"self_attn.q_proj": 2, r"layers\.1\.mlp\.\w+": 4},
            alpha_pattern={"down_proj": 1},
        ),
    ),
    "dora": ("llama_gqa_tied", dict(target_modules=["q_proj", "down_proj"], r=2, lora_alpha=3, use_dora=True)),
    "biases": (
        "llama_untied_bias",
        dict(target_modules=["q_proj", "down_proj"], r=2, lora_alpha=3, bias="all", lora_bias=True),
    ),
    "tied_embedding": ("llama_gqa_tied", dict(target_modules=["embed_tokens"], r=2, lora_alpha=3)),
    "tied_embedding_dora": ("llama_gqa_tied", dict(target_modules=["embed_tokens"], r=2, lora_alpha=3, use_dora=True)),
    "tied_head": ("llama_gqa_tied", dict(target_modules=["lm_head", "q_proj"], r=2, lora_alpha=3)),
    "tied_both": ("llama_gqa_tied", dict(target_modules=["lm_head", "embed_tokens"], r=2, lora_alpha=3)),
    "saved_modules": (
        "llama_gqa_tied",
        dict(target_modules=["q_proj"], r=2, lora_alpha=3, modules_to_save=["embed_tokens", "lm_head", "post_attention_layernorm"]),
    ),
    "saved_embedding": ("llama_gqa_tied", dict(target_modules=["q_proj"], r=2, modules_to_save=["embed_tokens"])),
    "tokens": ("llama_gqa_tied", dict(target_modules=["q_proj"], r=2, trainable_token_indices=[7, 3, 20])),
    "tokens_untied": (
        "llama_untied_bias",
        dict(target_modules=["q_proj"], r=2, trainable_token_indices={"embed_tokens": [9, 3]}),
    ),
    "fused": ("phi3", dict(target_modules=["qkv_proj", "gate_up_proj", "down_proj"], r=2, lora_alpha=3)),
    "container": ("gemma3_container_4", dict(target_modules=r".*language_model.*(q_proj|down_proj)", r=2, lora_alpha=3)),
    "scaled_embedding": ("gemma3", dict(target_modules=["embed_tokens", "o_proj"], r=2, lora_alpha=1)),
    "experts": ("mixtral", dict(target_modules=["q_proj"], target_parameters=[*EXPERTS, "mlp.gate.weight"], r=2, lora_alpha=3)),
    "experts_converted": ("mixtral", dict(target_modules=["w1", "w2", "w3", "gate"], r=2, lora_alpha=3)),
    "experts_one": ("qwen3_moe", dict(target_modules=[], target_parameters=["down_proj"], r=2, lora_alpha=3)),
    "experts_square": ("qwen3_moe", dict(target_modules=["gate_proj", "up_proj", "down_proj", "o_proj"], r=2)),
    "experts_transposed": (
        "gpt_oss_plain",
        dict(target_modules=["q_proj"], target_parameters=["experts.gate_up_proj", "experts.down_proj"], r=2, lora_alpha=3),
    ),
    "experts_renamed": (
        "granitemoe",
        dict(target_modules=["k_proj"], target_parameters=["experts.gate_up_proj", "experts.down_proj"], r=2, lora_alpha=3),
    ),
    "latent": ("deepseek_v3", dict(target_modules="all-linear", r=2, lora_alpha=3)),
    "hybrid": ("nemotron_h", dict(target_modules=["in_proj", "q_proj", "down_proj"], r=2, lora_alpha=3)),
}


def base(name: str):
    folder = ROOT / "golden" / name
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, architecture).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    return model.eval()


def draw(model, seed: int, spread: float):
    """Random numbers in place of those that training begins with."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        own = any(it in name for it in ("lora_", "trainable_tokens_delta", "modules_to_save"))
        if not own and not (parameter.requires_grad and name.endswith("bias")):
            continue
        if "magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.rand(parameter.shape, generator=generator)
        elif "layernorm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        else:
            parameter.data = spread * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def evaluate(model, prompts):
    logits, answers, gap = [], [], float("inf")
    for prompt in prompts:
        ids = torch.tensor([prompt])
        first = model(input_ids=ids).logits[0, -1].float()
        logits.append(first)
        tokens = []
        for _ in range(ANSWER_TOKENS):
            row = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, -1].float()
            top = row.topk(2)
            gap = min(gap, float(top.values[0] - top.values[1]))
            tokens.append(int(top.indices[0]))
        answers.append(tokens)
    return torch.stack(logits), answers, gap


def make(name: str, out: pathlib.Path):
    golden, settings = CASES[name]
    prompts = json.loads((ROOT / "golden" / golden / "golden.json").read_text())["prompts"]
    prompts = [it["ids"] if isinstance(it, dict) else it for it in prompts]
    config = peft.LoraConfig(task_type="CAUSAL_LM", **settings)
    for seed in range(20):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        model = peft.get_peft_model(base(golden), config).eval()
        draw(model, seed, 0.25)
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        text = json.loads((folder / "adapter_config.json").read_text())
        text["base_model_name_or_path"] = golden
        for key in ("target_modules", "target_parameters", "modules_to_save"):
            if isinstance(text[key], list):
                text[key].sort()
        (folder / "adapter_config.json").write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            loaded = peft.PeftModel.from_pretrained(base(golden), folder).eval()
        logits, answers, gap = evaluate(loaded, prompts)
        if gap >= SMALLEST_GAP:
            break
    else:
        raise SystemExit(f"{name}: no seed with a clear lead")
    plain, _, _ = evaluate(base(golden), prompts)
    matters = float((plain - logits).abs().max())
    assert matters > 0.05, f"{name}: the adapter does nothing"
    safetensors.torch.save_file({"logits": logits}, folder / "golden.safetensors")
    facts = {"base": golden, "answers": answers, "matters": matters, "smallest_gap": gap}
    (folder / "golden.json").write_text(json.dumps(facts) + "\n")
    print(f"{name}: seed {seed}, moves logits by {matters:.2f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", nargs="?", type=pathlib.Path, default=ROOT / "golden_adapters")
    parser.add_argument("--only", nargs="*", default=list(CASES))
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    for name in arguments.only:
        make(name, arguments.out)


if __name__ == "__main__":
    main()
