"""How much of a direction stays in the stream of a model with norms behind its writers.

    python tools/gemma3_norm_gain.py GGUF

On Gemma 3 270M (see golden_gemma3.py): the direction at each layer is the difference of mean residuals of two embedded
prompt sets (40 prompts each, at the last token). It is taken out of what every writer says, `y' = y - v (v.y)`, with
v = r (the plain edit) or v = normalize(g * r), g the gain of the norm behind the writer (`account_for_norm_gain`). Printed
are, over 40 other prompts: the root mean square of `r . what the branch adds` relative to that of the unedited
model's, over all writers, each edited alone; and of `r . stream` with all writers edited, relative to the unedited one's.
"""

import argparse
import pathlib

import gguf
import torch
import transformers

import golden_gemma3

SETS = pathlib.Path(__file__).resolve().parent.parent / "crates/prompts/src/sources/embedded"


def prompts(name: str) -> list[str]:
    return [line for line in (SETS / name).read_text().splitlines() if line.strip()]


class Watched:
    """A model whose writers can be edited and whose branches are read at the last token."""

    def __init__(self, model):
        self.model = model
        self.vectors: dict[tuple[int, str], torch.Tensor] = {}
        self.added: dict[tuple[int, str], torch.Tensor] = {}
        for layer, block in enumerate(model.model.layers):
            for kind, writer, norm in (
                ("attention", block.self_attn.o_proj, block.post_attention_layernorm),
                ("mlp", block.mlp.down_proj, block.post_feedforward_layernorm),
            ):
                writer.register_forward_hook(lambda _m, _i, y, key=(layer, kind): self.edited(key, y))
                norm.register_forward_hook(lambda _m, _i, y, key=(layer, kind): self.read(key, y))

    def gain(self, key: tuple[int, str]) -> torch.Tensor:
        block = self.model.model.layers[key[0]]
        norm = block.post_attention_layernorm if key[1] == "attention" else block.post_feedforward_layernorm
        return 1 + norm.weight

    def edited(self, key, y):
        v = self.vectors.get(key)
        return None if v is None else y - (y @ v)[..., None] * v

    def read(self, key, y) -> None:
        self.added[key] = y[0, -1]

    @torch.no_grad()
    def run(self, ids: list[int]) -> tuple[torch.Tensor, dict[tuple[int, str], torch.Tensor]]:
        """The stream after each block, the last one before the final norm, and what each branch added."""
        output = self.model.model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
        sites = [site[0, -1] for site in output.hidden_states[1:-1]]
        last = len(self.model.model.layers) - 1
        # Only what the last branches added is missing.
        sites.append(sites[-1] + self.added[last, "attention"] + self.added[last, "mlp"])
        return torch.stack(sites), dict(self.added)


def rms(numbers: list[torch.Tensor]) -> float:
    return float(torch.stack(numbers).double().square().mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=pathlib.Path, metavar="GGUF")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    reader = gguf.GGUFReader(arguments.gguf)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.gguf.parent, gguf_file=arguments.gguf.name)
    watched = Watched(golden_gemma3.model_of(reader))

    def ids(text: str) -> list[int]:
        return [2, *tokenizer(text, add_special_tokens=False)["input_ids"]]

    shown, baseline = prompts("disclaimers-train.txt"), prompts("ordinary-train.txt")
    means = [torch.stack([watched.run(ids(it))[0] for it in part[:40]]).mean(0) for part in (shown, baseline)]
    directions = torch.nn.functional.normalize(means[0] - means[1], dim=-1)  # [layers, d_model]
    test = [ids(it) for it in shown[40:80]]
    unedited = [watched.run(it) for it in test]
    keys = list(watched.added)
    gains = torch.stack([watched.gain(key) for key in keys])
    print(f"gains: median {gains.median():.3g}, {gains.min():.3g} to {gains.max():.3g}")

    scopes = {"per layer": directions, "global": directions[11].expand_as(directions)}  # 11 of 0..17: 0.65 of the way
    for scope, vectors in scopes.items():
        for by_gain in (False, True):
            chosen = {}
            for key in keys:
                v = vectors[key[0]] * (watched.gain(key) if by_gain else 1)
                chosen[key] = (v / v.norm()).detach()
            alone = []
            for key in keys:
                watched.vectors = {key: chosen[key]}
                r = vectors[key[0]]
                left = rms([watched.run(it)[1][key] @ r for it in test[:8]])
                alone.append(left / rms([added[key] @ r for _, added in unedited[:8]]))
            watched.vectors = chosen
            edited = [watched.run(it)[0] for it in test]
            watched.vectors = {}
            stream = [
                rms([it[layer] @ vectors[layer] for it in edited])
                / rms([it[layer] @ vectors[layer] for it, _ in unedited])
                for layer in range(len(vectors))
            ]
            alone, stream = torch.tensor(alone), torch.tensor(stream)
            print(
                f"{scope}, {'with' if by_gain else 'without'} the gain: branches {alone.median():.2e} (median), "
                f"{alone.max():.2e} (most); stream {stream.median():.3f} (median of layers), {stream.max():.3f} (most)",
                flush=True,
            )


if __name__ == "__main__":
    main()
