"""GGUF files of the tiny golden checkpoints, as llama.cpp's own converter makes them.

    python tools/golden_gguf.py LLAMA_CPP [OUT_DIR] [--only NAME ...]

LLAMA_CPP is a checkout of llama.cpp (its `conversion` package and `gguf-py` are imported, nothing is built); the golden
checkpoints of golden_tiny.py must be there. Writes OUT_DIR/NAME.gguf (default: crates/engine/tests/golden_gguf), with
weights in the precision of the checkpoint and a vocabulary of made-up tokens: the checkpoints have no tokenizer.

A test loads each file and compares with its checkpoint bit for bit, so that names, orders of rows and what is folded
into a weight are those of the converter and not of our memory of it.
"""

import argparse
import json
import pathlib
import sys
import tempfile

NAMES = [
    "llama_gqa_tied",
    "llama_untied_bias",
    "llama3_rope",
    "smollm3_usual",
    "qwen2_tied",
    "qwen2_yarn",
    "qwen3_tied",
    "qwen3_bias",
    "gemma2_usual",
    "gemma3_usual",
    "phi3",
    "phi3_long",
    "olmo2",
    "olmo3",
    "granite",
    "granite_bias",
    "glm4",
    "glm4_plain",
    "cohere",
    "cohere_qk_norm",
    "cohere2",
    "exaone4",
    "exaone4_whole",
    "qwen3_moe",
    "mixtral",
    "gpt_oss_blocks",
    "qwen2_moe",
    "olmoe",
    "granitemoe",
    "granitemoe_shared",
    "glm4_moe",
    "dots1",
    "lfm2",
    "lfm2_moe_usual",
]


def convert(folder: pathlib.Path, out: pathlib.Path) -> None:
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    hparams = ModelBase.load_hparams(folder, False)
    model_class = get_model_class(get_model_architecture(hparams, ModelType.TEXT), mmproj=False)
    vocab = hparams.get("text_config", hparams)["vocab_size"]

    def made_up_vocabulary(self) -> None:
        self.gguf_writer.add_tokenizer_model("llama")
        self.gguf_writer.add_token_list([f"<{index}>" for index in range(vocab)])
        self.gguf_writer.add_token_scores([0.0] * vocab)
        self.gguf_writer.add_token_types([1] * vocab)

    made_up = type(model_class.__name__, (model_class,), {"model_arch": model_class.model_arch, "set_vocab": made_up_vocabulary})
    dtype = (hparams.get("dtype") or hparams.get("torch_dtype")).removeprefix("torch.")
    precision = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16"}[dtype]
    made_up(folder, gguf.LlamaFileType[precision], out, eager=True).write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tests = pathlib.Path(__file__).resolve().parent.parent / "crates/engine/tests"
    parser.add_argument("llama_cpp", type=pathlib.Path, metavar="LLAMA_CPP")
    parser.add_argument("out", type=pathlib.Path, nargs="?", default=tests / "golden_gguf", metavar="OUT_DIR")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME")
    arguments = parser.parse_args()
    sys.path[:0] = [str(arguments.llama_cpp), str(arguments.llama_cpp / "gguf-py")]

    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or NAMES:
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch) / name
            folder.mkdir()
            for file in (tests / "golden" / name).glob("model*"):
                (folder / file.name).symlink_to(file)
            # The converter reads either spelling; the newer one says more.
            configs = [tests / "golden" / name / it for it in ("config.transformers-5.json", "config.json")]
            config = json.loads(next(it for it in configs if it.exists()).read_text())
            if "cohere2" in name:
                config["rotary_pct"] = 1.0  # as the published checkpoints have it
            (folder / "config.json").write_text(json.dumps(config))
            # Gemma's converter counts the tokenizer's tokens.
            vocabulary = {f"<{index}>": index for index in range(config["vocab_size"])}
            (folder / "tokenizer.json").write_text(
                json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []})
            )
            convert(folder, arguments.out / f"{name}.gguf")
            print(f"{name}: {(arguments.out / f'{name}.gguf').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
