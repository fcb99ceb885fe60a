"""What the reference stack (transformers, eager attention, f32, CPU) computes for one sequence of token ids.

Imported by the golden_*.py scripts; it has no command of its own. Every function runs one unpadded sequence at a time
and recomputes it from the start, without a key/value cache: the plainest way, against which clever ones are tested.
"""

import dataclasses
import json
import math
import pathlib

import numpy as np
import safetensors
import tokenizers
import torch
import transformers
from transformers.models.nemotron_h import modeling_nemotron_h


def limit_steps_as_published() -> None:
    """Lets Nemotron-H clamp its steps by `time_step_limit`, as the code that its authors published with the models does.

    transformers up to 5.24 clamps by `time_step_min`, which is for drawing initial biases (its issue 48989); the limit is
    (0, infinity) in all released models, so that small steps are widened there and nowhere else.
    """
    mixer = modeling_nemotron_h.NemotronHMamba2Mixer
    original = mixer.__init__

    def patched(self, config, *arguments, **named):
        original(self, config, *arguments, **named)
        self.time_step_limit = tuple(config.time_step_limit)

    mixer.__init__ = patched


limit_steps_as_published()


@dataclasses.dataclass
class Reading:
    """What is read at the last token of a prompt."""

    logits: torch.Tensor  # [vocab]
    residuals: torch.Tensor  # [blocks + 1, d_model], of several streams the active one; the last row is read after the
    # final norm, as hidden_states are where there is one stream
    before_final_norm: torch.Tensor  # [d_model], what the last block left in the stream, or what streams end as


@dataclasses.dataclass
class Answer:
    """A greedy answer."""

    ids: list[int]
    smallest_gap: float  # the smallest lead of the top logit over the second, in any step
    smallest_gap_step: int


@dataclasses.dataclass
class Continuation:
    """A given continuation, read teacher-forced."""

    logprobs: list[float]  # natural logarithm, one per token of the continuation
    top_ids: list[int]  # what the model would have chosen at each of its tokens


def load(folder: pathlib.Path, dtype: torch.dtype = torch.float32):
    """The model of a folder with its weights upcast, in evaluation mode."""
    # By name: not every container of a language model is listed among the causal ones.
    model_class = getattr(transformers, transformers.AutoConfig.from_pretrained(folder).architectures[0])
    plain = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = model_class.from_pretrained(folder, dtype=dtype, **plain)
    return model.eval()


# What decoders call the norm before the head.
FINAL_NORMS = ["norm", "embedding_norm", "norm_f", "final_layernorm"]


@torch.no_grad()
def read(model, ids: list[int]) -> Reading:
    caught = []
    decoder = model.get_decoder()
    norm = next(getattr(decoder, it) for it in FINAL_NORMS if hasattr(decoder, it))
    hook = norm.register_forward_hook(lambda _, inputs, normed: caught.extend([inputs[0][0, -1], normed[0, -1]]))
    try:
        output = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    finally:
        hook.remove()
    sites = list(output.hidden_states)
    active = getattr(model.config.get_text_config(), "altup_active_idx", None)
    if active is not None:  # [streams, batch, tokens, d_model]
        sites = [site[active] for site in sites[:-1]] + [caught[1].expand(1, 1, -1)]
    residuals = torch.stack([site[0, -1] for site in sites])  # [blocks + 1, d_model]
    return Reading(output.logits[0, -1], residuals, caught[0])


@torch.no_grad()
def greedy(model, ids: list[int], tokens: int, end: int | None = None) -> Answer:
    """At most `tokens` tokens; stops after `end`, which is kept."""
    answer = Answer([], math.inf, -1)
    for step in range(tokens):
        logits = model(torch.tensor([ids + answer.ids]), use_cache=False, logits_to_keep=1).logits[0, -1]
        first, second = logits.topk(2).values.tolist()
        if first - second < answer.smallest_gap:
            answer.smallest_gap, answer.smallest_gap_step = first - second, step
        answer.ids.append(int(logits.argmax()))
        if answer.ids[-1] == end:
            break
    return answer


@torch.no_grad()
def continuation(model, prompt: list[int], tokens: list[int]) -> Continuation:
    logits = model(torch.tensor([prompt + tokens]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    logprobs = logits.double().log_softmax(dim=-1)  # [len(tokens), vocab]
    return Continuation(
        [float(logprobs[position, token]) for position, token in enumerate(tokens)],
        logits.argmax(dim=-1).tolist(),
    )


def versions() -> dict[str, str]:
    return {
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "tokenizers": tokenizers.__version__,
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }


def write_json(path: pathlib.Path, value: dict) -> None:
    """One line per key and, below it, one line per item, so that a changed golden file shows what changed."""
    lines = []
    for key, item in value.items():
        if isinstance(item, list) and item and isinstance(item[0], dict | list):
            rows = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in item)
            lines.append(f'  "{key}": [\n    {rows}\n  ]')
        else:
            lines.append(f'  "{key}": {json.dumps(item, ensure_ascii=False)}')
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
