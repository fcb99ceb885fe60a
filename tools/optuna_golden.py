#!/usr/bin/env python3
"""Writes the small journals of `crates/search/tests/golden`, and what Optuna makes of them.

    python tools/optuna_golden.py crates/search/tests/golden

`optuna.jsonl` has three studies with every kind of record that Optuna writes: all distributions, all states, values
that are not finite, a ready-made trial, a waiting one, constraints, a deleted study, records that a replay passes
over. `single_file.jsonl` has the structure of a study of heretic's, a tool that searches for edits of a model, with
made-up numbers. Beside each, `….expected.json` has every study as Optuna reads it.

`tpe.json` has histories with two and three objectives, and what Optuna 4.8's estimator makes of them: which trials are
good, their weights, and log l − log g at some points, multivariate and univariate.

Needs: optuna (written with 4.8).
"""

import functools
import json
import math
import pathlib
import sys
import warnings

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def storage(path):
    path.unlink(missing_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def every_kind(path):
    journal = storage(path)
    study = optuna.create_study(
        storage=journal, study_name="coffee \u2615", directions=["minimize", "maximize"],
        sampler=optuna.samplers.RandomSampler(seed=1),
    )
    study.set_metric_names(["bitterness", "strength"])
    study.set_user_attr("beans", {"origin": "\u00e9t\u00e9", "price": math.nan, "limit": -math.inf})

    def objective(trial):
        trial.suggest_float("heat", 85.0, 96.0)
        trial.suggest_float("pressure", 0.1, 15.0, log=True)
        trial.suggest_float("dose", 14.0, 22.0, step=0.25)
        trial.suggest_int("grind", 1, 12)
        trial.suggest_int("seconds", 10, 60, step=5)
        trial.suggest_int("turns", 1, 1000, log=True)
        trial.suggest_categorical("bean", ["arabica", None, True, 3, 0.5])
        trial.set_user_attr("note", "\ud83d\ude00 \"quoted\"\n")
        if trial.number == 2:
            raise optuna.TrialPruned
        if trial.number == 3:
            raise RuntimeError("the machine broke")
        return trial.params["heat"] / 7.0, math.inf if trial.number == 4 else 1.0 / (1 + trial.number)

    study.optimize(objective, n_trials=6, catch=RuntimeError)
    study.enqueue_trial({"heat": 90.0, "grind": 5})
    study.add_trial(
        create_trial(
            values=[1.0, -0.1], params={"heat": 86.5, "bean": None},
            distributions={"heat": FloatDistribution(80.0, 96.0),
                           "bean": CategoricalDistribution(["arabica", None, True, 3, 0.5])},
            user_attrs={"from": "a friend"}, system_attrs={"constraints": [0.5, -1.0]},
        )
    )
    study.ask()  # left running
    other = optuna.create_study(storage=journal, study_name="tea", direction="minimize")
    for step in range(3):
        trial = other.ask({"minutes": IntDistribution(1, 9)})
        trial.report(float(step), step)
        trial.report(math.nan, step + 1)
        other.tell(trial, float(step))
    optuna.create_study(storage=journal, study_name="water", direction="minimize").ask()
    optuna.delete_study(storage=journal, study_name="water")
    another = optuna.create_study(storage=journal, study_name="water", direction="maximize")
    another.tell(another.ask(), 1.0)
    # Written by others, and passed over by a replay: a taken name, a finished trial, a study that does not exist, a
    # parameter of another kind.
    text = json.dumps({"name": "IntDistribution", "attributes": {"log": False, "step": 1, "low": 0, "high": 9}})
    running = next(t for t in study.trials if t.state == TrialState.RUNNING)
    with open(path, "a") as file:
        for record in [
            {"op_code": 0, "study_name": "tea", "directions": [2]},
            {"op_code": 8, "trial_id": 0, "user_attr": {"late": True}},
            {"op_code": 4, "study_id": 99, "datetime_start": "2026-01-01T00:00:00.000000"},
            {"op_code": 5, "trial_id": running._trial_id, "param_name": "heat", "param_value_internal": 3.0,
             "distribution": text},
        ]:
            file.write(json.dumps({**record, "worker_id": "someone"}, separators=(",", ":")) + "\n")


def one_model(path):
    study = optuna.create_study(
        storage=storage(path), study_name="heretic", directions=["minimize", "minimize"],
        sampler=optuna.samplers.TPESampler(n_startup_trials=3, n_ei_candidates=8, multivariate=True, seed=2),
    )
    study.set_user_attr("settings", json.dumps({"model": "made/up", "n_trials": 6, "quantization": "none"}))
    study.set_user_attr("finished", False)

    def objective(trial):
        trial.set_user_attr("index", trial.number + 1)
        scope = trial.suggest_categorical("direction_scope", ["global", "per layer"])
        index = trial.suggest_float("direction_index", 3.6, 8.1)
        trial.set_user_attr("direction_index", None if scope == "per layer" else index)
        parameters = {}
        for component in ["attn.o_proj", "mlp.down_proj"]:
            parameters[component] = {
                "max_weight": trial.suggest_float(f"{component}.max_weight", 0.8, 1.5),
                "max_weight_position": trial.suggest_float(f"{component}.max_weight_position", 5.4, 9.0),
                "min_weight": trial.suggest_float(f"{component}.min_weight", 0.0, 1.0),
                "min_weight_distance": trial.suggest_float(f"{component}.min_weight_distance", 1.0, 5.4),
            }
        trial.set_user_attr("parameters", parameters)
        divergence = round(parameters["attn.o_proj"]["max_weight"] ** 2 / 3.0, 6)
        refusals = (trial.number * 7) % 5
        trial.set_user_attr("scores", [{"name": "KL divergence", "value": divergence},
                                       {"name": "Refusals", "value": refusals, "of": 5}])
        if trial.number == 4:
            raise optuna.TrialPruned  # what Ctrl+C leaves
        return divergence, refusals / 5

    study.optimize(objective, n_trials=6)
    study.set_user_attr("finished", True)


ARGSORT = np.argsort

SPACE = {
    "real": FloatDistribution(-1.0, 2.0),
    "scale": FloatDistribution(1e-4, 10.0, log=True),
    "grid": FloatDistribution(0.0, 2.0, step=0.25),
    "count": IntDistribution(1, 9),
    "size": IntDistribution(1, 500, log=True),
    "kind": CategoricalDistribution(["a", "b", "c"]),
}


def estimator(objectives):
    """One history with ties and pending trials, as Optuna 4.8 sees it.

    Optuna sorts with numpy's default, which leaves the order of equal observations to chance, and with it which of
    them gets which bandwidth in the univariate mode. Here, as in ours, the order of the trials decides.
    """
    from optuna.samplers._tpe import sampler as tpe

    np.argsort = functools.partial(ARGSORT, kind="stable")

    directions = ["minimize", "maximize", "minimize"][:objectives]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(seed=objectives))
    for place in range(93):
        trial = study.ask(SPACE)
        p = trial.params
        values = [round((p["real"] - 0.5) ** 2 + p["count"] / 9, 1), round(p["grid"] - p["real"] ** 2, 1),
                  round(abs(math.log(p["scale"])) + math.log(p["size"]), 1)]
        if place not in (60, 91, 92):
            study.tell(trial, values[:objectives])
    probes = [study.ask(SPACE).params for _ in range(12)]
    trials = [t for t in study.trials if t.number < 93]
    n = sum(t.state == TrialState.COMPLETE for t in trials)
    good, bad = tpe._split_trials(study, trials, tpe.default_gamma(n), False)
    weights = tpe._calculate_weights_below_for_multi_objective(study, good, None)
    found = {}
    for mode, spaces in [("multivariate", [SPACE]), ("univariate", [{k: v} for k, v in SPACE.items()])]:
        sampler = optuna.samplers.TPESampler(multivariate=mode == "multivariate", constant_liar=True)
        found[mode] = []
        for space in spaces:
            low = sampler._build_parzen_estimator(study, space, good, handle_below=True)
            high = sampler._build_parzen_estimator(study, space, bad, handle_below=False)
            points = {k: np.array([d.to_internal_repr(p[k]) for p in probes], dtype=float) for k, d in space.items()}
            found[mode].append((low.log_pdf(points) - high.log_pdf(points)).tolist())
    internal = lambda params: [float(d.to_internal_repr(params[k])) for k, d in SPACE.items()]
    return {
        "goals": directions,
        "trials": [{"params": internal(t.params), "values": t.values} for t in trials],
        "good": [t.number for t in good],
        "weights": weights.tolist(),
        "probes": [internal(p) for p in probes],
        "multivariate": found["multivariate"][0],
        "univariate": dict(zip(SPACE, found["univariate"])),
    }


