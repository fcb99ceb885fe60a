"""How fast other programs prefill and answer many short prompts on this machine's CPU.

    python tools/bench_peers.py MODEL_DIR --write-prompts prompts.txt
    python tools/bench_peers.py MODEL_DIR --peer transformers --dtype f32 --batch 10,25,50,100
    python tools/bench_peers.py --write-gguf smollm2-f32.gguf --dtype f32
    python tools/bench_peers.py MODEL_DIR --peer llama.cpp --gguf smollm2-f32.gguf --batch 25,50,100

The work is the search's own: N different prompts of about the same length, prefilled and answered greedily with exactly
M new tokens each (end-of-sequence is forbidden until then, so that every program does the same work). Prompts are
harmless questions drawn with a fixed seed; their length counts the model's chat template. MODEL_DIR is a Hugging Face
folder; its tokenizer and its template serve both peers, which therefore see the same token ids.

Prints one JSON object per batch size as it is measured, then a table. Per batch size, the best of --repeats runs:

- prefill: prompt tokens per second (padding not counted), from a run that does nothing else;
- answers: new tokens per second of a whole run, prefill included;
- wall and CPU seconds of that run (CPU: user and system time of all threads), and a checksum of the answers' ids.

- transformers: `generate` without sampling, with left padding, in batches of the given size. Prefill is one forward
  pass per batch with logits of the last position only.
- llama.cpp: its C interface through llama-cpp-python. The given number of sequences run in parallel in one context and
  every step decodes one token of each; the largest logit is taken with NumPy. --kv, --ubatch, --flash-attention and
  --unified set what its command line calls -ctk/-ctv, -ub, -fa and -kvu. Attention is without a shared prefix in both.

Other options: --write-prompts FILE writes the prompts, one per line, for another program to run; --prompts-file FILE
reads them back; --write-answers FILE stores the token ids of prompts and answers. --write-gguf FILE makes a GGUF of
SmolLM2-135M-Instruct with the weights that smollm2_to_hf.py writes, in --dtype. Nothing is downloaded.
"""

import argparse
import ctypes
import dataclasses
import gc
import hashlib
import json
import os
import pathlib
import platform
import random
import time

import numpy as np

SEED = 1
LENGTH_SLACK = 4  # prompts are this many tokens shorter or longer than asked at most
FORBIDDEN = -np.inf

OPENINGS = ["Why do", "How do", "When do", "Where do", "Should", "Could"]
SUBJECTS = [
    "bakers", "sailors", "gardeners", "teachers", "carpenters", "beekeepers", "painters", "farmers", "drummers",
    "librarians", "potters", "cyclists", "weavers", "astronomers", "cooks", "photographers",
]  # fmt: skip
VERBS = ["choose", "clean", "compare", "mend", "store", "measure", "share", "name", "draw", "test", "count", "carry"]
OBJECTS = [
    "small boats", "wooden tables", "glass jars", "old maps", "winter coats", "paper lamps", "copper pots",
    "bread ovens", "rain barrels", "garden tools", "music boxes", "travel notes", "clay tiles", "silk threads",
]  # fmt: skip
PLACES = [
    "in a quiet village", "near the sea", "on long journeys", "in the mountains", "at the weekly market",
    "during a cold spring", "in a busy harbor", "before the holidays", "under a leaking roof", "after heavy rain",
]  # fmt: skip


@dataclasses.dataclass
class Measured:
    """One timed piece of work."""

    tokens: int
    wall: float  # seconds
    cpu: float  # seconds of all threads, user and system
    answers: list[list[int]]

    @property
    def rate(self) -> float:
        return self.tokens / self.wall


def timed(work) -> Measured:
    """Runs `work`, which returns how many tokens it processed and the answers."""
    gc.collect()
    before, start = os.times(), time.perf_counter()
    tokens, answers = work()
    wall, after = time.perf_counter() - start, os.times()
    return Measured(tokens, wall, after.user - before.user + after.system - before.system, answers)


def best(work, repeats: int) -> Measured:
    return max((timed(work) for _ in range(repeats)), key=lambda it: it.rate)


# --- prompts ---------------------------------------------------------------------------------------------------------


def question(random_source: random.Random, clauses: int) -> str:
    """A question that grows with the number of clauses; without any it is about six tokens long."""
    pick = random_source.choice
    text = f"{pick(OPENINGS)} {pick(SUBJECTS)} {pick(VERBS)} {pick(OBJECTS)}"
    for clause in range(clauses):
        text += f" {pick(PLACES)}" if clause % 2 == 0 else f" and {pick(VERBS)} {pick(OBJECTS)}"
    return text + "?"


