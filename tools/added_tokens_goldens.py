#!/usr/bin/env python3
"""Makes `crates/prompts/tests/golden/added_tokens.json`: tokens that other files than tokenizer.json list.

    python tools/added_tokens_goldens.py crates/prompts/tests/golden/added_tokens.json

A tokenizer of 40 tokens that lowercases, and for each case the files beside it, as a folder of `AutoTokenizer` has
them; with ids, decoded texts and named tokens by transformers.

Needs: transformers (5 or later), tokenizers.
"""

import json
import pathlib
import sys
import tempfile

from transformers import AutoTokenizer

LETTERS = list("abcdefghijklmnopqrstuvwxyz") + list("<>|_/.") + ["Ġ"]
WORDS = {token: index for index, token in enumerate(LETTERS + ["th", "the", "<w>", "<e>"])}


def token(content, **flags):
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"content": content, **usual, **flags}


def tokenizer(*added):
    size = len(WORDS)
    added = [{"id": WORDS.get(it["content"], size + index), **it} for index, it in enumerate(added)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": WORDS,
            "merges": [["t", "h"], ["th", "e"]],
        },
    }


TEXTS = [
    "the<|x|>the <|y|> the<|z|>",
    "a <|X|> b<|x|>",
    "<w>the<e> <pad> a<|x|>b",
    "  <|x|>  the  <|y|>  ",
    "the <img> the<bos>a<eos>",
]

X, Y, Z = token("<|x|>"), token("<|y|>"), token("<|z|>")

