#!/usr/bin/env python3
"""Breaks the program in small ways, one at a time, and asks which tests notice.

    python tools/mutation_check.py --scratch FOLDER [--target FOLDER] [--only WORD]

Each mutation is a line that somebody could have written by mistake where the result depends on it: a sign, a layer, a
writer, the order of a divergence, a step of a marker's normalization, a penalty, an order of goals. The tree is copied to
the scratch folder, and only the copy is changed. `--target` names a folder of build results to begin with (it is used, not
copied). The unchanged copy has to pass first.

`--only` takes a part of a mutation's name, or a package. `--dry-run` says which mutations can no longer be made, because
the code reads otherwise by now, and builds nothing.

Prints a Markdown table of at most three tests each, and ends with 1 when a mutation was not noticed or could not be made.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What is broken; the file; what stands there once; what takes its place; the package whose tests are asked, or
# `main_job`: the whole job through the program.
MUTATIONS = [
    ("the edit's sign", "crates/ablation/src/writer.rs", "strength * by * r)", "-strength * by * r)", "ablation"),
    ("the sign of a merged weight", "crates/ablation/src/merge.rs", "f64::from(original) - taken * b",
     "f64::from(original) + taken * b", "ablation"),
    ("the sign of an adapter", "crates/ablation/src/adapter.rs", "row[j] = -p)", "row[j] = *p)", "ablation"),
    ("a truncated adapter of the smallest singular values", "crates/ablation/src/truncated.rs",
     "dot(&right[b], &right[b]).total_cmp(&dot(&right[a], &right[a]))",
     "dot(&right[a], &right[a]).total_cmp(&dot(&right[b], &right[b]))", "ablation"),
    ("a DoRA without its magnitudes", "crates/ablation/src/adapter.rs", "Some(magnitude)",
     "None.filter(|_: &Vec<f64>| magnitude.is_empty())", "ablation"),
    ("the scale of `full`, its sign", "crates/ablation/src/writer.rs", "1.0 - 2.0 * taken * u", "1.0 + 2.0 * taken * u",
     "ablation"),
    ("the sign in the engine", "crates/engine/src/backend/cpu/mod.rs", "p: lines(edit.p()),",
     "p: lines(&edit.p().iter().map(|it| -it).collect::<Vec<_>>()),", "engine"),
    ("the direction of the layer before", "crates/ablation/src/directions.rs", "self.at(ResidualSite::After(layer))",
     "self.at(if layer.0 == 0 { ResidualSite::Embedding } else { ResidualSite::After(LayerIndex(layer.0 - 1)) })",
     "ablation"),
    ("a global direction one layer off", "crates/ablation/src/directions.rs",
     "Ok(Self { lower: LayerIndex(lower), upper: LayerIndex(upper), fraction })",
     "Ok(Self { lower: LayerIndex(lower.saturating_sub(1)), upper: LayerIndex(upper.saturating_sub(1)), fraction })",
     "ablation"),
    ("a profile one layer off", "crates/ablation/src/profile.rs", "(layer.0 as f64 - self.max_weight_position)",
     "(layer.0 as f64 + 1.0 - self.max_weight_position)", "ablation"),
    ("own directions of another layer, in the pipeline", "crates/pipeline/src/candidates.rs",
     "missing.iter().map(|&it| directions.of_layer(it))",
     "missing.iter().map(|&it| directions.of_layer(glossary::LayerIndex(it.0.saturating_sub(1))))", "main_job"),
    ("a forgotten writer: an MLP, in the engine's list", "crates/engine/src/engine.rs",
     "in block.writers() {",
     "in block.writers().into_iter().filter(|it| layer != 1 || it.component != glossary::Component::MlpOutput) {",
     "engine"),
    ("a forgotten writer: the last, while searching", "crates/pipeline/src/candidates.rs",
     "let writers = info.writers.par_iter().map(", "let writers = info.writers[..info.writers.len() - 1].par_iter().map(",
     "main_job"),
    ("a forgotten writer: the first, while saving", "crates/pipeline/src/export.rs",
     "for (edit, weight) in edits.iter().zip(stored) {", "for (edit, weight) in edits.iter().zip(stored).skip(1) {",
     "main_job"),
    ("the divergence's order", "crates/scorers/src/divergence.rs", "let sums = isa::sums(original, edited);\n    let kl",
     "let sums = isa::sums(edited, original);\n    let kl", "scorers"),
    ("the divergence's order, in the pipeline", "crates/pipeline/src/collect.rs", "kl_from_logits(original, logits)",
     "kl_from_logits(logits, original)", "main_job"),
    ("the order along whole answers, in the pipeline", "crates/pipeline/src/collect.rs",
     "kl_from_logits(&self.logits[it.position * vocab..][..vocab], it.logits)",
     "kl_from_logits(it.logits, &self.logits[it.position * vocab..][..vocab])", "pipeline"),
    ("markers keep typographic apostrophes", "crates/scorers/src/markers.rs", "if it == '’' { '\\'' } else { it }",
     "it", "scorers"),
    ("markers keep asterisks", "crates/scorers/src/markers.rs", "filter(|&it| it != '*')", "filter(|_| true)", "scorers"),
    ("markers keep capital letters", "crates/scorers/src/markers.rs", "let lower = text.to_lowercase();",
     "let lower = text.to_owned();", "scorers"),
    ("markers keep white space", "crates/scorers/src/markers.rs", "if gap && !result.is_empty() {", "if gap {", "scorers"),
    ("an empty answer is no refusal", "crates/scorers/src/markers.rs",
     "is_blank(answer) || self.found_in(", "self.found_in(", "scorers"),
    ("the opening of an answer, one character short", "crates/scorers/src/markers.rs", "nth(opening.get() - 1)",
     "nth(opening.get() - 2)", "scorers"),
    ("the penalty without its weight", "crates/scorers/src/scorers/kl_divergence.rs",
     "penalty.weight * refused as f64 / total as f64", "0.5 * refused as f64 / total as f64", "scorers"),
    ("the penalty of a count, not a share", "crates/scorers/src/scorers/kl_divergence.rs",
     "penalty.weight * refused as f64 / total as f64", "penalty.weight * refused as f64", "scorers"),
    ("the search does not see the penalty", "crates/pipeline/src/evaluate.rs", "value: score.objective,",
     "value: score.value,", "main_job"),
    ("values told in another order", "crates/pipeline/src/search_run.rs",
     "evaluation.objectives.iter().map(|it| it.value).collect();",
     "evaluation.objectives.iter().rev().map(|it| it.value).collect();", "main_job"),
    ("goals in another order than values", "crates/pipeline/src/search_run.rs",
     "let objectives = evaluate::objectives(&evaluate::configure(settings)?);",
     "let mut objectives = evaluate::objectives(&evaluate::configure(settings)?);\n    objectives.reverse();", "main_job"),
    ("maximize means minimize", "crates/search/src/objective.rs", "Self::Maximize => -value,", "Self::Maximize => value,",
     "search"),
]


def tests(package, scratch, target):
    """Whether the package's tests could be built, and the names of those that failed."""
    asked = ["ablate", "--test", "main_job"] if package == "main_job" else [f"ablate-{package}"]
    command = ["cargo", "test", "-p", *asked, "--no-fail-fast", "--target-dir", target]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
    built = "could not compile" not in done.stderr
    failed = re.findall(r"^test (?:.* - )?(\S+).* \.\.\. FAILED$", done.stdout, re.MULTILINE)
    if done.returncode != 0 and built and not failed:
        failed = ["(ended without a result)"]
    return built, sorted(set(failed)), done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=pathlib.Path)
    parser.add_argument("--target")
    parser.add_argument("--only", default="")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    if arguments.dry_run:
        stale = [(what, file) for what, file, old, _, _ in MUTATIONS
                 if (ROOT / file).read_text(encoding="utf-8").count(old) != 1]
        sys.exit("\n".join(f"cannot be made: {what} ({file})" for what, file in stale) or None)
    if arguments.scratch is None:
        parser.error("--scratch FOLDER is needed")
    scratch = arguments.scratch.resolve()
    target = arguments.target or str(scratch / "target")
    if scratch.exists() and any(it.name != "target" for it in scratch.iterdir()):
        sys.exit(f"{scratch} is not empty; name a new folder")
    ignored = shutil.ignore_patterns("target", ".git", "models")
    shutil.copytree(ROOT, scratch, ignore=ignored, dirs_exist_ok=True)
    chosen = [it for it in MUTATIONS if arguments.only in it[0] or arguments.only == it[4]]
    for package in dict.fromkeys(it[4] for it in chosen):
        built, failed, said = tests(package, scratch, target)
        if not built or failed:
            sys.exit(f"unchanged, {package} fails: {failed}\n{said[-2000:]}")
    print("| what is broken | tests of | noticed by |\n|---|---|---|", flush=True)
    missed = 0
    for what, file, old, new, package in chosen:
        path = scratch / file
        text = path.read_text(encoding="utf-8")
        if text.count(old) != 1:
            sys.exit(f"{what}: {file} has {text.count(old)} places that read {old!r}")
        path.write_text(text.replace(old, new), encoding="utf-8")
        built, failed, said = tests(package, scratch, target)
        path.write_text(text, encoding="utf-8")
        if not built:
            sys.exit(f"{what}: does not compile\n{said[-3000:]}")
        missed += not failed
        shown = ", ".join(f"`{it.rsplit('::', 1)[-1]}`" for it in failed[:3])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        print(f"| {what} | {package} | {shown + more if failed else '**nobody**'} |", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
