#!/usr/bin/env python3
"""Makes the small tokenizers of `crates/prompts/tests/golden` and what Python makes of texts with them.

    python tools/tokenizer_goldens.py crates/prompts/tests/golden

Two tokenizers are trained on the texts of `tokenizer_compare.py`, one of each kind that GGUF files hold. Each file
has the tokenizer twice, as `tokenizer.json` and as GGUF metadata, and the ids and decoded texts by the package
`tokenizers`. The merges of the second follow from scores by `generate_merges` of transformers.

Needs: transformers (5 or later), tokenizers.
"""

import json
import pathlib
import sys

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers.convert_slow_tokenizer import generate_merges

from tokenizer_compare import TEXTS, random_texts

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
SPACE = "\u2581"


def byte_level():
    """Single digits, then words, then bytes: the kind `gpt2` with the split `smollm`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    metadata = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [
            CONTROL if it in control else USER_DEFINED if it == "<tool>" else NORMAL for it in tokens
        ],
        "tokenizer.ggml.merges": [" ".join(it) for it in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
    config = {
        "bos_token": "<|im_start|>",
        "eos_token": {"content": "<|im_end|>", "lstrip": False},
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
    }
    return tokenizer, metadata, config


def sentencepiece():
    """Spaces as \u2581, bytes for what is missing, begin of sequence: the kind `llama`."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(TEXTS[:26], trainers.BpeTrainer(vocab_size=380, show_progress=False))
    pieces = sorted(learner.get_vocab(), key=learner.token_to_id)
    # Longer pieces first, as SentencePiece lists what it merged before what it kept.
    pieces = [it for it in pieces if len(it) > 1] + [it for it in pieces if len(it) == 1]
    control = ["<s>", "</s>", "<end_of_turn>"]
    tokens = ["<unk>", *control, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    scores = [0.0] * (4 + 256) + [-float(rank) for rank in range(len(pieces))]
    types = [UNKNOWN, *[CONTROL] * 3, *[BYTE] * 256, *[NORMAL] * len(pieces)]
    ids = {token: index for index, token in enumerate(tokens)}
    first = 4 + 256
    merges = generate_merges(
        {token: index for token, index in ids.items() if index >= first},
        dict(zip(tokens[first:], scores[first:])),
    )
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(it, normalized=False, special=True) for it in control])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    metadata = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return tokenizer, metadata, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def cases(tokenizer, special):
    texts = [*TEXTS, *random_texts(40)]
    for token in special:
        texts += [token, f"before {token} after", f"x{token}y{token}{token}"]
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        yield {
            "text": text,
            "ids": ids,
            "ids_as_plain_text": tokenizer.encode(text).ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_without_special": tokenizer.decode(ids),
        }


def main():
    folder = pathlib.Path(sys.argv[1])
    for name, make, special in [
        ("byte_level", byte_level, ["<|im_end|>", "<tool>"]),
        ("sentencepiece", sentencepiece, ["</s>", "<end_of_turn>"]),
    ]:
        tokenizer, metadata, config = make()
        golden = {
            "tokenizer": json.loads(tokenizer.to_str()),
            "tokenizer_config": config,
            "gguf": metadata,
            "cases": list(cases(tokenizer, special)),
        }
        text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
        # A line per case, so that changes can be read.
        text = text.replace('},{"text":', '},\n{"text":')
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
