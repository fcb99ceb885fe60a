"""How each method of quantization stores a weight, and what its reference implementation reads from that.

Imported by golden_quantized.py; it has no command of its own. A quantizer takes a weight `[outputs, inputs]` in f32 and
gives the stored tensors by the ends of their names, and the numbers that they mean, in f32:

- compressed-tensors and bitsandbytes store and read with their own code, which runs on processors;
- FP8 blocks are read by transformers' `Fp8Dequantize`, and by the formula where it refuses blocks at the ends;
- GPTQ and AWQ, whose packages want a GPU, are packed and read here from the definition of their formats, with the
  arithmetic of GPTQModel's `dequantize_weight` and AutoAWQ's `dequantize_gemm`: in the type of the scales.
"""

import math

import torch

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # column 8 j + AWQ_ORDER[place] lies in that place of word j


def packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Rows of small unsigned integers as words of 32 bits, lowest bits first."""
    each = 32 // bits
    filled = torch.nn.functional.pad(codes.long(), (0, -codes.shape[-1] % each)).unflatten(-1, (-1, each))
    words = (filled << (bits * torch.arange(each))).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def spread(scales: torch.Tensor, shape: torch.Size, block: tuple[int, int]) -> torch.Tensor:
    """The scale of each number of a matrix."""
    rows = torch.arange(shape[0]) // block[0]
    columns = torch.arange(shape[1]) // block[1]
    return scales[rows][:, columns]


def blocks_of(weight: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """The largest magnitude of each block."""
    rows, columns = (math.ceil(size / step) for size, step in zip(weight.shape, block, strict=True))
    largest = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            part = weight[row * block[0] : (row + 1) * block[0], column * block[1] : (column + 1) * block[1]]
            largest[row, column] = part.abs().max()
    return largest


def fp8(weight, block=(16, 16), scale_dtype=torch.float32, exponents=False, kind=torch.float8_e4m3fn):
    """`weight` and `weight_scale_inv`; no block: one scale for all. `exponents`: powers of two, stored as bytes."""
    largest = torch.finfo(kind).max
    scales = (blocks_of(weight, block) if block else weight.abs().max()) / largest
    if exponents:
        scales = scales.log2().ceil().exp2()
    scales = scales.to(scale_dtype)
    each = spread(scales.float(), weight.shape, block) if block else scales.float()
    stored = (weight / each).clamp(-largest, largest).to(kind)
    numbers = stored.float() * each
    if block and all(size % step == 0 for size, step in zip(weight.shape, block, strict=True)):
        from transformers.integrations.finegrained_fp8 import Fp8Dequantize

        assert torch.equal(Fp8Dequantize(None)._dequantize_one(stored, scales, torch.float32), numbers)
    if exponents:
        scales = (scales.log2() + 127).to(torch.uint8)
    return {"weight": stored, "weight_scale_inv": scales}, numbers


def fp8_rows(weight, single=False):
    """`weight` and `weight_scale`, one for each row (fbgemm_fp8) or for all (modelopt)."""
    rows = weight.abs().amax(1, keepdim=True)
    scales = (rows.max() if single else rows) / 448
    stored = (weight / scales).to(torch.float8_e4m3fn)
    return {"weight": stored, "weight_scale": scales}, stored.float() * scales


def compressed_tensors(weight, format, scale_dtype=torch.bfloat16, group_list=False, **arguments):
    """With the library's own compressor.

    `group_list`: as older versions stored weights whose inputs were sorted, with `weight_g_idx`.
    """
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    args = QuantizationArgs(**arguments)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(5)) if group_list else None
    sorted_weight = weight[:, order] if group_list else weight
    match args.strategy:
        case "tensor":
            lowest, highest = weight.min().reshape(1), weight.max().reshape(1)
        case "channel":
            lowest, highest = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
        case "group":
            groups = sorted_weight.unflatten(1, (-1, args.group_size))
            lowest, highest = groups.amin(2), groups.amax(2)
        case "block":
            highest = blocks_of(weight, args.block_structure)
            lowest = -highest
    scales, zeros = calculate_qparams(lowest.to(scale_dtype), highest.to(scale_dtype), args)
    scales = scales.to(scale_dtype)
    compressor = BaseCompressor.get_value_from_registry(format)
    state = {"weight": sorted_weight.to(scale_dtype), "weight_scale": scales, "weight_zero_point": zeros}
    stored = compressor.compress(state, scheme)
    numbers = compressor.decompress(dict(stored), scheme)["weight"]
    if group_list:
        # What the library packs is sorted; the list tells where each input went.
        codes = torch.empty(weight.shape, dtype=torch.int64)
        sorted_codes = torch.stack([unpacked(row, args.num_bits, weight.shape[1]) for row in stored["weight_packed"]])
        codes[:, order] = sorted_codes
        stored["weight_packed"] = packed(codes, args.num_bits)
        stored["weight_g_idx"] = torch.empty(weight.shape[1], dtype=torch.int32)
        stored["weight_g_idx"][order] = torch.arange(weight.shape[1], dtype=torch.int32) // args.group_size
        original = torch.empty_like(numbers)
        original[:, order] = numbers
        numbers = original
    return {name: tensor.contiguous() for name, tensor in stored.items()}, numbers.float()


def unpacked(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    codes = (words.long()[:, None] >> (bits * torch.arange(32 // bits))) & (2**bits - 1)
    return codes.flatten()[:count]


def integers(weight, groups: torch.Tensor, bits: int, symmetric: bool, dtype=torch.float16):
    """Integers `[outputs, inputs]`, zero points and scales `[outputs, groups]` by rounding to nearest."""
    count = int(groups.max()) + 1
    top = 2**bits - 1
    scales, zeros = torch.empty(len(weight), count), torch.empty(len(weight), count)
    for group in range(count):
        part = weight[:, groups == group]
        if symmetric:
            scales[:, group] = part.abs().amax(1) * 2 / top
            zeros[:, group] = 2 ** (bits - 1)
        else:
            low, high = part.amin(1).clamp(max=-1e-3), part.amax(1).clamp(min=1e-3)
            scales[:, group] = (high - low) / top
            zeros[:, group] = (-low / scales[:, group]).round().clamp(1, top)
    scales = scales.to(dtype)
    codes = (weight / scales.float()[:, groups] + zeros[:, groups]).round().clamp(0, top)
    numbers = scales[:, groups] * (codes - zeros[:, groups]).to(dtype)
    return codes.long(), zeros.long(), scales, numbers.float()


def gptq(weight, bits=4, group_size=32, symmetric=True, desc_act=False, v2=False, dtype=torch.float16):
    inputs = weight.shape[1]
    groups = torch.arange(inputs) // (inputs if group_size == -1 else group_size)
    if desc_act:
        groups = groups[torch.randperm(inputs, generator=torch.Generator().manual_seed(7))]
    codes, zeros, scales, numbers = integers(weight, groups, bits, symmetric, dtype)
    stored_zeros = zeros if v2 else zeros - 1
    return {
        "qweight": packed(codes, bits).T.contiguous(),
        "qzeros": packed(stored_zeros.T.contiguous(), bits),
        "scales": scales.T.contiguous(),
        "g_idx": groups.to(torch.int32),
    }, numbers


def awq(weight, group_size=32, dtype=torch.float16):
    groups = torch.arange(weight.shape[1]) // group_size
    codes, zeros, scales, numbers = integers(weight, groups, 4, False, dtype)

    def ordered(matrix: torch.Tensor) -> torch.Tensor:
        return packed(matrix.T.unflatten(1, (-1, 8))[:, :, AWQ_ORDER].flatten(1), 4)

    return {"qweight": ordered(codes), "qzeros": ordered(zeros), "scales": scales.T.contiguous()}, numbers


def mxfp4(shape=(3, 20, 2)):
    """Random blocks of experts, `_blocks` and `_scales`, for weights `[experts, inputs, outputs]`."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    generator = torch.Generator().manual_seed(4)
    blocks = torch.randint(0, 256, (*shape, 16), generator=generator).to(torch.uint8)
    scales = torch.randint(110, 135, shape, generator=generator).to(torch.uint8)
    numbers = convert_moe_packed_tensors(blocks, scales)
    return {"_blocks": blocks, "_scales": scales}, numbers.float()


def bnb_4bit(weight, kind="nf4", double=True, block=64, dtype=torch.bfloat16):
    from bitsandbytes import functional

    stored, state = functional.quantize_4bit(
        weight.to(dtype), blocksize=block, compress_statistics=double, quant_type=kind
    )
    numbers = functional.dequantize_4bit(stored, state)
    parts = {f"weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
    return {"weight": stored, **parts}, numbers.float()


def bnb_8bit(weight):
    from bitsandbytes import functional

    stored, scales, _ = functional.int8_vectorwise_quant(weight.to(torch.float16))
    parts = {"weight": stored, "SCB": scales, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return parts, functional.int8_vectorwise_dequant(stored, scales)
