#!/usr/bin/env python3
"""Side by side with Optuna: hypervolume after 200 trials on five problems, ten seeds each.

    python tools/optuna_compare.py optuna --seeds 10 > optuna.jsonl
    cargo run --release -p ablate-search --example compare -- --seeds 10 > ours.jsonl
    python tools/optuna_compare.py table optuna.jsonl ours.jsonl

Each line of the two files is one run: problem, sampler, seed, hypervolume, seconds. `table` prints mean, standard
deviation and standard error, and for every row of ours the difference to Optuna's mean in units of Optuna's standard
error. `check` compares the problems themselves, which both languages define: it reads points from the Rust example
and recomputes their values.

    cargo run --release -p ablate-search --example compare -- --points | python tools/optuna_compare.py check

Start-up 60 trials, 128 candidates. The problems, all minimized, with their reference points:

- zdt1, zdt2: ten parameters in [0, 1]; references (1.1, 5) and (1.1, 6), about where random points lie: with the
  customary (1.1, 1.1) nothing that 200 trials reach would count.
- dtlz2: seven parameters in [0, 1], three objectives; reference (2, 2, 2).
- edit_a, edit_b: the ten parameters of a search for a direction's removal in a decoder of 32 layers, with a made-up
  answer; reference (1, 1). See `edit`.

Needs: optuna 4.8, numpy.
"""

import argparse
import json
import math
import statistics
import sys
import time

TRIALS, STARTUP, CANDIDATES = 200, 60, 128
LAYERS = 32
REFERENCE = {"zdt1": (1.1, 5.0), "zdt2": (1.1, 6.0), "dtlz2": (2.0, 2.0, 2.0), "edit_a": (1.0, 1.0), "edit_b": (1.0, 1.0)}


def space(problem):
    """Name, kind and bounds of every parameter."""
    if problem in ("zdt1", "zdt2"):
        return [(f"x{i}", "float", 0.0, 1.0) for i in range(10)]
    if problem == "dtlz2":
        return [(f"x{i}", "float", 0.0, 1.0) for i in range(7)]
    last = LAYERS - 1.0
    parameters = [
        ("direction_scope", "choice", ["global", "per layer"]),
        ("direction_index", "float", 0.4 * last, 0.9 * last),
    ]
    for component, least in (("attn.o_proj", 0.8), ("mlp.down_proj", -0.25)):
        parameters += [
            (f"{component}.max_weight", "float", least, 1.5),
            (f"{component}.max_weight_position", "float", 0.6 * last, last),
            (f"{component}.min_weight", "float", 0.0, 1.0),
            (f"{component}.min_weight_distance", "float", 1.0, 0.6 * last),
        ]
    return parameters


def evaluate(problem, p):
    if problem in ("zdt1", "zdt2"):
        x = [p[f"x{i}"] for i in range(10)]
        g = 1.0 + sum(x[1:])
        ratio = x[0] / g
        return [x[0], g * (1.0 - (math.sqrt(ratio) if problem == "zdt1" else ratio * ratio))]
    if problem == "dtlz2":
        x = [p[f"x{i}"] for i in range(7)]
        g = sum((it - 0.5) ** 2 for it in x[2:])
        a, b = x[0] * math.pi / 2.0, x[1] * math.pi / 2.0
        return [(1.0 + g) * math.cos(a) * math.cos(b), (1.0 + g) * math.cos(a) * math.sin(b), (1.0 + g) * math.sin(a)]
    return edit(p, mlp_share=0.35 if problem == "edit_a" else 0.05)


def edit(p, mlp_share):
    """Removing a direction, as far as its objectives go.

    Layer l's share of the behaviour is a bell around layer 18 of width 5. What a component removes there is its
    strength times that share, capped at 1: more strength than 1 does not remove more. A global direction removes
    less the further its index lies from 17; each layer's own direction always removes 0.9 of it. Refusals are a
    sigmoid of what is left, rounded to hundredths, as a count over a hundred prompts is. The damage grows with the
    squared strengths, more in the last layers.
    """
    scope = 0.9 if p["direction_scope"] == "per layer" else math.exp(-(((p["direction_index"] - 17.0) / 8.0) ** 2))
    removed = damage = 0.0
    for component, share in (("attn.o_proj", 1.0 - mlp_share), ("mlp.down_proj", mlp_share)):
        most = max(p[f"{component}.max_weight"], 0.0)
        position = p[f"{component}.max_weight_position"]
        least = p[f"{component}.min_weight"] * most
        reach = p[f"{component}.min_weight_distance"]
        for layer in range(LAYERS):
            distance = abs(layer - position)
            if distance > reach:
                continue
            strength = most + (least - most) * distance / reach
            bell = math.exp(-(((layer - 18.0) / 5.0) ** 2)) / 8.862
            removed += share * bell * min(strength, 1.0) * scope
            damage += 0.02 * strength * strength * (1.0 + 2.0 * (layer / (LAYERS - 1.0)) ** 4)
    refusals = 1.0 / (1.0 + math.exp(-12.0 * (0.55 - removed)))
    return [math.floor(100.0 * refusals + 0.5) / 100.0, damage]


