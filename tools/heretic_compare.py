"""heretic beside `ablate`: the same prompts, the same parameters, heretic's own program.

    python tools/heretic_compare.py MODEL_FOLDER PARAMETERS.json [PARAMETERS.json …] --ablate target/release/ablate \
        --good good.txt --bad bad.txt --refusal refusal.txt --kl kl.txt --row-normalization none

heretic (1.4, from PyPI: `pip install heretic-llm`) runs as a whole: its prompts, residuals, directions, adapters and
scores. Three of its functions are watched from outside: what a trial tries is replaced by the parameters given, each
file one trial; its closing menu is answered with "exit"; and the adapters that it made are compared, for `full`, with
the exact edit, computed here in f64. Then `ablate evaluate --parameters` scores the same, and both are printed, as one
JSON object on the last line.

With `--study FILE`, parameters are those of the complete trials of a study of `ablate run`, whose scores and seconds are
compared, so that nothing is run but heretic. Needs a folder to write to: heretic keeps its study there (`--scratch`).
"""

import argparse
import json
import os
import subprocess
import sys
import time

import torch


def exact_change(weight, direction, strength, mode):
    """What the edit changes, in f64: `Ŵ − λ r (rᵀ Ŵ)` with rows of length 1, put back to length for `full`."""
    weight, r = weight.double(), direction.double()
    if mode == "none":
        return -strength * torch.outer(r, r @ weight)
    norms = weight.norm(dim=1, keepdim=True)
    unit = weight / norms
    step = unit - strength * torch.outer(r, r @ unit)
    if mode == "full":
        step = step / step.norm(dim=1, keepdim=True)
    return step * norms - weight


def adapter_errors(model, directions, index, profiles, mode):
    """Relative Frobenius error of heretic's change of every writer, and of all together."""
    error, size, each = 0.0, 0.0, []
    for number in range(len(model.get_layers())):
        for component, modules in model.get_layer_modules(number).items():
            profile = profiles[component]
            distance = abs(number - profile["max_weight_position"])
            if distance > profile["min_weight_distance"]:
                continue
            slope = (profile["min_weight"] - profile["max_weight"]) / profile["min_weight_distance"]
            strength = profile["max_weight"] + distance * slope
            if index is None:
                direction = directions[number + 1]
            else:
                lower, fraction = int(index + 1), (index + 1) % 1
                direction = (1 - fraction) * directions[lower] + fraction * directions[lower + 1]
                direction = torch.nn.functional.normalize(direction, dim=0)
            for module in modules:
                exact = exact_change(module.base_layer.weight, direction, strength, mode)
                made = module.lora_B["default"].weight.double() @ module.lora_A["default"].weight.double()
                one, all_ = float((made - exact).norm()), float(exact.norm())
                each.append(one / all_)
                error, size = error + one**2, size + all_**2
    return {"all": (error / size) ** 0.5, "least": min(each), "most": max(each), "writers": len(each)}


def run_heretic(arguments, parameters):
    """One entry per parameters: divergence, refusals, seconds, and how far the adapters are from the edit."""
    import heretic.main
    from heretic.model import AbliterationParameters, Model

    os.makedirs(arguments.scratch, exist_ok=True)
    os.chdir(arguments.scratch)
    checkpoints = f"checkpoints-{time.time_ns()}"
    sys.argv = [
        "heretic", "--model", arguments.model, "--n-trials", str(len(parameters)), "--n-startup-trials", "1",
        "--row-normalization", arguments.row_normalization.upper(), "--seed", "0",
        "--max-response-length", str(arguments.max_response_length), "--batch-size", str(arguments.batch_size),
        "--study-checkpoint-dir", checkpoints, "--dtypes", json.dumps([arguments.dtype]),
        "--full-normalization-lora-rank", str(arguments.rank),
    ]
    for name, file in (
        ("good-prompts", arguments.good), ("bad-prompts", arguments.bad),
        ("good-evaluation-prompts", arguments.kl), ("bad-evaluation-prompts", arguments.refusal),
    ):
        sys.argv += [f"--{name}", json.dumps({"dataset": file})]
    if not arguments.find_prefix:
        sys.argv += ["--response-prefix", ""]
    if arguments.markers:
        sys.argv += ["--refusal-markers", json.dumps([it.strip() for it in open(arguments.markers) if it.strip()])]
    made, studies, prefixes = [], [], []
    original_abliterate, original_create = Model.abliterate, heretic.main.optuna.create_study

    def abliterate(self, directions, _index, _profiles):
        it = parameters[len(made)]
        prefixes.append(self.settings.response_prefix)
        profiles = it["abliteration_parameters"]
        started = time.perf_counter()
        own = {name: AbliterationParameters(**profile) for name, profile in profiles.items()}
        original_abliterate(self, directions, it["direction_index"], own)
        seconds = time.perf_counter() - started
        errors = None
        if arguments.adapters:
            errors = adapter_errors(self, directions, it["direction_index"], profiles, arguments.row_normalization)
        made.append({"abliterate_seconds": seconds, "adapters": errors})

    def create_study(*positional, **named):
        studies.append(original_create(*positional, **named))
        return studies[-1]

    Model.abliterate = abliterate
    heretic.main.optuna.create_study = create_study
    heretic.main.prompt_select = lambda *_: ""
    heretic.main.run()
    trials = studies[0].trials
    assert len(trials) == len(made) == len(parameters)
    return [
        {
            "kl_divergence": trial.user_attrs["kl_divergence"],
            "refusals": trial.user_attrs["refusals"],
            "original_refusals": trial.user_attrs["base_refusals"],
            "seconds": trial.duration.total_seconds(),
            "response_prefix": prefix,
            **more,
        }
        for trial, more, prefix in zip(trials, made, prefixes)
    ]


