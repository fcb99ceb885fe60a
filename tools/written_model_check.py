"""Reads models that were written by `rewrite` (an example of the crate ablate-checkpoint) with the reference readers.

    cargo run -p ablate-checkpoint --example rewrite -- INPUT OUTPUT TENSOR [SHARD_SIZE]
    python tools/written_model_check.py INPUT OUTPUT TENSOR [--generate]

INPUT and OUTPUT are folders or GGUF files. Checks that every tensor but TENSOR has the same bytes, type and shape, that
TENSOR is doubled, and that the model loads: a folder with transformers, a GGUF file with gguf's reader, and with llama.cpp
where --generate is given. Prints what it compared and fails at the first difference.
"""

import argparse
import pathlib

import numpy as np


def folder_tensors(folder: pathlib.Path) -> dict:
    from safetensors import safe_open

    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as opened:
            assert (opened.metadata() or {}).get("format") == "pt", f"{file}: {opened.metadata()}"
            tensors |= {name: opened.get_tensor(name) for name in opened.keys()}
    return tensors


def check_folder(before: pathlib.Path, after: pathlib.Path, doubled: str) -> None:
    import torch
    import transformers

    old, new = folder_tensors(before), folder_tensors(after)
    assert old.keys() == new.keys(), old.keys() ^ new.keys()
    for name, tensor in old.items():
        found = new[name]
        assert (tensor.dtype, tensor.shape) == (found.dtype, found.shape), name
        expected = 2 * tensor if name == doubled else tensor
        assert torch.equal(expected.view(torch.uint8), found.view(torch.uint8)), name
    for file in before.rglob("*"):
        if file.is_file() and "safetensors" not in file.name:
            assert (after / file.relative_to(before)).read_bytes() == file.read_bytes(), file
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        after, dtype="auto", output_loading_info=True
    )
    assert not any(report.get(key) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    loaded = dict(model.named_parameters())[doubled]
    assert torch.equal(loaded, 2 * old[doubled]), "the loaded model has other numbers"
    with torch.no_grad():
        assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()
    shards = len(list(after.glob("*.safetensors")))
    print(f"{after}: {len(old)} tensors in {shards} file(s) as expected, loaded as {type(model).__name__}")


def check_gguf(before: pathlib.Path, after: pathlib.Path, doubled: str, generate: bool) -> None:
    import gguf
    from gguf.quants import dequantize

    old, new = gguf.GGUFReader(before), gguf.GGUFReader(after)
    own = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}
    for key in [key for key in old.fields if key not in own]:
        assert [bytes(it) for it in old.fields[key].parts] == [bytes(it) for it in new.fields[key].parts], key
    assert list(old.fields) == list(new.fields)
    assert [it.name for it in old.tensors] == [it.name for it in new.tensors]
    for was, now in zip(old.tensors, new.tensors):
        assert list(was.shape) == list(now.shape), was.name
        if was.name == doubled:
            numbers = dequantize(was.data, was.tensor_type).astype(np.float64)
            found = dequantize(now.data, now.tensor_type)
            assert np.array_equal((2 * numbers).astype(np.float16).astype(np.float32), found), was.name
            print(f"{doubled}: {was.tensor_type.name} became {now.tensor_type.name}")
        else:
            assert was.tensor_type == now.tensor_type and was.data.tobytes() == now.data.tobytes(), was.name
    print(f"{after}: {len(old.tensors)} tensors and {len(old.fields)} fields as expected")
    if generate:
        import llama_cpp

        model = llama_cpp.Llama(str(after), n_ctx=64, n_threads=1, verbose=False)
        print("llama.cpp:", model("The capital of France is", max_tokens=8, temperature=0)["choices"][0]["text"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=pathlib.Path)
    parser.add_argument("after", type=pathlib.Path)
    parser.add_argument("doubled")
    parser.add_argument("--generate", action="store_true")
    options = parser.parse_args()
    if options.before.is_dir():
        check_folder(options.before, options.after, options.doubled)
    else:
        check_gguf(options.before, options.after, options.doubled, options.generate)


if __name__ == "__main__":
    main()
