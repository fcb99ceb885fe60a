"""Greedy answers of a tiny golden checkpoint under the rules of generation_config.json, by transformers' `generate`.

    python tools/golden_generation.py [OUT_FILE]

writes crates/engine/tests/golden_generation.json: for each configuration the token ids of the answers to the checkpoint's
prompts, one unpadded prompt at a time, the token that ended an answer left out; null where rounding could change an answer.
"""

import json
import pathlib
import sys

import torch
import transformers

TESTS = pathlib.Path(__file__).resolve().parent.parent / "crates/engine/tests"
GOLDEN = "llama_gqa_tied"
NEW_TOKENS = 16
# Below this lead two implementations that both round to f32 could choose differently.
SMALLEST_GAP = 3e-4

PLAIN = [
    {"repetition_penalty": 1.05},
    {"repetition_penalty": 1.6},
    {"repetition_penalty": 0.8},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.1},
    {"bad_words_ids": "SOME"},
    {"suppress_tokens": "FIRST"},
    {"begin_suppress_tokens": "FIRST"},
    {"eos_token_id": "SOME_ENDS"},
    {"eos_token_id": "SOME_ENDS", "min_new_tokens": 5},
    {"eos_token_id": "SOME_ENDS", "min_length": 12},
    {"eos_token_id": "SOME_ENDS", "exponential_decay_length_penalty": [2, 1.5]},
    {"sequence_bias": "BIAS"},
    {
        "eos_token_id": "SOME_ENDS",
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": "SOME",
        "suppress_tokens": "FIRST",
        "min_new_tokens": 3,
        "sequence_bias": "BIAS",
    },
]


@torch.no_grad()
def answer(model, prompt, settings):
    settings = dict(settings)
    config = transformers.GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, **{"eos_token_id": None, **settings}
    )
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), generation_config=config, output_scores=True, return_dict_in_generate=True
    )
    gap = float("inf")
    for scores in out.scores:
        top = scores[0].float().topk(2).values
        gap = min(gap, float(top[0] - top[1]))
    tokens = out.sequences[0, len(prompt) :].tolist()
    ends = settings.get("eos_token_id") or []
    if tokens and tokens[-1] in ends:
        tokens.pop()
    return tokens, gap


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else TESTS / "golden_generation.json"
    folder = TESTS / "golden" / GOLDEN
    prompts = json.loads((folder / "golden.json").read_text())["prompts"]
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    # Where a case names no end there is none: `generate` would take the model's.
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    # What is usual here, so that rules matter.
    usual = [answer(model, prompt, {})[0] for prompt in prompts]
    words = {
        "SOME": [[usual[0][2]], usual[3][:2], usual[2][1:4], [5]],
        "FIRST": sorted({usual[0][0], usual[2][0], usual[4][0], 90}),
        "SOME_ENDS": sorted({usual[1][3], usual[4][2], usual[0][4]}),
        "BIAS": [[[usual[0][1]], -4.0], [usual[3][:2], -20.0], [[7], 2.5], [[usual[5][0], 11], 6.0]],
    }
    cases = []
    for settings in [{}, *PLAIN]:
        settings = {key: words.get(value, value) if isinstance(value, str) else value for key, value in settings.items()}
        answers = [answer(model, prompt, settings) for prompt in prompts]
        # An answer on the way to which two tokens were as good as equal is not compared.
        tokens = [it[0] if it[1] >= SMALLEST_GAP else None for it in answers]
        assert sum(it is not None for it in tokens) >= 4, (settings, answers)
        ends = {"eos_token_id": settings["eos_token_id"]} if "eos_token_id" in settings else {}
        plain = [answer(model, prompt, ends)[0] for prompt in prompts]
        changed = any(it is not None and it != other for it, other in zip(tokens, plain))
        assert changed or len(settings) == len(ends), f"{settings} changes nothing"
        cases.append({"generation_config": settings, "answers": tokens})
    facts = {"checkpoint": GOLDEN, "new_tokens": NEW_TOKENS, "transformers": transformers.__version__, "cases": cases}
    out.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{len(cases)} configurations")


if __name__ == "__main__":
    main()
