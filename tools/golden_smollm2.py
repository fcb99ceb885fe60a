"""What the reference stack computes with SmolLM2-135M-Instruct in f32.

    python tools/smollm2_to_hf.py MODEL_DIR
    python tools/golden_smollm2.py MODEL_DIR [OUT_DIR]

writes OUT_DIR/smollm2.json and OUT_DIR/smollm2.safetensors (default: crates/engine/tests/golden). The model is too big
to be committed; tests that want it make MODEL_DIR with the first command and are told where it is.

smollm2.json:

- `weights_sha256`: of model.safetensors, so that a test can tell whether it looks at the same weights.
- `prompts[i]`: the conversation (or none, for plain text), its rendered text, its token ids; of the next token the
  natural logarithm of the sum of exponentials and the twenty largest logits; the greedy answer of at most 32 tokens,
  end-of-sequence included, and the smallest lead of the top logit over the second on the way (`smallest_gap`, at step
  `smallest_gap_step`). Where the lead is tiny, rounding may flip the choice: compare up to that step only.
- `continuations`: tokens given after a prompt, the log-probability of each and the top token there.
- `logit_ids`, `component_ids`: which logits and which components of the residuals the tensors hold.
- `f64_difference`: how far the values move when the matrix products run in f64 (the norms, the rotary angles and the
  softmax stay f32 in transformers): the size of rounding noise, for choosing tolerances.

smollm2.safetensors (f32; all at the last token of a prompt; the last site is read after the final norm):

- `logits` [prompts, 64]
- `residual_lengths`, `residual_max_abs` [prompts, sites] and `residual_components` [prompts, sites, 16]
- `before_final_norm` [prompts, d_model]
- `residuals` [3, sites, d_model]: everything, for the prompts of `residual_prompts`

Takes about three minutes on two cores.
"""

import argparse
import hashlib
import pathlib

import safetensors.torch
import torch
import transformers

import reference

ANSWER_TOKENS = 32
LONG = """Please read this short description and then tell me in one sentence what the town is known for.

The town lies where two rivers meet, about forty kilometres from the coast. For most of the nineteenth century its
people built boats from the oak of the hills behind it, and the narrow streets near the water still have names such as
Sail Street and Rope Walk. When the railway came in 1871, the yards closed one after another, and the workshops turned
to making musical instruments instead: first simple wooden flutes, then clarinets, and at last the bassoons that
orchestras all over the continent ordered. Today three small firms are left. Each summer, during the second week of
July, students from many countries come to learn how a reed is cut, and in the evenings they play in the old market
hall, whose doors are left open so that everybody on the square can listen."""

# name, messages (role, content); a single string is plain text without a chat template.
PROMPTS: list[tuple[str, list[tuple[str, str]] | str]] = [
    ("short", [("user", "Hi")]),
    ("question", [("user", "What is the capital of Norway?")]),
    ("system", [("system", "You are a pirate. Answer in one short sentence."), ("user", "How is the weather today?")]),
    ("arithmetic", [("user", "What is 48213 + 7096? Show the steps.")]),
    ("digits", [("user", "Continue: 1, 4, 9, 16, 25, 36, 49, 3.14159, 0x1F, 2026-11-23, ½ and ²")]),
    ("unicode", [("user", "Translate into English: « Où est la bibliothèque ? » 図書館はどこですか。 Где кофе? 🙂🏽")]),
    ("code", [("user", "Explain this:\n```python\ndef f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\n```")]),
    ("white space", [("user", "  Two  spaces,\ta tab,\n\n\nempty lines.  ")]),
    ("recipe", [("user", "List three things that I need to bake bread.")]),
    (
        "turns",
        [
            ("user", "My cat is called Miso."),
            ("assistant", "What a lovely name! How old is Miso?"),
            ("user", "She is four. What was her name again?"),
        ],
    ),
    ("long", [("user", LONG)]),
    ("plain text", "Once upon a time, in a village at the foot of a mountain, there lived"),
]
FULL_RESIDUALS = ["question", "unicode", "long"]
CONTINUATIONS = [
    ("question", "The capital of Norway is Oslo. It lies at the head of the Oslofjord and has about 700,000 people."),
    ("code", "I'm sorry, but bananas are yellow, and the moon was made on a Tuesday."),
]


def rendered(tokenizer, messages) -> str:
    if isinstance(messages, str):
        return messages
    turns = [{"role": role, "content": content} for role, content in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def token_ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def check_generate(model, ids: list[int], answer: reference.Answer, end: int) -> None:
    """The same answer with the reference stack's own loop, which keeps a cache, up to the first near tie."""
    found = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=len(answer.ids),
        do_sample=False,
        eos_token_id=end,
    )[0, len(ids) :].tolist()
    agreed = len(answer.ids) if answer.smallest_gap > 1e-3 else answer.smallest_gap_step
    if found[:agreed] != answer.ids[:agreed]:
        raise SystemExit(f"generate answers {found}, not {answer.ids}")