def hypervolume(values, reference):
    import numpy as np
    from optuna._hypervolume import compute_hypervolume

    inside = [v for v in values if all(a < r for a, r in zip(v, reference))]
    return float(compute_hypervolume(np.array(inside), np.array(reference))) if inside else 0.0


def run_optuna(arguments):
    import warnings

    import optuna

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
        "multivariate": lambda seed: optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, n_ei_candidates=CANDIDATES, multivariate=True, seed=seed
        ),
        "univariate": lambda seed: optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, n_ei_candidates=CANDIDATES, seed=seed
        ),
        "nsga2": lambda seed: optuna.samplers.NSGAIISampler(population_size=20, seed=seed),
    }
    for problem in arguments.problems:

        def objective(trial):
            p = {}
            for name, kind, *rest in space(problem):
                p[name] = trial.suggest_categorical(name, *rest) if kind == "choice" else trial.suggest_float(name, *rest)
            return evaluate(problem, p)

        for sampler in arguments.samplers:
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                study = optuna.create_study(
                    directions=["minimize"] * len(REFERENCE[problem]), sampler=samplers[sampler](seed)
                )
                start = time.perf_counter()
                study.optimize(objective, n_trials=TRIALS)
                seconds = time.perf_counter() - start
                volume = hypervolume([t.values for t in study.trials], REFERENCE[problem])
                line = {"problem": problem, "sampler": f"optuna {optuna.__version__} {sampler}", "seed": seed,
                        "hypervolume": volume, "seconds": seconds}
                print(json.dumps(line), flush=True)


def table(arguments):
    runs = {}
    for path in arguments.files:
        for line in open(path):
            run = json.loads(line)
            runs.setdefault(run["problem"], {}).setdefault(run["sampler"], []).append(run["hypervolume"])
    for problem, samplers in runs.items():
        print(f"\n{problem}, reference {REFERENCE[problem]}")
        peer = next((v for k, v in samplers.items() if k.startswith("optuna 4.8") and k.endswith("multivariate")), None)
        for sampler, volumes in samplers.items():
            mean, n = statistics.mean(volumes), len(volumes)
            sd = statistics.stdev(volumes) if n > 1 else 0.0
            row = f"  {sampler:34} n={n:3}  mean {mean:.4f}  sd {sd:.4f}  se {sd / n**0.5:.4f}"
            if peer and len(peer) > 1 and not sampler.startswith("optuna"):
                error = statistics.stdev(peer) / len(peer) ** 0.5
                row += f"  {(mean - statistics.mean(peer)) / error:+.1f} se of Optuna"
            print(row)


def check(_):
    worst, count = 0.0, 0
    for line in sys.stdin:
        point = json.loads(line)
        ours, theirs = point["values"], evaluate(point["problem"], point["params"])
        worst = max(worst, *(abs(a - b) for a, b in zip(ours, theirs, strict=True)))
        count += 1
    print(f"{count} points, largest difference {worst:.1e}")
    sys.exit(0 if count > 0 and worst < 1e-12 else 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    optuna = commands.add_parser("optuna")
    optuna.add_argument("--seeds", type=int, default=10)
    optuna.add_argument("--first-seed", type=int, default=0)
    optuna.add_argument("--problems", nargs="+", default=list(REFERENCE))
    optuna.add_argument("--samplers", nargs="+", default=["multivariate"])
    optuna.set_defaults(run=run_optuna)
    tabled = commands.add_parser("table")
    tabled.add_argument("files", nargs="+")
    tabled.set_defaults(run=table)
    commands.add_parser("check").set_defaults(run=check)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
