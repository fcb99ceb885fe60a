"""Whether transformers reads what is written of quantized models, and reads the quantized ones as we do.

    cargo build -p ablate-checkpoint --example rewrite
    python tools/quantized_check.py target/debug/examples/rewrite [GOLDEN ...]

For each quantized golden model (crates/engine/tests/golden/quantized_*), in the type of its configuration and in f32:
`rewrite` writes it with one quantized weight doubled; transformers must load the result as an ordinary model, no key
missing or left over, and with that weight halved again its logits are those of the golden file: equal but for rounding in
f32, and moved by the rounding of all weights otherwise. Where transformers can dequantize the quantized folder on a
processor (FP8, compressed-tensors, bitsandbytes), what it comes to is compared with the written weights bit for bit.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

import safetensors.torch
import torch
import transformers

import reference

GOLDENS = pathlib.Path(__file__).resolve().parent.parent / "crates/engine/tests/golden"
DOUBLED = "model.layers.1.mlp.down_proj.weight"
# Sums in another order: what golden_tiny.py grants a second way of loading.
SAME_LOGITS = 1e-4


def in_f32(golden: pathlib.Path, folder: pathlib.Path) -> None:
    shutil.copytree(golden, folder)
    config = json.loads((folder / "config.json").read_text())
    for key in {"dtype", "torch_dtype"} & config.keys():
        config[key] = "float32"
    (folder / "config.json").write_text(json.dumps(config))


def logits(model, prompts: list[list[int]]) -> torch.Tensor:
    return torch.stack([reference.read(model, ids).logits for ids in prompts])


def load_written(folder: pathlib.Path):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    # A tied head is not in the file.
    assert not any(report.get(key) for key in ("unexpected_keys", "mismatched_keys", "error_msgs")), report
    assert not set(report["missing_keys"]) - {"lm_head.weight"}, report
    assert getattr(model, "hf_quantizer", None) is None and not hasattr(model.config, "quantization_config")
    state = model.state_dict()
    state[DOUBLED].mul_(0.5)
    return model.eval()


def dequantized(folder: pathlib.Path) -> dict[str, torch.Tensor] | None:
    """The weights that transformers makes of the quantized folder itself."""
    method = json.loads((folder / "config.json").read_text())["quantization_config"]["quant_method"]
    load = transformers.AutoModelForCausalLM.from_pretrained
    match method:
        case "fp8":
            how = transformers.FineGrainedFP8Config(dequantize=True, weight_block_size=(16, 16))
            return load(folder, dtype=torch.float32, quantization_config=how).state_dict()
        case "compressed-tensors":
            from transformers.utils.quantization_config import CompressedTensorsConfig

            how = CompressedTensorsConfig(dequantize=True)
            return load(folder, dtype=torch.float32, quantization_config=how).state_dict()
        case "bitsandbytes":
            model = load(folder, dtype=torch.float32, device_map="cpu")
            return model.dequantize().state_dict()
    return None


def check(golden: pathlib.Path, rewrite: pathlib.Path) -> None:
    facts = json.loads((golden / "golden.json").read_text())
    truth = safetensors.torch.load_file(golden / "golden.safetensors")["logits"]
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        in_f32(golden, scratch / "f32")
        shutil.copytree(golden, scratch / "own")
        moved = {}
        for name in ("f32", "own"):
            out = scratch / f"{name}.written"
            subprocess.run([rewrite, scratch / name, out, DOUBLED], check=True)
            assert "quantization_config" not in json.loads((out / "config.json").read_text())
            model = load_written(out)
            moved[name] = float((logits(model, facts["prompts"]) - truth).abs().max())
            if name == "f32":
                exact = {key: it.clone() for key, it in model.state_dict().items()}
        assert moved["f32"] <= SAME_LOGITS, moved
        try:
            other = dequantized(scratch / "f32")
        except Exception as error:  # noqa: BLE001 (it is told, and nothing is claimed)
            said = f"not compared with transformers' own reading: {type(error).__name__}: {str(error)[:120]}"
        else:
            said = "transformers cannot read it here"
            if other is not None:
                weights = [key for key in exact if key.endswith("_proj.weight")]
                differ = {key: float((exact[key] - other[key].float()).abs().max()) for key in weights}
                same = sum(torch.equal(exact[key], other[key].float()) for key in weights)
                worst = max(differ.values())
                said = f"{same} of {len(weights)} weights as transformers reads them itself, off by at most {worst:.2g}"
        largest = float(truth.abs().max())
        off = f"off by {moved['f32']:.2g} in f32, {moved['own']:.2g} as written"
        print(f"{golden.name}: logits (largest {largest:.3g}) {off}; {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rewrite", type=pathlib.Path)
    parser.add_argument("goldens", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for golden in arguments.goldens or sorted(GOLDENS.glob("quantized_*")):
        check(golden, arguments.rewrite.resolve())


if __name__ == "__main__":
    main()
