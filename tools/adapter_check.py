"""Compares adapters that ablate wrote with the merged model that it wrote of the same parameters, by their logits.

    python tools/adapter_check.py BASE MERGED ADAPTER...

A folder is loaded by transformers, its adapters (folders) by peft; each is also merged by peft's own `merge_and_unload`.
GGUF files are loaded by llama.cpp (llama-cpp-python), their adapters (files) beside them. BASE is the model that the adapters
were made of, MERGED the one that `--export-strategy merge` wrote. Prints for each adapter, over all positions of a few
texts: the largest difference of two logits between the model with the adapter and the merged one, the mean of
KL(merged ‖ adapter) in nats, and how many of the top tokens differ; and the same for BASE, which says how much the edit
changes at all. `--at-most X` fails where an adapter's largest difference is above X.
"""

import argparse
import pathlib
import sys

import numpy as np

TEXTS = [
    "Who are you, and do you have feelings of your own?",
    "The capital of France is Paris, and the capital of Italy is Rome. The capital of Spain is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Once upon a time there was a small village at the foot of a mountain, where every evening",
]


def folder_logits(model, tokenizer) -> list[np.ndarray]:
    import torch

    with torch.no_grad():
        texts = (tokenizer(text, return_tensors="pt") for text in TEXTS)
        return [model(**text).logits[0].double().numpy() for text in texts]


def folders(base: pathlib.Path, merged: pathlib.Path, adapters: list[pathlib.Path], dtype: str):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)

    def load(path):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
        return model.eval()

    expected = folder_logits(load(merged), tokenizer)
    yield "(original)", expected, folder_logits(load(base), tokenizer)
    for path in adapters:
        model = PeftModel.from_pretrained(load(base), path).eval()
        config = model.peft_config["default"]
        kind = f"{'DoRA' if config.use_dora else 'LoRA'} of rank {config.r}"
        state = [name for name, _ in model.named_parameters() if "lora_" in name]
        modules = {name.split(".lora_")[0] for name in state}
        assert len(modules) == len(config.target_modules), "a module is not adapted, or one too many"
        yield f"{path.name}: {kind}", expected, folder_logits(model, tokenizer)
        yield f"{path.name}: merged by peft", expected, folder_logits(model.merge_and_unload(), tokenizer)


def gguf_logits(model) -> list[np.ndarray]:
    logits = []
    for text in TEXTS:
        tokens = model.tokenize(text.encode(), add_bos=True)
        model.reset()
        model.eval(tokens)
        logits.append(np.array(model.scores[: len(tokens)], dtype=np.float64))
    return logits


def ggufs(base: pathlib.Path, merged: pathlib.Path, adapters: list[pathlib.Path]):
    import llama_cpp

    def load(path, lora=None):
        # Keys and values in f32: in f16, as by default, they turn rounding errors into ones a hundred times as large.
        f32 = llama_cpp.GGML_TYPE_F32
        how = {"n_ctx": 128, "logits_all": True, "verbose": False, "type_k": f32, "type_v": f32}
        return llama_cpp.Llama(str(path), lora_path=lora and str(lora), **how)

    expected = gguf_logits(load(merged))
    yield "(original)", expected, gguf_logits(load(base))
    for path in adapters:
        yield f"{path.name}: in llama.cpp", expected, gguf_logits(load(base, path))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=pathlib.Path)
    parser.add_argument("merged", type=pathlib.Path)
    parser.add_argument("adapters", type=pathlib.Path, nargs="+")
    parser.add_argument("--dtype", default="float32", help="of the weights of folders")
    parser.add_argument("--at-most", type=float, help="largest difference of two logits that is accepted")
    arguments = parser.parse_args()
    if arguments.base.is_dir():
        compared = folders(arguments.base, arguments.merged, arguments.adapters, arguments.dtype)
    else:
        compared = ggufs(arguments.base, arguments.merged, arguments.adapters)
    too_far = []
    print(f"{'':42} {'largest':>9} {'mean KL':>9} {'top differs':>12}")
    for name, expected, found in compared:
        largest = max(np.abs(a - b).max() for a, b in zip(expected, found))
        expected, found = np.concatenate(expected), np.concatenate(found)
        p, q = log_softmax(expected), log_softmax(found)
        divergence = (np.exp(p) * (p - q)).sum(axis=-1).mean()
        flipped = (expected.argmax(axis=-1) != found.argmax(axis=-1)).sum()
        print(f"{name:42} {largest:9.2e} {divergence:9.2e} {flipped:6} of {len(p)}")
        if arguments.at_most is not None and name != "(original)" and not largest <= arguments.at_most:
            too_far.append(name)
    if too_far:
        sys.exit(f"further than {arguments.at_most} from the merged model: {', '.join(too_far)}")


if __name__ == "__main__":
    main()
