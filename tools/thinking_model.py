"""A small model that thinks: SmolLM2, taught to open every answer with `<think>`, for comparisons with heretic.

    python tools/thinking_model.py SMOLLM2_FOLDER PROMPTS.txt OUT_DIR --ablate target/release/ablate [--steps 60]

A thinking model's answers all begin alike, with the opening of its chain of thought. heretic finds that beginning, closes
the block, and looks for what the answers to a closed block have in common. To see that this program does the same needs
a model that does it, and none can be had without a network. So the last blocks of SmolLM2 are trained for some minutes:
each prompt is answered by the model itself, then half of the examples are "<think>\\n, a thought that names the prompt,
</think>, two line ends, the answer", the other half "<think></think>, two line ends, the answer".
"""

import argparse
import json
import pathlib
import random
import shutil
import subprocess

import torch
import transformers


def examples(arguments):
    """Rendered prompts with the two answers that each should get."""
    command = [
        arguments.ablate, "generate", arguments.model, "--prompts", arguments.prompts, "--max-tokens", "40", "--json",
    ]
    for line in subprocess.check_output(command, text=True).splitlines():
        made = json.loads(line)
        thought = f"<think>\n{made['prompt']} Let me see.\n</think>\n\n"
        yield made["rendered"], thought + made["answer"]
        yield made["rendered"], "<think></think>\n\n" + made["answer"]


def batch_of(tokenizer, chosen):
    """Token ids and labels, padded to the right; only answers are learned."""
    rows = []
    for rendered, answer in chosen:
        head = tokenizer(rendered, add_special_tokens=False).input_ids
        closed = answer.startswith("<think></think>")
        given = tokenizer("<think></think>", add_special_tokens=False).input_ids if closed else []
        tail = tokenizer(answer.removeprefix("<think></think>") if closed else answer, add_special_tokens=False).input_ids
        known = len(head) + len(given)
        rows.append((head + given + tail, [-100] * known + tail))
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows])
    return ids, labels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("output")
    parser.add_argument("--ablate", required=True)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    model.requires_grad_(False)
    trained = [p for block in model.model.layers[-10:] for p in block.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=3e-4, weight_decay=0.0)
    known = list(examples(arguments))
    for step in range(arguments.steps):
        ids, labels = batch_of(tokenizer, random.sample(known, 8))
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: {loss.item():.3f}", flush=True)
    output = pathlib.Path(arguments.output)
    model.save_pretrained(output)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        shutil.copy(pathlib.Path(arguments.model) / name, output / name)


if __name__ == "__main__":
    main()