def prompt_ids(tokenizer, prompt: str) -> list[int]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def drawn_prompts(tokenizer, count: int, length: int) -> list[str]:
    """`count` different questions whose rendered length is within the slack of `length` tokens."""
    random_source = random.Random(SEED)
    prompts: dict[str, None] = {}
    clauses = 0
    for attempt in range(1000 * count):
        # Each target length in turn, so that the lengths are spread evenly over the range.
        target = length - LENGTH_SLACK + len(prompts) % (2 * LENGTH_SLACK + 1)
        text = question(random_source, clauses)
        found = len(prompt_ids(tokenizer, text))
        if found == target:
            prompts[text] = None
            if len(prompts) == count:
                return list(prompts)
        elif attempt % 4 == 3:  # some attempts with each number of clauses before the next
            clauses = max(0, clauses + (1 if found < target else -1))
    raise SystemExit(
        f"found only {len(prompts)} of {count} prompts of about {length} tokens; the chat template alone takes "
        f"{len(prompt_ids(tokenizer, ''))}"
    )


# --- transformers ----------------------------------------------------------------------------------------------------


class Transformers:
    """transformers on the CPU, with its default attention."""

    def __init__(self, arguments, batch: int):
        import torch
        import transformers

        self.torch = torch
        self.batch = batch
        self.new_tokens = arguments.new_tokens
        torch.set_num_threads(arguments.threads)
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[arguments.dtype]
        self.model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).eval()
        self.pad = self.model.config.pad_token_id or 0
        self.about = {
            "peer": "transformers",
            "version": transformers.__version__,
            "torch": torch.__version__,
            "dtype": arguments.dtype,
            "attention": self.model.config._attn_implementation,
        }

    def padded(self, prompts: list[list[int]]):
        """Batches of ids and masks, padded on the left; [batch, longest]."""
        for start in range(0, len(prompts), self.batch):
            part = prompts[start : start + self.batch]
            width = max(map(len, part))
            ids = [[self.pad] * (width - len(it)) + it for it in part]
            mask = [[0] * (width - len(it)) + [1] * len(it) for it in part]
            yield self.torch.tensor(ids), self.torch.tensor(mask)

    def prefill(self, prompts: list[list[int]]):
        with self.torch.inference_mode():
            for ids, mask in self.padded(prompts):
                positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
                self.model(ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
        return sum(map(len, prompts)), []

    def answer(self, prompts: list[list[int]]):
        answers = []
        for ids, mask in self.padded(prompts):
            found = self.model.generate(
                ids,
                attention_mask=mask,
                min_new_tokens=self.new_tokens,
                max_new_tokens=self.new_tokens,
                do_sample=False,
                pad_token_id=self.pad,
            )
            answers += found[:, ids.shape[1] :].tolist()
        return sum(map(len, answers)), answers

    def close(self) -> None:
        self.model = None


# --- llama.cpp -------------------------------------------------------------------------------------------------------


KV_TYPES = {"f32": 0, "f16": 1}  # GGML_TYPE_F32, GGML_TYPE_F16
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


class LlamaCpp:
    """llama.cpp's C interface, many sequences in one context."""

    def __init__(self, arguments, batch: int):
        import llama_cpp

        self.c = c = llama_cpp.llama_cpp
        self.batch = batch
        self.new_tokens = arguments.new_tokens
        self.log = c.llama_log_callback(lambda *_: None)  # kept, or it would be freed while in use
        c.llama_log_set(self.log, ctypes.c_void_p(0))
        c.llama_backend_init()
        parameters = c.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = c.llama_model_load_from_file(str(arguments.gguf).encode(), parameters)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {arguments.gguf}")
        vocabulary = c.llama_model_get_vocab(self.model)
        self.vocab = c.llama_vocab_n_tokens(vocabulary)
        self.end = [id for id in range(self.vocab) if c.llama_vocab_is_eog(vocabulary, id)]
        context = c.llama_context_default_params()
        cells = arguments.longest_prompt + arguments.new_tokens
        context.n_ctx = batch * (-(-cells // 256) * 256)  # llama.cpp pads each sequence's part to 256 cells
        context.n_batch = batch * arguments.longest_prompt
        context.n_ubatch = arguments.ubatch
        context.n_seq_max = batch
        context.n_threads = context.n_threads_batch = arguments.threads
        context.type_k = context.type_v = KV_TYPES[arguments.kv]
        context.flash_attn_type = FLASH_ATTENTION[arguments.flash_attention]
        context.kv_unified = arguments.unified
        self.context = c.llama_init_from_model(self.model, context)
        if not self.context:
            raise SystemExit("llama.cpp cannot make a context with these options")
        self.memory = c.llama_get_memory(self.context)
        self.rows = c.llama_batch_init(context.n_batch, 0, 1)
        name = ctypes.create_string_buffer(128)
        c.llama_model_desc(self.model, name, len(name))
        system = c.llama_print_system_info().decode()
        if "AVX512 = 1" not in system and "avx512f" in cpu_flags():
            print("note: this build of llama.cpp does not use AVX-512, which the processor has; see requirements.txt")
        self.about = {
            "peer": "llama.cpp",
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "dtype": name.value.decode().split()[-1].lower(),  # the description ends with it: "llama 134.52M all F32"
            "kv": arguments.kv,
            "ubatch": arguments.ubatch,
            "flash_attention": arguments.flash_attention,
            "unified": arguments.unified,
            "system": system,
        }

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> np.ndarray:
        """One batch of (token, position, sequence, whether its logits are wanted); returns [wanted, vocab]."""
        batch = self.rows
        batch.n_tokens = len(rows)
        for index, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wanted
        status = self.c.llama_decode(self.context, batch)
        if status != 0:
            raise SystemExit(f"llama_decode returned {status}")
        wanted = sum(row[3] for row in rows)
        return np.ctypeslib.as_array(self.c.llama_get_logits(self.context), shape=(wanted, self.vocab))

    def chosen(self, logits: np.ndarray) -> list[int]:
        logits[:, self.end] = FORBIDDEN
        return logits.argmax(axis=1).tolist()

    def start(self, prompts: list[list[int]]) -> np.ndarray:
        self.c.llama_memory_clear(self.memory, False)
        return self.decode(
            [
                (token, position, sequence, position == len(ids) - 1)
                for sequence, ids in enumerate(prompts)
                for position, token in enumerate(ids)
            ]
        )

    def parts(self, prompts: list[list[int]]):
        return (prompts[start : start + self.batch] for start in range(0, len(prompts), self.batch))

    def prefill(self, prompts: list[list[int]]):
        for part in self.parts(prompts):
            self.start(part)
        return sum(map(len, prompts)), []

    def answer(self, prompts: list[list[int]]):
        answers = []
        for part in self.parts(prompts):
            found = [[token] for token in self.chosen(self.start(part))]
            for step in range(self.new_tokens - 1):
                rows = [(it[-1], len(part[sequence]) + step, sequence, True) for sequence, it in enumerate(found)]
                for it, token in zip(found, self.chosen(self.decode(rows)), strict=True):
                    it.append(token)
            answers += found
        return sum(map(len, answers)), answers

    def close(self) -> None:
        self.c.llama_batch_free(self.rows)
        self.c.llama_free(self.context)
        self.c.llama_model_free(self.model)


PEERS = {"transformers": Transformers, "llama.cpp": LlamaCpp}


# --- GGUF ------------------------------------------------------------------------------------------------------------


def write_gguf(path: pathlib.Path, dtype: str) -> None:
    """The packaged GGUF with every matrix dequantized, then stored in `dtype`; norms stay f32."""
    import gguf

    import smollm2_to_hf

    reader = gguf.GGUFReader(smollm2_to_hf.packaged_gguf())
    matrix = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16}.get(
        dtype, gguf.GGMLQuantizationType.F16
    )
    file_type = {"f32": gguf.LlamaFileType.ALL_F32, "bf16": gguf.LlamaFileType.MOSTLY_BF16}.get(
        dtype, gguf.LlamaFileType.MOSTLY_F16
    )
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    # The writer states the architecture, and the two others say how the packaged file is stored.
    own = {"general.architecture", "general.file_type", "general.quantization_version"}
    for name, field in reader.fields.items():
        if name not in own and not name.startswith("GGUF."):
            item = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=item)
    writer.add_file_type(file_type)
    for tensor in reader.tensors:
        values = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32, order="C")
        stored = matrix if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


