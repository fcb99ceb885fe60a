"""Rows of data sets: Python's `datasets` and ablate, on the same folders, files, splits and slices.

Makes data sets in every form that ablate reads, asks both for many parts of them, and compares the texts. Needs
`pip install datasets`; `cargo build -p ablate-prompts --example read_datasets` first.

    python tools/datasets_compare.py target/debug/examples/read_datasets [--cases 400] [--seed 1]
"""

import argparse
import csv
import json
import os
import random
import subprocess
import tempfile
from pathlib import Path

os.environ["HF_DATASETS_OFFLINE"] = "1"

import datasets
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, ReadInstruction, load_dataset, load_from_disk

WORDS = ["plain", "two words", "ümläut", "漢字", "😀 face", 'quo"te', "com,ma", "new\nline", "tab\there", " edges ", "NA not", "it's"]


def texts(random, count):
    return [f"{random.choice(WORDS)} {index}" for index in range(count)]


def write_jsonl(path, column, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        for index, row in enumerate(rows):
            file.write(json.dumps({"id": index, column: row}, ensure_ascii=index % 2 == 0) + "\n")


def write_csv(path, column, rows, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", column])
        writer.writerows(enumerate(rows))


def make(root, random):
    """Data sets, as (path, configuration, splits with their numbers of rows, column)."""
    made = []

    def parquet(path, rows, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        table = Dataset.from_dict({"prompt": rows, "other": rows}).data.table
        pq.write_table(table, str(path), **options)

    folder = root / "sharded"
    for split, shards in [("train", [60, 57, 3]), ("test", [41]), ("extra", [7])]:
        for number, count in enumerate(shards):
            parquet(folder / f"data/{split}-{number:05}-of-{len(shards):05}.parquet", texts(random, count))
    made.append((folder, None, {"train": 120, "test": 41, "extra": 7}, "prompt"))

    for compression in ["snappy", "gzip", "zstd", "lz4", "none"]:
        folder = root / f"parquet-{compression}"
        parquet(folder / "train.parquet", texts(random, 150), compression=compression, row_group_size=40)
        made.append((folder, None, {"train": 150}, "prompt"))

    folder = root / "jsonl"
    write_jsonl(folder / "train.jsonl", "question", texts(random, 101))
    write_jsonl(folder / "my_dev_set.jsonl", "question", texts(random, 33))
    write_jsonl(folder / "eval-2.jsonl", "question", texts(random, 12))
    made.append((folder, None, {"train": 101, "validation": 33, "test": 12}, "question"))

    folder = root / "json-list"
    folder.mkdir()
    (folder / "all.json").write_text(json.dumps([{"q": it} for it in texts(random, 25)]), encoding="utf-8")
    made.append((folder, None, {"train": 25}, "q"))

    folder = root / "csv"
    write_csv(folder / "training/b.csv", "text", texts(random, 40))
    write_csv(folder / "training/a.csv", "text", texts(random, 30))
    write_csv(folder / "x/valid-ation/c.csv", "text", texts(random, 20))
    write_csv(folder / "x/test/d.csv", "text", texts(random, 20))
    made.append((folder, None, {"train": 70, "validation": 20, "test": 20}, "text"))

    folder = root / "tsv"
    write_csv(folder / "rows.tsv", "text", [it.replace("\n", " ") for it in texts(random, 40)], "\t")
    made.append((folder, None, {"train": 40}, "text"))

    folder = root / "lines"
    folder.mkdir()
    lines = [it.replace("\n", " ") for it in texts(random, 90)]
    lines[5] = ""
    (folder / "b.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "a.txt").write_bytes("no end\r\nof line ü".encode())
    made.append((folder, None, {"train": 92}, "text"))

    folder = root / "configs"
    for name in ["hard", "easy"]:
        write_jsonl(folder / name / "one.jsonl", "q", texts(random, 20))
        write_jsonl(folder / name / "two.jsonl", "q", texts(random, 15))
    (folder / "README.md").write_text(
        "---\nlicense: mit\nconfigs:\n- config_name: hard\n  data_files:\n  - split: train\n    path: hard/*.jsonl\n"
        "- config_name: easy\n  default: true\n  data_files:\n  - split: train\n    path:\n    - easy/two.jsonl\n"
        "  - split: test\n    path: 'easy/[a-p]*.jsonl'\n---\n# text\n"
    )
    made.append((folder, "hard", {"train": 35}, "q"))
    made.append((folder, "easy", {"train": 15, "test": 20}, "q"))
    made.append((folder, None, {"train": 15, "test": 20}, "q"))

    folder = root / "mixed"
    write_csv(folder / "train.csv", "text", texts(random, 10))
    write_csv(folder / "test.csv", "text", texts(random, 11))
    (folder / "notes.txt").write_text("not data\n")
    (folder / ".hidden.csv").write_text("text\nno\n")
    made.append((folder, None, {"train": 10, "test": 11}, "text"))

    folder = root / "saved"
    rows = Dataset.from_dict({"prompt": texts(random, 130)})
    rows.select(range(10, 110)).save_to_disk(folder, num_shards=3)
    made.append((folder, None, {"": 100}, "prompt"))
    folder = root / "saved-dict"
    DatasetDict({"train": rows, "test": rows.shuffle(seed=1).select(range(30))}).save_to_disk(folder)
    made.append((folder / "train", None, {"": 130}, "prompt"))
    made.append((folder / "test", None, {"": 30}, "prompt"))
    return made


def bound(random, percent):
    number = random.choice([random.randint(0, 100), random.randint(-100, 100)])
    return random.choice(["", f"{number}{'%' if percent else ''}"])


def part(random, name):
    if random.random() < 0.2:
        return name
    percent = random.random() < 0.5
    rounding = "(pct1_dropremainder)" if percent and random.random() < 0.2 else ""
    # Where the bounds cross, nothing is selected, and Python answers with rows from elsewhere: not asked.
    first, second = bound(random, percent), bound(random, percent)
    numbers = [int(it.strip("%")) for it in (first, second) if it]
    crossing = len(numbers) == 2 and ((numbers[0] < 0) != (numbers[1] < 0) or numbers[0] > numbers[1])
    return f"{name}[{first}:{'' if crossing else second}]{rounding}"


def expected(case, cache):
    """What Python says, the way that heretic asks."""
    path = Path(case["dataset"])
    if (path / "state.json").exists():
        rows = load_from_disk(str(path))
        whole = ReadInstruction.from_spec(case["split"]).to_absolute({"train": len(rows)})
        texts = [it for cut in whole for it in rows[cut.from_ : cut.to][case["column"]]]
    else:
        texts = list(
            load_dataset(str(path), case["config"], split=case["split"], cache_dir=cache)[case["column"]]
        )
    return texts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder), generator)
        cases = []
        for number in range(arguments.cases):
            path, config, splits, column = made[number % len(made)]
            # A saved data set is one split, whatever it is called.
            names = [it or "train" for it in splits]
            parts = [part(generator, generator.choice(names)) for _ in range(generator.choice([1, 1, 1, 2, 3]))]
            cases.append({"dataset": str(path), "config": config, "split": "+".join(parts), "column": column})
        (Path(folder) / "cases.json").write_text(json.dumps(cases))
        output = subprocess.run([arguments.program, f"{folder}/cases.json"], capture_output=True, text=True, check=True)
        found = json.loads(output.stdout)
        counts = {"same texts": 0, "a rounding that only Python refuses": 0, "refused by both, or empty": 0, "different": 0}
        rows = 0
        for case, ours in zip(cases, found):
            refused = None
            try:
                theirs = expected(case, f"{folder}/cache")
            except Exception as error:
                theirs, refused = [], str(error)
            if refused and "prompts" in ours and ("rounding" in refused or "unit" in refused):
                # Python refuses a rounding beside bounds that need none, and two roundings in one split.
                counts["a rounding that only Python refuses"] += 1
                continue
            # No prompt at all is an error here.
            if not theirs and "error" in ours:
                counts["refused by both, or empty"] += 1
            elif ours.get("prompts") == theirs:
                counts["same texts"] += 1
                rows += len(theirs)
            else:
                counts["different"] += 1
                print("different:", case, {it: str(ours[it])[:200] for it in ours}, "instead of", refused or str(theirs)[:200])
        print(f"datasets {datasets.__version__}:", ", ".join(f"{count} {what}" for what, count in counts.items()), f"({rows} rows)")
        raise SystemExit(counts["different"] > 0)


if __name__ == "__main__":
    main()
