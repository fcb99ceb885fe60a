"""Writes random bytes of every stored type with the numbers that the reference implementations read from them.

The Rust tests decode the same bytes and compare bits. References: `gguf.quants.dequantize` for quantized blocks,
PyTorch for one-byte floats, NumPy for half precision.

    python tools/quant_golden.py crates/checkpoint/tests/golden/stored_types.safetensors
"""

import sys

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from safetensors.numpy import save_file

# Where the half-precision scales of a block lie, in bytes. Random bytes there would often be infinite or NaN.
SCALES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "MXFP4": [],  # its scale is a power of two in one byte
}

ONE_BYTE_FLOATS = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}


def random_blocks(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random blocks with finite scales: of ordinary size, and in the last block the smallest there are."""
    _, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for place in SCALES[name]:
        scales = rng.normal(0, 0.05, count).astype(np.float16)
        scales[-1] = np.float16(6e-8)  # the smallest subnormal
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(count, 2)
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(64, 192, count)
    return blocks


def main(path: str) -> None:
    rng = np.random.default_rng(210)
    tensors = {}
    for name in SCALES:
        kind = GGMLQuantizationType[name]
        blocks = random_blocks(name, 2 if name.endswith("K") else 4, rng)
        tensors[f"{name}.bytes"] = blocks.reshape(-1)
        tensors[f"{name}.numbers"] = gguf.quants.dequantize(blocks, kind).reshape(-1)
    every_byte = np.arange(256, dtype=np.uint8)
    for name, kind in ONE_BYTE_FLOATS.items():
        tensors[f"{name}.bytes"] = every_byte
        tensors[f"{name}.numbers"] = torch.from_numpy(every_byte).view(kind).float().numpy()
    halves = rng.integers(0, 1 << 16, 300, dtype=np.uint16)
    halves[:4] = [0x0001, 0x8000, 0x7C00, 0xFBFF]  # smallest, negative zero, infinity, most negative
    tensors["F16.bytes"] = halves.view(np.uint8)
    tensors["F16.numbers"] = halves.view(np.float16).astype(np.float32)
    tensors["BF16.bytes"] = halves.view(np.uint8)
    tensors["BF16.numbers"] = torch.from_numpy(halves.view(np.int16)).view(torch.bfloat16).float().numpy()
    save_file(tensors, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
