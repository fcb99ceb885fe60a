"""Quantized checkpoints, and what the reference implementations read from them.

    python tools/golden_quantized.py [numbers] [models] [--only NAME ...]

`numbers` writes crates/checkpoint/tests/golden/quantized/NAME: a folder of a few small weights, and numbers.safetensors
with the numbers that they mean in f32, for every variant of every method. `models` writes
crates/engine/tests/golden/quantized_NAME: whole tiny models, as golden_tiny.py does (see there for the files). Their
truth is transformers with the numbers that the weights mean, in f32. quantizers.py says who reads what.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil

import safetensors.torch
import torch

import golden_tiny
import quantizers
import reference
from golden_tiny_variants import SMALL, Variant, rope

ROOT = pathlib.Path(__file__).resolve().parent.parent / "crates"

INT4 = {"num_bits": 4, "type": "int"}
INT8 = {"num_bits": 8, "type": "int"}
FLOAT8 = {"num_bits": 8, "type": "float", "symmetric": True}
SIXTEEN = {"strategy": "group", "group_size": 16}
PACKED = "pack-quantized"


@dataclasses.dataclass
class Quantized:
    """A way to quantize: what the configuration says and how a weight is stored."""

    name: str
    config: dict  # `quantization_config`
    quantizer: callable
    arguments: dict = dataclasses.field(default_factory=dict)
    shapes: tuple = ((48, 64), (17, 32))  # of the weights of `numbers`
    activations: dict = dataclasses.field(default_factory=dict)  # stored beside each weight, of no effect on it
    file: str = "config.json"  # where the settings stand

    def store(self, weight: torch.Tensor):
        return self.quantizer(weight, **self.arguments)


def of_groups(format: str, weights: dict, **more) -> dict:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
        **more,
    }


def ct_variant(name: str, format: str, weights: dict, activations=None, **more) -> Quantized:
    arguments = {"format": format, **weights, **more}
    config, beside = of_groups(format, weights), activations or {}
    return Quantized(name, config, quantizers.compressed_tensors, arguments, activations=beside)


def gptq_variant(name: str, shapes=((48, 64), (24, 32)), **arguments) -> Quantized:
    config = {
        "quant_method": "gptq",
        "bits": arguments.get("bits", 4),
        "group_size": arguments.get("group_size", 32),
        "desc_act": arguments.get("desc_act", False),
        "sym": arguments.get("symmetric", True),
        "checkpoint_format": "gptq_v2" if arguments.get("v2") else "gptq",
    }
    return Quantized(name, config, quantizers.gptq, arguments, shapes)


def bnb_variant(name: str, **arguments) -> Quantized:
    config = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": arguments.get("kind", "nf4"),
        "bnb_4bit_use_double_quant": arguments.get("double", True),
        "bnb_4bit_compute_dtype": "bfloat16",
    }
    return Quantized(name, config, quantizers.bnb_4bit, arguments, ((48, 64), (23, 33)))


SCALE = torch.tensor(0.05)

VARIANTS = [
    Quantized("fp8_blocks", {"quant_method": "fp8", "weight_block_size": [16, 16]}, quantizers.fp8),
    Quantized(
        "fp8_blocks_at_the_ends",
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [20, 24]},
        quantizers.fp8,
        {"block": (20, 24), "scale_dtype": torch.bfloat16},
    ),
    Quantized("fp8_usual_blocks", {"quant_method": "fp8"}, quantizers.fp8, {"block": (128, 128)}, ((136, 130),)),
    Quantized(
        "fp8_one_scale",
        {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None},
        quantizers.fp8,
        {"block": None, "scale_dtype": torch.bfloat16},
        activations={"activation_scale": SCALE},
    ),
    Quantized(
        "fp8_e5m2",
        {"quant_method": "fp8", "weight_block_size": [16, 16]},
        quantizers.fp8,
        {"kind": torch.float8_e5m2},
    ),
    Quantized("mxfp8", {"quant_method": "mxfp8"}, quantizers.fp8, {"block": (1, 32), "exponents": True}),
    Quantized(
        "fbgemm_fp8",
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0},
        quantizers.fp8_rows,
        activations={"input_scale_ub": torch.tensor([1200.0])},
    ),
    Quantized(
        "modelopt_fp8",
        {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}},
        quantizers.fp8_rows,
        {"single": True},
        activations={"input_scale": SCALE},
        file="hf_quant_config.json",
    ),
    ct_variant("ct_float_channel", "float-quantized", {**FLOAT8, "strategy": "channel"}),
    ct_variant(
        "ct_float_tensor",
        "float-quantized",
        {**FLOAT8, "strategy": "tensor"},
        {"input_scale": SCALE, "k_scale": SCALE},
        scale_dtype=torch.float32,
    ),
    ct_variant("ct_float_block", "float-quantized", {**FLOAT8, "strategy": "block", "block_structure": [16, 20]}),
    ct_variant("ct_int8_channel", "int-quantized", {**INT8, "strategy": "channel", "symmetric": True}),
    ct_variant(
        "ct_int8_zeros",
        "int-quantized",
        {**INT8, "strategy": "channel", "symmetric": False},
        scale_dtype=torch.float16,
    ),
    ct_variant("ct_int4_group", PACKED, {**INT4, **SIXTEEN, "symmetric": True}),
    ct_variant("ct_int4_zeros", PACKED, {**INT4, **SIXTEEN, "symmetric": False}, scale_dtype=torch.float16),
    ct_variant("ct_int4_channel", PACKED, {**INT4, "strategy": "channel", "symmetric": True}),
    ct_variant("ct_int4_listed", PACKED, {**INT4, **SIXTEEN, "symmetric": False}, group_list=True),
    ct_variant("ct_int8_group", PACKED, {**INT8, **SIXTEEN, "symmetric": True}),
    ct_variant("ct_int2_group", PACKED, {"num_bits": 2, "type": "int", **SIXTEEN, "symmetric": False}),
    gptq_variant("gptq_4"),
    gptq_variant("gptq_4_sorted", symmetric=False, desc_act=True),
    gptq_variant("gptq_4_v2", symmetric=False, v2=True),
    gptq_variant("gptq_8_channel", bits=8, group_size=-1),
    gptq_variant("gptq_2_bf16", bits=2, group_size=16, symmetric=False, dtype=torch.bfloat16),
    Quantized(
        "awq",
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True},
        quantizers.awq,
        shapes=((48, 64), (24, 32)),
    ),
    bnb_variant("bnb_nf4_double"),
    bnb_variant("bnb_nf4", double=False, dtype=torch.float16),
    bnb_variant("bnb_fp4", kind="fp4", dtype=torch.float32),
    Quantized("bnb_int8", {"quant_method": "bitsandbytes", "load_in_8bit": True}, quantizers.bnb_8bit),
    Quantized("mxfp4", {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, quantizers.mxfp4, shapes=()),
]

WIDE = {**SMALL, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
TIED = {**WIDE, "tie_word_embeddings": True, **rope("default", 500.0)}

# The variants that whole models are made of: architecture, configuration, seed.
MODELS = {
    "fp8_blocks": ("Qwen3", {**TIED, "head_dim": 16}, 1),
    "ct_float_channel": ("Llama", TIED, 1),
    "ct_int4_zeros": ("Llama", TIED, 1),
    "gptq_4_sorted": ("Qwen2", TIED, 1),
    "awq": ("Llama", TIED, 1),
    "bnb_nf4_double": ("Llama", TIED, 1),
    "bnb_int8": ("Llama", TIED, 1),
}


def describe(quantized: Quantized, folder: pathlib.Path, config: dict) -> None:
    """The configuration, with the settings of the method in it or beside it."""
    if quantized.file == "config.json":
        config = {**config, "quantization_config": quantized.config}
    else:
        (folder / quantized.file).write_text(json.dumps(quantized.config, indent=2) + "\n")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def beside(quantized: Quantized, module: str) -> dict[str, torch.Tensor]:
    return {f"{module}.{name}": tensor.clone() for name, tensor in quantized.activations.items()}


def write_numbers(quantized: Quantized, folder: pathlib.Path) -> None:
    generator = torch.Generator().manual_seed(210)
    tensors = {"norm.weight": torch.randn(8, generator=generator).bfloat16()}
    numbers = {}
    for index, shape in enumerate(quantized.shapes):
        module = f"layers.{index}.proj"
        weight = 0.25 * torch.randn(shape, generator=generator)
        weight[0] *= 20  # rows differ in size
        stored, meant = quantized.store(weight)
        assert meant.dtype == torch.float32 and meant.shape == weight.shape, quantized.name
        tensors |= {f"{module}.{name}": tensor for name, tensor in stored.items()} | beside(quantized, module)
        numbers[f"{module}.weight"] = meant.contiguous()
    if not quantized.shapes:
        name = "layers.0.experts.down_proj"
        stored, numbers[name] = quantized.quantizer()
        tensors |= {name + part: tensor for part, tensor in stored.items()}
    describe(quantized, folder, {"architectures": ["None"], "dtype": "bfloat16"})
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    safetensors.torch.save_file(numbers, folder / "numbers.safetensors")


def write_model(quantized: Quantized, folder: pathlib.Path) -> dict:
    architecture, config, seed = MODELS[quantized.name]
    variant = Variant(
        name=quantized.name,
        seed=seed,
        architecture=architecture,
        config=config,
        about=f"linear layers quantized: {json.dumps(quantized.config)}",
    )
    plain = folder.with_name(folder.name + ".plain")
    shutil.rmtree(plain, ignore_errors=True)
    plain.mkdir()
    golden_tiny.write_checkpoint(variant, plain)
    tensors, stored = safetensors.torch.load_file(plain / "model.safetensors"), {}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        if not module.endswith("_proj"):
            stored[name] = tensor
            continue
        parts, tensors[name] = quantized.store(tensor.float())
        stored |= {f"{module}.{part}": it.contiguous() for part, it in parts.items()} | beside(quantized, module)
    # The truth: an ordinary model with the numbers that the stored weights mean.
    meant = {name: it.float() for name, it in tensors.items()}
    safetensors.torch.save_file(meant, plain / "model.safetensors", {"format": "pt"})
    record = golden_tiny.write_golden(variant, plain)
    record["made_by"]["script"] = pathlib.Path(__file__).name
    reference.write_json(folder / "golden.json", record)
    shutil.copyfile(plain / "golden.safetensors", folder / "golden.safetensors")
    safetensors.torch.save_file(stored, folder / "model.safetensors", {"format": "pt"})
    for file in plain.glob("config*.json"):
        config = {**json.loads(file.read_text()), "quantization_config": quantized.config}
        (folder / file.name).write_text(json.dumps(config, indent=2) + "\n")
    shutil.rmtree(plain)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["numbers", "models", []], default=[])
    parser.add_argument("--only", nargs="+", choices=[it.name for it in VARIANTS], metavar="NAME")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="in place of the golden folders")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for quantized in VARIANTS:
        if arguments.only and quantized.name not in arguments.only:
            continue
        for what in arguments.what or ["numbers", "models"]:
            if what == "models" and quantized.name not in MODELS:
                continue
            place = "checkpoint/tests/golden/quantized" if what == "numbers" else "engine/tests/golden"
            name = quantized.name if what == "numbers" else f"quantized_{quantized.name}"
            folder = (arguments.out / what if arguments.out else ROOT / place) / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            record = write_numbers(quantized, folder) if what == "numbers" else write_model(quantized, folder)
            size = sum(file.stat().st_size for file in folder.iterdir())
            gap = min(it["smallest_gap"] for it in record["answers"]) if record else "-"
            print(f"{what} {quantized.name}: {size / 1e3:.0f} kB, gap {gap}")


if __name__ == "__main__":
    main()
