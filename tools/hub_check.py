"""The hub's own Python clients and ablate against one hub on this machine, and against one cache.

First Python's client is asked to be content with the local hub (so that it speaks the protocol), then each client
finds what the other has downloaded, then what ablate uploaded is read by Python's client. Needs
`pip install huggingface_hub datasets`; first
`cargo build -p ablate -p ablate-hub -p ablate-prompts --bin ablate --example serve --example read_datasets`.

    python tools/hub_check.py target/debug
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOKEN = "hf_right_token_of_the_test"
DEMO = Path(__file__).parent.parent / "demo"


def tree(root):
    """The cache as it lies: files with their contents, links with where they lead."""
    found = {}
    for path in sorted(Path(root).rglob("*")):
        name = str(path.relative_to(root))
        # Listings under `trees` are Python's own: what it knows without asking again.
        if any(it in name for it in [".locks", "CACHEDIR.TAG", "/trees/"]) or path.is_dir():
            continue
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes()
    return found


class Check:
    def __init__(self):
        self.failed = 0

    def __call__(self, what, right):
        print("ok    " if right else "FAILED", what)
        self.failed += not right


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", help="target/debug or target/release")
    arguments = parser.parse_args()
    build = Path(arguments.build).resolve()
    work = Path(tempfile.mkdtemp())
    hub = work / "hub"
    for name in ["owner/toy", "owner/private-toy", "owner/gated-toy"]:
        shutil.copytree(DEMO / "model", hub / "models" / name)
    (hub / "models/owner/toy/pytorch_model.bin").write_bytes(b"x" * 50_000)
    data = hub / "datasets/owner/prompts"
    data.mkdir(parents=True)
    for split, file in [("train", "refused_train"), ("test", "refused_eval")]:
        lines = (DEMO / f"prompts/{file}.txt").read_text().splitlines()
        rows = [json.dumps({"id": index, "text": line}) for index, line in enumerate(lines)]
        (data / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    server = subprocess.Popen([build / "examples/serve", hub], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    endpoint = server.stdout.readline().strip()
    os.environ |= {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(work / "python")}
    import datasets
    import huggingface_hub
    from huggingface_hub import HfApi, snapshot_download

    datasets.disable_progress_bars()
    check = Check()
    environment = {it: value for it, value in os.environ.items() if not it.startswith(("HF_", "ABLATE_"))}

    def ablate(*words, **more):
        variables = environment | {"HF_ENDPOINT": endpoint, "HF_HOME": str(work / "ours")} | more
        return subprocess.run([build / "ablate", *words], capture_output=True, text=True, env=variables)

    def generate(model, **more):
        return ablate("generate", model, "--prompt", "What is the color of the sky?", "--max-tokens", "8", **more)

    try:
        patterns = ["*.json", "*.safetensors"]
        theirs = snapshot_download("owner/toy", allow_patterns=patterns)
        check("Python's client downloads from the local hub", (Path(theirs) / "config.json").exists())
        local = generate(str(DEMO / "model"))
        ours = generate("owner/toy")
        check("ablate answers with a model of the hub as with the folder", ours.returncode == 0 and ours.stdout == local.stdout)
        check("only the files needed were downloaded", not any("pytorch_model" in it for it in tree(work / "ours/hub")))
        own, python = tree(work / "ours/hub"), tree(work / "python/hub")
        differ = {it for it in own.keys() | python.keys() if own.get(it) != python.get(it)}
        check(f"both caches are the same, file for file and link for link {differ or ''}", not differ)
        shared = generate("owner/toy", HF_HOME=str(work / "python"), HF_HUB_OFFLINE="1")
        check("ablate finds offline what Python's client downloaded", shared.stdout == local.stdout)
        code = "from huggingface_hub import snapshot_download; print(snapshot_download('owner/toy'))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                               env=os.environ | {"HF_HOME": str(work / "ours"), "HF_HUB_OFFLINE": "1"})
        check("Python's client finds offline what ablate downloaded", str(work / "ours") in found.stdout)

        for name, word in [("owner/private-toy", "private"), ("owner/gated-toy", "gated"), ("owner/nothing", "is not on")]:
            said = generate(name, HF_TOKEN="hf_wrong_secret" if name == "owner/nothing" else "")
            check(f"{name} is refused with an explanation", said.returncode == 1 and (word in said.stderr or "token" in said.stderr))
            check("  without the token", "hf_wrong_secret" not in said.stderr + said.stdout)
        for name in ["owner/private-toy", "owner/gated-toy"]:
            check(f"{name} is there for its owner", generate(name, HF_TOKEN=TOKEN).stdout == local.stdout)

        cases = [{"dataset": "owner/prompts", "split": split, "column": "text"}
                 for split in ["train", "test", "train[:10]", "test[10%:20%]", "train[:3]+test[-3:]", "train[-25%:]"]]
        (work / "cases.json").write_text(json.dumps(cases))
        variables = environment | {"HF_ENDPOINT": endpoint, "HF_HOME": str(work / "ours")}
        output = subprocess.run([build / "examples/read_datasets", work / "cases.json"], capture_output=True, text=True, env=variables)
        commit = HfApi().dataset_info("owner/prompts").sha
        for case, found in zip(cases, json.loads(output.stdout)):
            expected = list(datasets.load_dataset("owner/prompts", split=case["split"])["text"])
            check(f"{case['split']}: the same {len(expected)} prompts, at the same commit", found == {"prompts": expected, "commit": commit})

        edited = work / "edited"
        run = ["run", "owner/toy", "--good-prompts", "embedded:demo-answered-train", "--bad-prompts.dataset", "owner/prompts",
               "--bad-prompts.split", "train", "--bad-prompts.column", "text", "--refusal-prompts.dataset", "owner/prompts",
               "--refusal-prompts.split", "test[:32]", "--refusal-prompts.column", "text",
               "--kl-prompts", "embedded:demo-answered-eval[:32]", "--max-response-length", "16", "--batch-size", "64",
               "--response-prefix", "", "--trials", "12", "--startup-trials", "6", "--study", str(work / "study.jsonl"),
               "--pick", "min refusals", "--save", str(edited), "--upload", "tester/edited", "--upload-repo-private"]
        done = ablate(*run, HF_TOKEN=TOKEN)
        check("a run with model and prompts of the hub, uploaded", done.returncode == 0)
        if done.returncode:
            print(done.stderr)
        check("  the commits are in the study", commit in (work / "study.jsonl").read_text())
        check("  no token in what was said or written", TOKEN not in done.stderr + done.stdout + (work / "study.jsonl").read_text())
        api = HfApi(token=TOKEN)
        info = api.model_info("tester/edited")
        theirs = Path(snapshot_download("tester/edited", token=TOKEN))
        same = {it.name: it.read_bytes() for it in edited.iterdir()} == {it.name: it.read_bytes() for it in theirs.iterdir()}
        check("Python's client reads what was uploaded, byte for byte", info.private and same)
        tags = huggingface_hub.ModelCard.load(theirs / "README.md").data.tags
        check(f"  its card has tags: {tags}", "abliterated" in tags)
        made = ["tester/made" if it == "tester/edited" else it for it in run if it != "--upload-repo-private"]
        done = ablate(*made[:-4], "--no-upload-repo-private", "--reproduction", "full", *made[-2:], HF_TOKEN=TOKEN)
        check("a public upload with what was noted of it", done.returncode == 0)
        listed = [it.id for it in HfApi().list_models(filter=["ablate", "reproducible"], expand=["gated", "tags"])]
        check(f"  Python's client lists it by its tags: {listed}", listed == ["tester/made"])
        [info] = api.get_paths_info("tester/made", "reproduce/reproduce.json", expand=True)
        done = ablate("collect", str(work / "gathered"), HF_TOKEN="")
        [gathered] = (work / "gathered").rglob("*.json")
        check("  `collect` finds it, and names it for the commit that Python's client sees",
              gathered.name == f"made-{info.last_commit.oid[:7]}.json" and gathered.parts[-2] == "tester")
        again = ablate("reproduce", f"{endpoint}/tester/made/blob/main/reproduce/reproduce.json", "--json", HF_TOKEN="")
        check("  it is made again, bit for bit", again.returncode == 0 and json.loads(again.stdout)["same"])
        refused = ablate(*run, HF_TOKEN="hf_wrong_secret")
        check("an upload without the right to it is refused before the work", refused.returncode == 1 and "hf_wrong_secret" not in refused.stderr)
    finally:
        server.stdin.close()
        server.wait()
        shutil.rmtree(work)
    print(f"huggingface_hub {huggingface_hub.__version__}, datasets {datasets.__version__}: {check.failed} failed")
    raise SystemExit(check.failed > 0)


if __name__ == "__main__":
    main()
