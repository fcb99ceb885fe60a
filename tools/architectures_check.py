"""Compares the list of architectures with those that the installed transformers generates text with.

    python tools/architectures_check.py [--write]

The list is crates/engine/src/families/architectures.json: which family reads an architecture, why it is refused, or that it
is not supported yet. Every architecture of the library's mappings for causal language models, for images and text, and for
other inputs and text has to have a line; the script names those that have none and ends with exit code 1. With --write they
get one, as not supported yet. What is not supported yet is printed in any case.
"""

import argparse
import json
import pathlib
import sys

import transformers
from transformers.models.auto import modeling_auto

LIST = pathlib.Path(__file__).resolve().parent.parent / "crates/engine/src/families/architectures.json"
MAPPINGS = [
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
]


def installed() -> set[str]:
    """The names of all architectures; some kinds of configuration have several."""
    values = [value for mapping in MAPPINGS for value in mapping.values()]
    return {name for value in values for name in ([value] if isinstance(value, str) else value)}


def with_lines(text: str, names: list[str]) -> str:
    """The list with lines for further names, in their places; every other line stays as it is."""
    lines = text.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith('  "architectures"')) + 1
    last = next(index for index in range(first, len(lines)) if lines[index].startswith("  }"))
    entries = [line.rstrip(",") for line in lines[first:last]] + [f'    "{name}": "not yet"' for name in names]
    entries.sort(key=str.lower)
    entries = [line + "," for line in entries[:-1]] + entries[-1:]
    return "\n".join([*lines[:first], *entries, *lines[last:]]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="add lines for the architectures that have none")
    arguments = parser.parse_args()

    text = LIST.read_text()
    listed = json.loads(text)
    architectures, release = listed["architectures"], transformers.__version__
    missing = sorted(installed() - set(architectures), key=str.lower)
    gone = sorted(set(architectures) - installed(), key=str.lower)
    waiting = [name for name, verdict in architectures.items() if verdict == "not yet"]

    print(f"transformers {release}; the list was made for {listed['transformers']}")
    print(f"{len(waiting)} not supported yet: {' '.join(waiting)}")
    if gone:
        print(f"{len(gone)} that this transformers does not have: {' '.join(gone)}")
    if missing and arguments.write:
        text = text.replace(f'"transformers": "{listed["transformers"]}"', f'"transformers": "{release}"')
        LIST.write_text(with_lines(text, missing))
        print(f"{len(missing)} added: {' '.join(missing)}")
    elif missing:
        print(f"{len(missing)} without a line: {' '.join(missing)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