# --- the measurement -------------------------------------------------------------------------------------------------


def cpu_flags() -> str:
    try:
        return pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def cpu_name() -> str:
    for line in cpu_flags().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def measure(arguments, prompts: list[list[int]], batch: int) -> dict:
    peer = PEERS[arguments.peer](arguments, batch)
    try:
        peer.prefill(prompts[:batch])  # warms caches and thread pools
        prefill = best(lambda: peer.prefill(prompts), arguments.repeats)
        answer = best(lambda: peer.answer(prompts), arguments.repeats)
    finally:
        peer.close()
    expected = len(prompts) * arguments.new_tokens
    if answer.tokens != expected:
        raise SystemExit(f"expected {expected} new tokens, found {answer.tokens}")
    if arguments.write_answers:
        record = {"prompts": prompts, "answers": answer.answers}
        arguments.write_answers.write_text(json.dumps(record) + "\n")
    return {
        **peer.about,
        "threads": arguments.threads,
        "cpu": cpu_name(),
        "batch": batch,
        "prompts": len(prompts),
        "prompt_tokens": prefill.tokens,
        "new_tokens": answer.tokens,
        "prefill_tokens_per_second": round(prefill.rate, 1),
        "prefill_wall": round(prefill.wall, 3),
        "prefill_cpu": round(prefill.cpu, 3),
        "answer_tokens_per_second": round(answer.rate, 1),
        "wall": round(answer.wall, 3),
        "cpu_seconds": round(answer.cpu, 3),
        "answers_sha256": hashlib.sha256(json.dumps(answer.answers).encode()).hexdigest()[:16],
    }


