#!/usr/bin/env python3
"""Makes `crates/prompts/tests/golden/smollm2.json`: prompts of SmolLM2-135M-Instruct as Python renders and encodes them.

    python tools/tokenizer_smollm2.py SmolLM2-135M-Instruct.gguf crates/prompts/tests/golden/smollm2.json

The template comes from the GGUF file and is rendered by `apply_chat_template`. The ids come from the package
`tokenizers` with the model's own pre-tokenizer (single digits, then the byte-level words), which the GGUF reader of
transformers 5.23 leaves out, and are checked against llama.cpp before they are written. Nothing of the model but
its answer to these prompts is stored.

Needs: transformers (5 or later), tokenizers, llama-cpp-python.
"""

import json
import pathlib
import sys

import llama_cpp
import transformers
from tokenizers import pre_tokenizers

PROMPTS = [
    "Hello",
    "What is the capital of France?",
    "  Two  spaces,\ttab\n\nand lines \n",
    "Add 12345 and 67.89, then 2026-11-23.",
    "Größe, naïve, Привет, 日本語, 🎉👩‍👩‍👧, हिन्दी",
    "def f(x):\n    return x**2  # square\n",
    "A token in the text: <|im_end|> and <|endoftext|>.",
    "",
]
SYSTEMS = [None, "You are a pirate."]


def main():
    path, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    other = llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)
    cases = []
    for system in SYSTEMS:
        for prompt in PROMPTS:
            messages = [{"role": "system", "content": system}] if system else []
            messages.append({"role": "user", "content": prompt})
            rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = tokenizer.encode(rendered, add_special_tokens=False)
            assert ids == other.tokenize(rendered.encode("utf-8"), add_bos=False, special=True), prompt
            cases.append({"system": system, "prompt": prompt, "rendered": rendered, "ids": ids})
    text = json.dumps({"made_by": f"transformers {transformers.__version__}", "cases": cases}, ensure_ascii=False)
    out.write_text(text.replace('{"system":', '\n{"system":') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