def number(value):
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, dict):
        return {k: number(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [number(v) for v in value]
    return value


def expected(path):
    journal = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    studies = []
    for name in optuna.get_all_study_names(journal):
        study = optuna.load_study(storage=journal, study_name=name)
        front = None
        if len(study.directions) > 1:
            # Optuna 4.8 leaves trials without constraints out as soon as one has some; 5.0 takes them as feasible.
            feasible = [t for t in study.trials if sum(c for c in t.system_attrs.get("constraints", []) if c > 0) == 0]
            plain = optuna.create_study(directions=study.directions)
            plain.add_trials([t for t in feasible if t.state == TrialState.COMPLETE])
            complete = [t.number for t in feasible if t.state == TrialState.COMPLETE]
            front = sorted(complete[t.number] for t in plain.best_trials)
        studies.append({
            "name": name,
            "directions": [d.name for d in study.directions],
            "metric_names": study.metric_names,
            "user_attrs": number(study.user_attrs),
            "front": front,
            "trials": [{
                "number": t.number, "state": t.state.name, "params": number(t.params), "values": number(t.values),
                "user_attrs": number(t.user_attrs), "intermediate": number({str(k): v for k, v in t.intermediate_values.items()}),
                "start": t.datetime_start and t.datetime_start.isoformat(timespec="microseconds"),
                "complete": t.datetime_complete and t.datetime_complete.isoformat(timespec="microseconds"),
            } for t in study.trials],
        })
    return studies


def main():
    folder = pathlib.Path(sys.argv[1])
    for name, write in [("optuna", every_kind), ("single_file", one_model)]:
        path = folder / f"{name}.jsonl"
        write(path)
        (folder / f"{name}.expected.json").write_text(json.dumps(expected(path), indent=1) + "\n")
        print(path, path.stat().st_size, "bytes")
    path = folder / "tpe.json"
    path.write_text(json.dumps([estimator(2), estimator(3)]) + "\n")
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