CASES = {
    "nothing_beside": (tokenizer(), {}),
    "decoder": (tokenizer(), {"tokenizer_config": {"added_tokens_decoder": {"37": X, "38": Y}}}),
    "decoder_in_another_order_than_ids": (
        tokenizer(),
        {"tokenizer_config": {"added_tokens_decoder": {"100": X, "38": Z, "39": Y}}},
    ),
    "decoder_not_special_and_normalized": (
        tokenizer(),
        {
            "tokenizer_config": {
                "added_tokens_decoder": {"37": token("<|X|>", normalized=True, special=False), "38": token("<|y|>", special=False)}
            }
        },
    ),
    "decoder_flags_differ_from_tokenizer_json": (
        tokenizer(X, Y, Z),
        {
            "tokenizer_config": {
                "added_tokens_decoder": {
                    "37": token("<|x|>", lstrip=True),
                    "38": token("<|y|>", rstrip=True, special=False),
                    "39": token("<|z|>", single_word=True),
                }
            }
        },
    ),
    "decoder_normalized_where_tokenizer_json_is_not": (
        tokenizer(X, Y),
        {"tokenizer_config": {"added_tokens_decoder": {"37": token("<|x|>", normalized=True)}}},
    ),
    "decoder_with_few_flags": (
        tokenizer(),
        {"tokenizer_config": {"added_tokens_decoder": {"37": {"content": "<|x|>"}, "38": {"content": "<|Y|>", "special": True}}}},
    ),
    "additional_of_config": (tokenizer(), {"tokenizer_config": {"additional_special_tokens": ["<|x|>", "<|y|>"]}}),
    "additional_of_config_already_added": (
        tokenizer(token("<|x|>", special=False)),
        {"tokenizer_config": {"additional_special_tokens": ["<|x|>", "<|y|>"]}},
    ),
    "additional_of_config_as_objects": (
        tokenizer(),
        {"tokenizer_config": {"additional_special_tokens": [{"__type": "AddedToken", **token("<|x|>", lstrip=True)}]}},
    ),
    "extra_of_config": (tokenizer(), {"tokenizer_config": {"extra_special_tokens": ["<|y|>", "<|x|>"]}}),
    "extra_of_config_by_name": (
        tokenizer(),
        {"tokenizer_config": {"extra_special_tokens": {"image_token": "<img>", "x_token": "<|x|>"}}},
    ),
    "extra_before_additional": (
        tokenizer(),
        {"tokenizer_config": {"extra_special_tokens": ["<|y|>"], "additional_special_tokens": ["<|x|>"]}},
    ),
    "empty_extra_beside_additional": (
        tokenizer(),
        {"tokenizer_config": {"extra_special_tokens": [], "additional_special_tokens": ["<|x|>"]}},
    ),
    "named_in_config": (
        tokenizer(),
        {
            "tokenizer_config": {
                "bos_token": "<bos>",
                "eos_token": "<e>",
                "pad_token": "<pad>",
                "unk_token": None,
                "image_token": "<img>",
            }
        },
    ),
    "named_in_config_as_objects": (
        tokenizer(),
        {
            "tokenizer_config": {
                "eos_token": {"__type": "AddedToken", **token("<e>", lstrip=True, special=False)},
                "bos_token": {"__type": "AddedToken", **token("<bos>", rstrip=True)},
            }
        },
    ),
    "named_with_flags_of_decoder": (
        tokenizer(),
        {"tokenizer_config": {"eos_token": "<eos>", "added_tokens_decoder": {"37": token("<eos>", lstrip=True, special=False)}}},
    ),
    "named_listed_as_not_special": (
        tokenizer(token("<eos>", special=False)),
        {"tokenizer_config": {"eos_token": "<eos>"}},
    ),
    "map": (
        tokenizer(),
        {
            "tokenizer_config": {"eos_token": "<e>"},
            "special_tokens_map": {
                "eos_token": token("<eos>", lstrip=True, normalized=True),
                "bos_token": "<bos>",
                "additional_special_tokens": ["<|x|>", "<|y|>"],
            },
        },
    ),
    "map_without_config": (tokenizer(), {"special_tokens_map": {"eos_token": "<eos>", "additional_special_tokens": ["<|x|>"]}}),
    "map_and_additional_of_config": (
        tokenizer(),
        {
            "tokenizer_config": {"additional_special_tokens": ["<|z|>"]},
            "special_tokens_map": {"additional_special_tokens": ["<|x|>", "<|y|>"]},
        },
    ),
    "map_beside_decoder": (
        tokenizer(),
        {
            "tokenizer_config": {"added_tokens_decoder": {"37": X}},
            "special_tokens_map": {"eos_token": "<eos>", "additional_special_tokens": ["<|y|>"]},
        },
    ),
    "map_extra": (
        tokenizer(),
        {
            "tokenizer_config": {"extra_special_tokens": ["<|z|>"]},
            "special_tokens_map": {"extra_special_tokens": ["<|x|>", {"content": "<|y|>", "lstrip": True}]},
        },
    ),
    "map_extra_by_name": (tokenizer(), {"special_tokens_map": {"extra_special_tokens": {"image_token": "<img>"}}}),
    "added_tokens": (tokenizer(), {"tokenizer_config": {}, "added_tokens": {"<|y|>": 38, "<|X|>": 37}}),
    "added_tokens_that_are_special": (
        tokenizer(),
        {"tokenizer_config": {"eos_token": "<eos>", "additional_special_tokens": ["<|y|>"]}, "added_tokens": {"<|x|>": 37, "<|y|>": 38, "<eos>": 39}},
    ),
    "added_tokens_in_tokenizer_json": (
        tokenizer(token("<|x|>", lstrip=True)),
        {"tokenizer_config": {}, "added_tokens": {"<|x|>": 37, "<|y|>": 38}},
    ),
    "added_tokens_beside_decoder": (
        tokenizer(),
        {"tokenizer_config": {"added_tokens_decoder": {"37": X}}, "added_tokens": {"<|y|>": 38}},
    ),
    "special_tokens_are_split": (
        tokenizer(X),
        {"tokenizer_config": {"split_special_tokens": True, "additional_special_tokens": ["<|y|>"]}},
    ),
    "all_at_once": (
        tokenizer(token("<|x|>", rstrip=True)),
        {
            "tokenizer_config": {
                "eos_token": "<e>",
                "extra_special_tokens": ["<w>"],
                "added_tokens_decoder": {"36": token("<e>"), "37": token("<|x|>"), "38": token("<|y|>", special=False)},
            },
            "special_tokens_map": {"bos_token": "<bos>"},
            "added_tokens": {"<|z|>": 39},
        },
    ),
}

# What transformers cannot load, and older files have: read here as the same with the token as a text or as an object.
REFUSED = {
    "map_additional_as_objects": (
        tokenizer(),
        {"special_tokens_map": {"additional_special_tokens": [token("<|x|>", lstrip=True)]}},
    ),
}


def load(tokenizer, beside):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        beside = {**beside}
        if "tokenizer_config" in beside:
            beside["tokenizer_config"] = {"tokenizer_class": "PreTrainedTokenizerFast", **beside["tokenizer_config"]}
        for name, content in beside.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        return AutoTokenizer.from_pretrained(folder)


def main():
    cases = []
    for name, (description, beside) in CASES.items():
        reference = load(description, beside)
        texts = []
        for text in TEXTS:
            ids = reference.encode(text, add_special_tokens=False)
            texts.append(
                {
                    "text": text,
                    "ids": ids,
                    "decoded": reference.decode(ids, skip_special_tokens=False),
                    "decoded_without_special": reference.decode(ids, skip_special_tokens=True),
                }
            )
        added = description["added_tokens"]
        named = reference.special_tokens_map
        cases.append({"name": name, "added_tokens": added, "beside": beside, "named": named, "texts": texts})
    for name, (description, beside) in REFUSED.items():
        try:
            load(description, beside)
            raise SystemExit(f"{name}: transformers loads it now")
        except (TypeError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
    golden = {"tokenizer": tokenizer(), "cases": cases}
    pathlib.Path(sys.argv[1]).write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