def run_ours(arguments, file):
    command = [
        arguments.ablate, "evaluate", arguments.model, "--parameters", file, "--json", "--good-prompts", arguments.good,
        "--bad-prompts", arguments.bad, "--refusal-prompts", arguments.refusal, "--kl-prompts", arguments.kl,
        "--row-normalization", arguments.row_normalization, "--max-response-length", str(arguments.max_response_length),
        "--batch-size", "64", "--scorer", "refusals", "--scorer", "kl_divergence",
    ]
    if not arguments.find_prefix:
        command += ["--response-prefix", ""]
    if arguments.markers:
        command += ["--refusal-markers", arguments.markers]
    told = json.loads(subprocess.check_output(command))
    scores = {it["name"]: it for it in told["scores"]}
    return {
        "response_prefix": told["calibration"]["response_prefix"],
        "kl_divergence": scores["kl_divergence"]["value"],
        "refusals": scores["refusals"]["details"]["count"],
        "original_refusals": round(scores["refusals"]["baseline"] * scores["refusals"]["details"]["total"]),
    }


def from_study(arguments):
    """Parameters and scores of a study's complete trials."""
    shown = json.loads(subprocess.check_output([arguments.ablate, "study", "show", arguments.study, "--json"]))
    parameters, scores = [], []
    for trial in shown["trials"]:
        notes = trial["user_attrs"]
        if trial["state"] != "complete":
            continue
        parameters.append(
            {"direction_index": notes["direction_index"], "abliteration_parameters": notes["parameters"]}
        )
        found = {it["name"]: it for it in notes["scores"]}
        scores.append({
            "kl_divergence": found["kl_divergence"]["value"],
            "refusals": found["refusals"]["details"]["count"],
            "seconds": notes["seconds"],
        })
    return parameters, scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("parameters", nargs="*")
    parser.add_argument("--ablate", required=True)
    for name in ("good", "bad", "refusal", "kl"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--study", help="a study of `ablate run`, in place of parameters")
    parser.add_argument("--markers", help="a text file with one marker a line; else each program's own")
    parser.add_argument("--find-prefix", action="store_true", help="each program finds what all answers begin with")
    parser.add_argument("--row-normalization", default="full", choices=["none", "pre", "full"])
    parser.add_argument("--max-response-length", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32, help="heretic's; 0: the fastest that it finds")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--adapters", action="store_true", help="compare adapters with the exact edit")
    parser.add_argument("--rank", type=int, default=3, help="of heretic's adapters for `full`")
    parser.add_argument("--scratch", default="heretic-scratch")
    arguments = parser.parse_args()
    for name in ("model", "ablate", "good", "bad", "refusal", "kl", "study", "markers"):
        if getattr(arguments, name):
            setattr(arguments, name, os.path.abspath(getattr(arguments, name)))
    if arguments.study:
        parameters, ours = from_study(arguments)
    else:
        files = [os.path.abspath(it) for it in arguments.parameters]
        parameters = [json.load(open(it)) for it in files]
        ours = [run_ours(arguments, it) for it in files]
    theirs = run_heretic(arguments, parameters)
    for a, b in zip(theirs, ours):
        b["kl_relative"] = b["kl_divergence"] / a["kl_divergence"] - 1
    print(json.dumps({"mode": arguments.row_normalization, "heretic": theirs, "ablate": ours}))


if __name__ == "__main__":
    main()
