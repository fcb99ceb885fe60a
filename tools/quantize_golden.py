"""Writes numbers with the blocks that ggml's reference quantizers make of them, Q8_0 and Q4_K.

The Rust tests round the same numbers: the bytes of Q8_0 have to be the same, the error of Q4_K no larger. ggml is called in
the library that comes with llama_cpp_python; `gguf.quants.quantize` has to agree with it on Q8_0.

    python tools/quantize_golden.py crates/checkpoint/tests/golden/quantized.safetensors
"""

import ctypes
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from safetensors.numpy import save_file


def ggml() -> ctypes.CDLL:
    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(folder.glob("libggml-base.*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    return library


def quantize(library: ctypes.CDLL, kind: GGMLQuantizationType, rows: np.ndarray) -> np.ndarray:
    """The blocks of rows `[n, k]`, as bytes `[n, …]`."""
    numbers, size = GGML_QUANT_SIZES[kind]
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    out = np.zeros((rows.shape[0], rows.shape[1] // numbers * size), dtype=np.uint8)
    written = library.ggml_quantize_chunk(
        kind.value, rows.ctypes.data, out.ctypes.data, 0, rows.shape[0], rows.shape[1], None
    )
    assert written == out.nbytes
    return out


def rows(rng: np.random.Generator) -> np.ndarray:
    """48 rows of 256: what weights look like, and what they do not."""
    normal = rng.normal(0, 0.02, (24, 256))
    heavy = rng.standard_t(3, (8, 256)) * 0.02
    shifted = rng.normal(0.05, 0.02, (4, 256))
    outliers = rng.normal(0, 0.01, (4, 256))
    outliers[:, ::37] *= 30
    uniform = rng.uniform(-1, 1, (2, 256))
    special = np.zeros((6, 256))
    special[1] = 0.5
    special[2] = -0.5
    special[3] = rng.normal(0, 1e-7, 256)  # scales below half precision's normal numbers
    special[4, 100] = 3.0
    special[5] = np.linspace(-1, 1, 256).round(1)  # ties
    return np.concatenate([normal, heavy, shifted, outliers, uniform, special]).astype(np.float32)


def main(path: str) -> None:
    library = ggml()
    numbers = rows(np.random.default_rng(8))
    tensors = {"numbers": numbers}
    for kind in (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_K):
        tensors[kind.name] = quantize(library, kind, numbers)
    assert (gguf.quants.quantize(numbers, GGMLQuantizationType.Q8_0) == tensors["Q8_0"]).all()
    save_file(tensors, path, metadata={"llama_cpp_python": llama_cpp.__version__})


if __name__ == "__main__":
    main(sys.argv[1])