def record(stem: pathlib.Path, model, in_f64, end: int, prompts: list[dict], continuations: list[dict], facts: dict) -> None:
    """Writes STEM.json and STEM.safetensors: what a model computes for prompts and continuations with `ids`.

    `in_f64`, if not None, makes the model again in f64, to know how large rounding is; a prompt's `answer_tokens` are
    fewer than the usual ones where it says so; `facts` come first in the JSON file.
    """
    generator = torch.Generator().manual_seed(1)
    text_config = model.config.get_text_config()
    logit_ids = sorted(torch.randperm(text_config.vocab_size, generator=generator)[:64].tolist())
    component_ids = sorted(torch.randperm(text_config.hidden_size, generator=generator)[:16].tolist())

    ids = [it["ids"] for it in prompts]
    readings = [reference.read(model, it) for it in ids]
    for prompt, reading in zip(prompts, readings, strict=True):
        answer = reference.greedy(model, prompt["ids"], prompt.get("answer_tokens", ANSWER_TOKENS), end)
        check_generate(model, prompt["ids"], answer, end)
        top = reading.logits.topk(20)
        prompt["logsumexp"] = float(reading.logits.double().logsumexp(dim=-1))
        prompt["top"] = [[id, logit] for id, logit in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
        prompt["answer"] = {
            "ids": answer.ids,
            "smallest_gap": float(f"{answer.smallest_gap:.3g}"),
            "smallest_gap_step": answer.smallest_gap_step,
        }
        print(f"{prompt['name']}: {len(prompt['ids'])} tokens, gap {answer.smallest_gap:.2g}, {answer.ids}", flush=True)
    for it in continuations:
        read = reference.continuation(model, ids[it["prompt"]], it["ids"])
        it |= {"logprobs": read.logprobs, "top_ids": read.top_ids}

    names = [it["name"] for it in prompts]
    residual_prompts = [names.index(name) for name in FULL_RESIDUALS if name in names]
    residuals = torch.stack([it.residuals for it in readings])  # [prompts, sites, d_model]
    tensors = {
        "logits": torch.stack([it.logits[logit_ids] for it in readings]),
        "residual_lengths": residuals.double().norm(dim=-1).float(),
        "residual_max_abs": residuals.abs().amax(dim=-1),
        "residual_components": residuals[:, :, component_ids].contiguous(),
        "before_final_norm": torch.stack([it.before_final_norm for it in readings]),
        "residuals": residuals[residual_prompts].contiguous(),
    }

    precise = in_f64() if in_f64 else model
    precise = [reference.read(precise, it) for it in ids] if in_f64 else readings
    differences = {
        "logits": max(float((a.logits - b.logits).abs().max()) for a, b in zip(readings, precise, strict=True)),
        # Of each site against its own length: a few components of the stream are hundreds of times the others.
        "residuals_relative": max(
            float(((a.residuals - b.residuals).norm(dim=-1) / b.residuals.norm(dim=-1)).max())
            for a, b in zip(readings, precise, strict=True)
        ),
    }

    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".safetensors").write_bytes(safetensors.torch.save(tensors))
    reference.write_json(
        stem.with_suffix(".json"),
        facts
        | ({"f64_difference": {name: float(f"{value:.2g}") for name, value in differences.items()}} if in_f64 else {})
        | {
            "logit_ids": logit_ids,
            "component_ids": component_ids,
            "residual_prompts": residual_prompts,
            "prompts": prompts,
            "continuations": continuations,
        },
    )
    print(f"f64 differences: {differences}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).resolve().parent.parent / "crates/engine/tests/golden"
    parser.add_argument("model", type=pathlib.Path, metavar="MODEL_DIR", help="made by smollm2_to_hf.py, in f32")
    parser.add_argument("out", type=pathlib.Path, nargs="?", default=default, metavar="OUT_DIR")
    arguments = parser.parse_args()

    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    model = reference.load(arguments.model)
    prompts = []
    for name, messages in PROMPTS:
        text = rendered(tokenizer, messages)
        turns = None if isinstance(messages, str) else messages
        prompts.append({"name": name, "messages": turns, "text": text, "ids": token_ids(tokenizer, text)})
    names = [name for name, _ in PROMPTS]
    continuations = [
        {"prompt": names.index(name), "text": text, "ids": token_ids(tokenizer, text)} for name, text in CONTINUATIONS
    ]
    record(
        arguments.out / "smollm2",
        model,
        lambda: reference.load(arguments.model, torch.float64),
        model.config.eos_token_id,
        prompts,
        continuations,
        {
            "made_by": {"script": pathlib.Path(__file__).name, **reference.versions()},
            "weights_sha256": hashlib.sha256((arguments.model / "model.safetensors").read_bytes()).hexdigest(),
        },
    )


if __name__ == "__main__":
    main()
