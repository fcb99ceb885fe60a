"""heretic's own `reproduce.json` files, made again by `ablate reproduce`.

    python tools/heretic_reproduce.py MODEL_FOLDER --ablate target/release/ablate --trials 6 \
        --good examples/cliches/plain.txt --bad examples/cliches/flowery.txt --markers examples/cliches/markers.txt

heretic (1.4, from PyPI: `pip install heretic-llm`) runs as a whole on the first 30 prompts of each file, and is scored on
the next 30. Its closing menu is answered with "exit"; then its own function writes a reproduction file for every trial,
as it does for an upload. `ablate reproduce` reads each, and both programs' scores are printed, as one JSON object on the
last line.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path


def run_heretic(arguments, sets):
    checkpoints = os.path.join(arguments.scratch, "checkpoints")
    sys.argv = [
        "heretic", "--model", arguments.model, "--n-trials", str(arguments.trials), "--n-startup-trials",
        str(arguments.trials), "--row-normalization", arguments.row_normalization.upper(), "--seed", "1",
        "--response-prefix", "", "--max-response-length", str(arguments.max_response_length), "--batch-size", "30",
        "--study-checkpoint-dir", checkpoints, "--dtypes", json.dumps([arguments.dtype]),
        "--refusal-markers", json.dumps([it.strip() for it in open(arguments.markers) if it.strip()]),
    ]
    for name, file in sets.items():
        sys.argv += [f"--{name}", json.dumps({"dataset": file})]
    import heretic.main
    from heretic.config import Settings
    from heretic.utils import generate_reproduce_json

    studies, create = [], heretic.main.optuna.create_study

    def create_study(*positional, **named):
        studies.append(create(*positional, **named))
        return studies[-1]

    heretic.main.optuna.create_study = create_study
    heretic.main.prompt_select = lambda *_: ""
    heretic.main.run()
    settings = Settings.model_validate_json(studies[0].user_attrs["settings"])
    for trial in studies[0].trials:
        file = Path(arguments.scratch) / f"reproduce-{trial.number}.json"
        file.write_text(generate_reproduce_json(settings, trial, "2026-01-01T00:00:00", {}, False))
        yield file, trial.user_attrs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ablate", required=True)
    for name in ("good", "bad", "markers"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--row-normalization", default="full", choices=["none", "pre", "full"])
    parser.add_argument("--max-response-length", type=int, default=40)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--scratch", default="heretic-scratch")
    arguments = parser.parse_args()
    for name in ("model", "ablate", "good", "bad", "markers", "scratch"):
        setattr(arguments, name, os.path.abspath(getattr(arguments, name)))
    os.makedirs(arguments.scratch, exist_ok=True)
    sets = {}
    for name, file, first in (
        ("good-prompts", arguments.good, 0), ("bad-prompts", arguments.bad, 0),
        ("good-evaluation-prompts", arguments.good, 30), ("bad-evaluation-prompts", arguments.bad, 30),
    ):
        lines = [it for it in Path(file).read_text().splitlines() if it.strip()][first : first + 30]
        sets[name] = os.path.join(arguments.scratch, f"{name}.txt")
        Path(sets[name]).write_text("\n".join(lines) + "\n")
    found = []
    # All of heretic first: the two do not compete for the processor.
    for file, theirs in list(run_heretic(arguments, sets)):
        command = [arguments.ablate, "reproduce", str(file), "--json"]
        told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        refusals, divergence = (it["here"] for it in told["scores"])
        found.append({
            "refusals": [theirs["refusals"], refusals["details"]["count"]],
            "kl_divergence": [theirs["kl_divergence"], divergence["value"]],
            "relative": divergence["value"] / theirs["kl_divergence"] - 1,
        })
        assert told["scores"][0]["recorded"]["details"]["count"] == theirs["refusals"]
        assert told["scores"][1]["recorded"]["value"] == theirs["kl_divergence"]
    print(json.dumps({"mode": arguments.row_normalization, "trials": found}))


if __name__ == "__main__":
    main()
