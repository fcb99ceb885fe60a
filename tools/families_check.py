"""The whole job on a tiny random model of every architecture: what is written is loaded by transformers.

    python tools/families_check.py ABLATE [--only NAME ...]

For each architecture of golden_tiny.py one variant gets the vocabulary and the tokenizer of the toy model (demo/model).
`ablate run` searches three trials on it, saves the one with the least divergence, and scores what it wrote; transformers
then has to load that without a missing, left-over or misshapen tensor, and every tensor has to be the input's but for
those of writers. Random models say nothing: what is tested is that every room knows every family.
"""

import argparse
import copy
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import safetensors.torch
import torch
import transformers

from golden_tiny import VARIANTS, write_checkpoint

DEMO = pathlib.Path(__file__).resolve().parent.parent / "demo/model"
TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json"]
SETS = ["--good-prompts", "embedded:demo-answered-train[:24]", "--bad-prompts", "embedded:demo-refused-train[:24]",
        "--refusal-prompts", "embedded:demo-refused-eval[:8]", "--kl-prompts", "embedded:demo-answered-eval[:8]"]
SHORT = ["--max-response-length", "6", "--batch-size", "32", "--response-prefix=", "--trials", "3", "--startup-trials", "3",
         "--pick", "min kl_divergence", "--row-normalization", "none"]


def stored(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(safetensors.torch.load_file(file))
    return tensors


def check(variant, ablate: str, scratch: pathlib.Path) -> str:
    """What is wrong, or nothing."""
    vocabulary = json.loads((DEMO / "config.json").read_text())["vocab_size"]
    config = copy.deepcopy(variant.config)
    config["vocab_size"] = vocabulary
    if "vocab_size_per_layer_input" in config:
        config["vocab_size_per_layer_input"] = vocabulary
    model, out = scratch / "model", scratch / "out"
    model.mkdir()
    write_checkpoint(dataclasses.replace(variant, config=config), model)
    for spelling in (4, 5):
        (model / f"config.transformers-{spelling}.json").unlink(missing_ok=True)
    for name in TOKENIZER:
        if (DEMO / name).exists():
            shutil.copyfile(DEMO / name, model / name)
    command = [ablate, "run", str(model), *SETS, *SHORT, "--study", str(scratch / "study.jsonl"), "--save", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return done.stderr[-600:]
    before, after = stored(model), stored(out)
    if before.keys() != after.keys():
        return f"other tensors: {sorted(before.keys() ^ after.keys())[:5]}"
    wrong = [it for it in before if before[it].shape != after[it].shape or before[it].dtype != after[it].dtype]
    if wrong:
        return f"other shapes or types: {wrong[:5]}"
    changed = [it for it in before if not torch.equal(before[it], after[it])]
    if not changed:
        return "nothing was edited"
    model_class = getattr(transformers, variant.model_class or f"{variant.architecture}ForCausalLM")
    _, loading = model_class.from_pretrained(out, output_loading_info=True)
    left = {key: sorted(value)[:3] for key, value in loading.items() if value}
    if left:
        return f"transformers: {left}"
    kinds = sorted({".".join(part for part in it.split(".")[-3:] if not part.isdigit()) for it in changed})
    print(f"{variant.name}: {len(changed)} of {len(before)} tensors edited: {', '.join(kinds)}", flush=True)
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ablate")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    failed, seen = 0, set()
    for variant in VARIANTS:
        architecture = variant.model_class or variant.architecture
        if variant.microscaled or (arguments.only and variant.name not in arguments.only):
            continue
        if architecture in seen and not arguments.only:
            continue
        seen.add(architecture)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                wrong = check(variant, arguments.ablate, pathlib.Path(scratch))
            except Exception as error:  # one family must not hide the others
                wrong = f"{type(error).__name__}: {error}"
        if wrong:
            failed += 1
            print(f"{variant.name}: FAILED: {wrong}", flush=True)
    print(f"{len(seen)} architectures, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
