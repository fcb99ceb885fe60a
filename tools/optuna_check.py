#!/usr/bin/env python3
"""Checks that Optuna reads a journal of ours as we do.

    cargo run -p ablate-search --example coffee -- coffee.jsonl 40 8
    python tools/optuna_check.py coffee.jsonl [--continue 5] [--dashboard]

Reads the journal twice: with `optuna.load_study`, and line by line with a replay that knows nothing but the format.
Compares trials, states, parameters, distributions, values, attributes, objectives' names and the front, which is
found here by comparing every trial with every other. With `--continue`, Optuna's own sampler then adds trials to the
same file, as it would for a user who moves between the two.

With `--dashboard`, optuna-dashboard serves the file, and what its HTTP interface answers is compared as well: objectives,
trials with states, values, parameters and attributes, and the best trials.

Needs: optuna (4.8 or 5.0); optuna-dashboard beside this Python for `--dashboard`.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import warnings

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def replay(path):
    """The only study of a journal that has no records to be passed over."""
    study, trials = {"user": {}, "system": {}}, []
    raw = open(path, "rb").read()
    assert raw.endswith(b"\n"), "the last line is incomplete"
    for line in raw.splitlines():
        record = json.loads(line)
        op = record["op_code"]
        if op == 0:
            assert "name" not in study, "a second study"
            study |= {"name": record["study_name"], "directions": record["directions"]}
        elif op in (2, 3):
            study["user" if op == 2 else "system"] |= record["user_attr" if op == 2 else "system_attr"]
        elif op == 4:
            trials.append({"params": {}, "distributions": {}, "state": 0, "values": None, "user": {}})
        elif op == 5:
            trial, distribution = trials[record["trial_id"]], json.loads(record["distribution"])
            value = record["param_value_internal"]
            if distribution["name"] == "CategoricalDistribution":
                value = distribution["attributes"]["choices"][int(value)]
            trial["params"][record["param_name"]] = value
            trial["distributions"][record["param_name"]] = distribution
        elif op == 6:
            trials[record["trial_id"]] |= {"state": record["state"], "values": record["values"]}
        elif op == 8:
            trials[record["trial_id"]]["user"] |= record["user_attr"]
        else:
            raise AssertionError(f"operation {op}")
    return study, trials


def front(trials, directions):
    signs = [1 if it == 1 else -1 for it in directions]
    losses = {i: [s * v for s, v in zip(signs, t["values"])] for i, t in enumerate(trials) if t["state"] == 1}
    return [
        i for i, a in losses.items()
        if not any(all(x <= y for x, y in zip(b, a)) and b != a for b in losses.values())
    ]


def check_dashboard(path, ours, trials):
    """Compares what optuna-dashboard answers over HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = os.path.join(os.path.dirname(sys.executable), "optuna-dashboard")
    command = [program, path, "--port", str(port), "--quiet"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def get(what):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}") as answer:
            return answer.read().decode()

    try:
        for _ in range(100):
            try:
                summaries = json.loads(get("api/studies"))["study_summaries"]
                break
            except OSError:
                assert server.poll() is None, "the dashboard ended"
                time.sleep(0.2)
        assert [it["study_name"] for it in summaries] == [ours["name"]]
        study = json.loads(get(f"api/studies/{summaries[0]['study_id']}?after=0"))
        signs = {"minimize": 1, "maximize": 2}
        assert [signs[it] for it in study["directions"]] == ours["directions"]
        assert study["objective_names"] == ours["system"]["study:metric_names"]
        states = ["Running", "Complete", "Pruned", "Fail", "Waiting"]
        assert len(study["trials"]) == len(trials)
        for shown, trial in zip(study["trials"], trials, strict=True):
            name = f"dashboard, trial {shown['number']}"
            assert shown["state"] == states[trial["state"]], name
            assert shown.get("values") == trial["values"], name
            parameters = {it["name"]: it["param_external_value"] for it in shown["params"]}
            assert parameters == {key: str(value) for key, value in trial["params"].items()}, name
            attributes = {it["key"]: it["value"] for it in shown["user_attrs"]}
            for key, value in trial["user"].items():
                # The interface cuts long attributes.
                assert json.dumps(value).startswith(attributes[key][:200]), f"{name} {key}"
        best = sorted(it["number"] for it in study["best_trials"])
        assert best == front(trials, ours["directions"])
        assert len(get(f"csv/{summaries[0]['study_id']}").splitlines()) == len(trials) + 1
        get(f"api/studies/{summaries[0]['study_id']}/param_importances")
        import optuna_dashboard

        print(f"optuna-dashboard {optuna_dashboard.__version__}: {len(trials)} trials, best {best}: all equal")
    finally:
        server.terminate()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journal")
    parser.add_argument("--continue", dest="more", type=int, default=0)
    parser.add_argument("--dashboard", action="store_true")
    arguments = parser.parse_args()
    ours, trials = replay(arguments.journal)
    storage = optuna.storages.JournalStorage(JournalFileBackend(arguments.journal))
    study = optuna.load_study(storage=storage, study_name=ours["name"])
    assert [d.value for d in study.directions] == ours["directions"]
    assert study.metric_names == ours["system"]["study:metric_names"]
    assert study.user_attrs == ours["user"]
    assert len(study.trials) == len(trials) > 0
    for theirs, trial in zip(study.trials, trials, strict=True):
        name = f"trial {theirs.number}"
        assert theirs.state.value == trial["state"], name
        assert theirs.params == trial["params"], name
        assert theirs.values == trial["values"], name
        assert theirs.user_attrs == trial["user"], name
        for parameter, distribution in theirs.distributions.items():
            written = json.loads(optuna.distributions.distribution_to_json(distribution))
            assert written == trial["distributions"][parameter], f"{name} {parameter}"
            assert distribution._contains(distribution.to_internal_repr(theirs.params[parameter])), f"{name} {parameter}"
        assert theirs.state == TrialState.RUNNING or theirs.datetime_start <= theirs.datetime_complete, name
    best = [t.number for t in study.best_trials]
    assert sorted(best) == front(trials, ours["directions"])
    print(f"optuna {optuna.__version__}: study {study.study_name!r}, {len(trials)} trials, front {sorted(best)}: all equal")
    if arguments.dashboard:
        check_dashboard(arguments.journal, ours, trials)
    if arguments.more:
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=5, multivariate=True, seed=0)
        for _ in range(arguments.more):
            trial = study.ask(study.trials[0].distributions)
            study.tell(trial, [float(trial.number), 1.0][: len(study.directions)])
        assert len(study.trials) == len(trials) + arguments.more
        print(f"optuna {optuna.__version__}: added {arguments.more} trials")


if __name__ == "__main__":
    sys.exit(main())