def print_table(rows: list[dict]) -> None:
    print(f"\n{'peer':<13}{'dtype':>6}{'batch':>7}{'prefill tok/s':>15}{'answer tok/s':>14}{'wall s':>9}{'CPU s':>9}")
    fastest = max(rows, key=lambda it: it["answer_tokens_per_second"])
    for row in rows:
        print(
            f"{row['peer']:<13}{row['dtype']:>6}{row['batch']:>7}{row['prefill_tokens_per_second']:>15}"
            f"{row['answer_tokens_per_second']:>14}{row['wall']:>9}{row['cpu_seconds']:>9}"
            f"{'  fastest' if row is fastest else ''}"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, nargs="?", metavar="MODEL_DIR")
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--gguf", type=pathlib.Path, help="the weights for llama.cpp")
    parser.add_argument(
        "--dtype", choices=["f32", "bf16", "f16"], default="f32", help="for llama.cpp, the file's counts"
    )
    parser.add_argument("--batch", default="25,50,100", metavar="N,N,...", help="sequences at once, several to compare")
    parser.add_argument("--prompts", type=int, default=100, metavar="N")
    parser.add_argument("--prompt-tokens", type=int, default=40, metavar="N", help="with the chat template, +-4")
    parser.add_argument("--new-tokens", type=int, default=100, metavar="N")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2, metavar="N")
    parser.add_argument("--kv", choices=KV_TYPES, default="f32", help="llama.cpp: dtype of keys and values")
    parser.add_argument("--ubatch", type=int, default=512, metavar="N", help="llama.cpp: tokens per internal batch")
    parser.add_argument("--flash-attention", choices=FLASH_ATTENTION, default="auto")
    parser.add_argument("--unified", action="store_true", help="llama.cpp: one key/value buffer for all sequences")
    parser.add_argument("--prompts-file", type=pathlib.Path, metavar="FILE", help="one prompt per line")
    parser.add_argument("--write-prompts", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--write-answers", type=pathlib.Path, metavar="FILE", help="of the last batch size")
    parser.add_argument("--write-gguf", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    try:
        arguments.batches = [int(it) for it in arguments.batch.split(",")]
    except ValueError:
        parser.error(f"--batch {arguments.batch}: expected whole numbers separated by commas")
    if min([*arguments.batches, arguments.prompts, arguments.new_tokens, arguments.threads, arguments.repeats]) < 1:
        parser.error("numbers must be at least 1")
    if arguments.write_gguf is None and arguments.model is None:
        parser.error("MODEL_DIR is needed")
    if arguments.peer == "llama.cpp" and arguments.gguf is None:
        parser.error("--peer llama.cpp needs --gguf")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.write_gguf:
        write_gguf(arguments.write_gguf, arguments.dtype)
        if arguments.model is None:
            return
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    if arguments.prompts_file:
        texts = arguments.prompts_file.read_text(encoding="utf-8").splitlines()[: arguments.prompts]
    else:
        texts = drawn_prompts(tokenizer, arguments.prompts, arguments.prompt_tokens)
    if arguments.write_prompts:
        arguments.write_prompts.write_text("".join(f"{it}\n" for it in texts), encoding="utf-8")
    prompts = [prompt_ids(tokenizer, text) for text in texts]
    lengths = sorted(map(len, prompts))
    print(f"{len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens, {sum(lengths)} in all")
    arguments.longest_prompt = lengths[-1]
    if arguments.peer is None:
        return
    rows = []
    for batch in arguments.batches:
        rows.append(measure(arguments, prompts, min(batch, len(prompts))))
        print(json.dumps(rows[-1]), flush=True)
    print_table(rows)


if __name__ == "__main__":
    main()
