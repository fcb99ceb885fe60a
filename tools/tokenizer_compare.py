#!/usr/bin/env python3
"""Encodes and decodes many texts with a reference, for comparison with `prompts::Tokenizer`.

    python tools/tokenizer_compare.py CHECKPOINT --reference llama_cpp --out cases.json
    cargo run --release -p ablate-prompts --example encode_cases -- cases.json

CHECKPOINT is a GGUF file or a folder with a `tokenizer.json`. References: `transformers`, and for GGUF files
`llama_cpp` (package llama-cpp-python). They need not agree with each other: see the docs of `tokenizer/gguf.rs`.
`--special` lists tokens to put inside texts; the texts are otherwise the same on every machine.
"""

import argparse
import json
import pathlib
import random
import sys

TEXTS = [
    "",
    " ",
    "  ",
    "   leading and trailing   ",
    "\n",
    "\n\n\n",
    "\t\t\ttabs\tbetween\twords",
    " \n \n\t \r\n mixed \r\n",
    "Hello world",
    "Hello, world! How are you?",
    "I'm sure they'll say it's what we've done, you'd think; I CAN'T, WON'T, DON'T.",
    "Don’t “quote” me — it’s…fine.",
    "0 1 12 123 1234 12345 123456 1234567 3.14159 1e-5 0x1F 1,000,000",
    "2026-11-23T20:15:00Z v1.2.3 +49 (0)30 123-456",
    "¼ ½ ² ³ ① ⅷ Ⅻ ٣٤٥ १२३ 一二三 ๑๒๓",
    "Zürich, Ærø, naïve façade, Łódź, Dvořák, ﬁne ﬂour",
    "Съешь же ещё этих мягких французских булок",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ",
    "דג סקרן שט בים מאוכזב",
    "हिन्दी में कुछ लिखिए, धन्यवाद।",
    "เป็นมนุษย์สุดประเสริฐ",
    "いろはにほへと ちりぬるを カタカナ 漢字かな交じり文。",
    "天地玄黄，宇宙洪荒。日月盈昃！",
    "키스의 고유조건은 입술끼리 만나야 하고",
    "Tiếng Việt có dấu thanh phức tạp",
    "e\u0301 vs é, Å vs \u212b, a\u0308\u0304, ẛ̣",
    "🎉 👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇭 👍🏽 ☕️ 🫠",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒮𝒸𝓇𝒾𝓅𝓉 𝟘𝟙𝟚",
    "zero\u200bwidth\u200djoin\u00adsoft\u00a0hard\u3000wide\u2028line",
    "\ufeffBOM and \ufffd replacement",
    "def f(x):\n    if x > 0:\n\treturn x**2  # square\n\n\nprint(f(3))\n",
    "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 42); return 0; }",
    "<div class=\"a b\"><p>Text &amp; more</p></div><!-- comment -->",
    "SELECT * FROM t WHERE a != 'b' AND c >= 10;",
    "{\"key\": [1, 2.5, null, true], \"nested\": {\"a\": \"b\\n\"}}",
    "https://example.org/path?query=1&x=%20y#frag user@example.com C:\\Windows\\System32",
    "a" * 70,
    "ab " * 40,
    "=" * 33 + "-" * 17 + "." * 9 + "!?" * 5,
    " " * 37 + "x" + " " * 5,
    "CamelCaseWords and snake_case_words and SCREAMING_CASE and kebab-case",
    "ﷺ ㎏ ℃ ™ © ® € £ ¥ ₿",
    "line one\nline two\r\nline three\rline four",
    "word\u0000null\u0007bell\u001besc",
    "'s 't 're 've 'm 'll 'd 'S 'T 'RE",
    "▁ lower one eighth ▁▁ twice",
]


def random_texts(count, seed=20261123):
    """Texts of pieces that are likely to meet each other badly."""
    source = random.Random(seed)
    pieces = sorted({piece for text in TEXTS for piece in text.split(" ") if piece})
    gaps = [" ", " ", " ", "", "  ", "\n", "\n\n", "\t", "   ", " \n", "\r\n", "1", "42", "2026", ".", ", ", "'s "]
    for _ in range(count):
        yield "".join(source.choice(pieces) + source.choice(gaps) for _ in range(source.randint(1, 12)))


def texts(special):
    every = [*TEXTS, *random_texts(400)]
    for token in special:
        every += [token, f"{token}{token}", f"before {token} after", f"x{token}y", f"{token}\nNew line{token} space"]
    return every


class LlamaCpp:
    def __init__(self, path):
        import llama_cpp

        self.name = f"llama-cpp-python {llama_cpp.__version__}"
        self.model = llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)

    def encode(self, text, around):
        return self.model.tokenize(text.encode("utf-8"), add_bos=around, special=True)

    def decode(self, ids):
        return None


class Transformers:
    def __init__(self, path):
        import transformers

        self.name = f"transformers {transformers.__version__}"
        if path.is_dir():
            self.model = transformers.AutoTokenizer.from_pretrained(path)
        else:
            self.model = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)

    def encode(self, text, around):
        return self.model.encode(text, add_special_tokens=around)

    def decode(self, ids):
        return {
            "all": self.model.decode(ids, clean_up_tokenization_spaces=False),
            "without_special": self.model.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
        }


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("checkpoint", type=pathlib.Path)
    arguments.add_argument("--reference", choices=["transformers", "llama_cpp"], default="transformers")
    arguments.add_argument("--special", nargs="*", default=[])
    arguments.add_argument("--out", required=True)
    arguments = arguments.parse_args()

    reference = {"transformers": Transformers, "llama_cpp": LlamaCpp}[arguments.reference](arguments.checkpoint)
    cases = []
    for text in texts(arguments.special):
        ids = reference.encode(text, False)
        case = {"text": text, "ids": ids, "ids_as_plain_text": reference.encode(text, True)}
        decoded = reference.decode(ids)
        if decoded is not None:
            case["decoded"] = decoded
        cases.append(case)
    made = {"made_by": reference.name, "checkpoint": str(arguments.checkpoint.resolve()), "cases": cases}
    text = json.dumps(made, ensure_ascii=False, indent=1)
    if arguments.out == "-":
        print(text)
    else:
        pathlib.Path(arguments.out).write_text(text, encoding="utf-8")
        print(f"{len(cases)} cases by {reference.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
