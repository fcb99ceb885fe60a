#!/usr/bin/env python3
"""Renders chat templates with the Python reference stack, for comparison with `prompts::ChatTemplate`.

    python tools/templates_compare.py FOLDER... --out cases.json
    cargo run --release -p ablate-prompts --example render_cases -- cases.json

Each FOLDER is searched for `*.jinja` files. Templates of equal text count once. Every template is rendered with
every conversation below by `transformers`' own `apply_chat_template`; the file holds the templates, the
conversations and what came out, text or error. The clock is stopped at CLOCK.

Needs: transformers (5 or later), tokenizers, jinja2. Templates of models are their authors' and are not kept here.
"""

import argparse
import datetime
import json
import pathlib
import sys

import tokenizers
import transformers
from transformers.utils import chat_template_utils

CLOCK = datetime.datetime(2026, 1, 2, 3, 4, 5)

SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells today's weather & the \"feel\" of it — in <b>one</b> place.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "The town, e.g. Zürich"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1},
            },
            "required": ["place"],
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number", "default": 0.5}, "b": {"type": ["number", "null"]}},
            "required": ["a", "b"],
        },
    },
}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def call(arguments, name="get_weather", id="call12345"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def conversations():
    """(name, messages, options) of every conversation."""
    user = said("user", "What is the capital of France?")
    system = said("system", "You are a terse assistant.")
    turns = [
        said("user", "Hi there"),
        said("assistant", "Hello! How can I help?"),
        said("user", "Tell me a joke."),
        said("assistant", "Why did the chicken cross the road?"),
        said("user", "Why?"),
    ]
    parts = [{"type": "text", "text": "Two parts: "}, {"type": "text", "text": "this is the second."}]
    reasoning = [
        said("user", "What is 6 times 7?"),
        said("assistant", "It is 42.", reasoning_content="6 * 7 = 42, so the answer is 42."),
        said("user", "And plus one?"),
    ]
    tags = [
        said("user", "What is 6 times 7?"),
        said("assistant", "<think>\n6 * 7 = 42\n</think>\n\nIt is 42."),
        said("user", "And plus one?"),
    ]
    asked = said("user", "How is the weather in Zürich?")
    result = said("tool", '{"temperature": 21.5, "sky": "clear"}', name="get_weather", tool_call_id="call12345")
    told = said("assistant", "It is 21.5 degrees and clear.")
    place = {"place": "Zürich", "days": 2, "exact": True, "near": None, "at": [47.4, 8.5], "who": {"a": "<&>'\""}}
    odd = '  Tabs\t"quotes" \'single\' <html> & {{ braces }} {% tag %} back\\slash\n\nno-break\u00a0space, 日本語 🎉 é\n '
    thinking = {"enable_thinking": True}
    return [
        ("user", [user], {}),
        ("system", [system, user], {}),
        ("turns", turns, {}),
        ("system and turns", [system, *turns], {}),
        ("no generation prompt", [system, *turns, told], {"add_generation_prompt": False}),
        ("reasoning", reasoning, {}),
        ("reasoning in tags", tags, {}),
        ("thinking off", [system, user], {"variables": {"enable_thinking": False}}),
        ("thinking on", reasoning, {"variables": thinking}),
        ("content parts", [system, said("user", parts)], {}),
        ("system in parts", [said("system", [{"type": "text", "text": "Be brief."}]), said("user", parts)], {}),
        ("odd characters", [said("system", odd), said("user", odd)], {}),
        ("empty contents", [said("system", ""), said("user", ""), said("assistant", ""), said("user", " ")], {}),
        ("tools", [system, asked], {"tools": [WEATHER, ADD]}),
        ("tool call", [asked, said("assistant", "", tool_calls=[call(place)]), result], {"tools": [WEATHER]}),
        (
            "tool call without content",
            [system, asked, {"role": "assistant", "content": None, "tool_calls": [call(place)]}, result, told, user],
            {"tools": [WEATHER, ADD]},
        ),
        (
            "tool call as text",
            [asked, said("assistant", "Let me see.", tool_calls=[call(json.dumps(place))]), result],
            {"tools": [WEATHER]},
        ),
        (
            "two tool calls and thoughts",
            [
                asked,
                said(
                    "assistant",
                    "",
                    reasoning_content="I need two tools.",
                    tool_calls=[call(place), call({"a": 1, "b": 2.0}, "add", "call67890")],
                ),
                result,
                said("tool", "3.0", name="add", tool_call_id="call67890"),
            ],
            {"tools": [WEATHER, ADD], "variables": thinking},
        ),
        ("documents", [user], {"documents": [{"title": "Paris", "text": "Paris is the capital of France."}]}),
        ("two users in a row", [user, user], {}),
    ]


class StoppedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return CLOCK


def render(tokenizer, source, messages, options):
    try:
        text = tokenizer.apply_chat_template(
            messages,
            chat_template=source,
            tokenize=False,
            add_generation_prompt=options.get("add_generation_prompt", True),
            tools=options.get("tools"),
            documents=options.get("documents"),
            **options.get("variables", {}),
        )
        return {"text": text}
    except Exception as error:  # whatever a template does is part of the answer
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folders", nargs="+", type=pathlib.Path, metavar="FOLDER")
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    arguments = arguments.parse_args()

    chat_template_utils.datetime = StoppedClock
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()), **SPECIAL_TOKENS
    )
    spoken = conversations()
    templates, seen = [], set()
    for folder in arguments.folders:
        for path in sorted(folder.rglob("*.jinja")):
            # newline="" keeps the line ends as they are
            with open(path, encoding="utf-8", newline="") as file:
                source = file.read()
            if source in seen:
                continue
            seen.add(source)
            expected = [render(tokenizer, source, messages, options) for _, messages, options in spoken]
            templates.append({"name": str(path.relative_to(folder.parent)), "source": source, "expected": expected})
    cases = {
        "made_by": f"transformers {transformers.__version__}",
        "clock": CLOCK.isoformat(),
        "special_tokens": SPECIAL_TOKENS,
        "conversations": [
            {"name": name, "messages": messages, **options} for name, messages, options in spoken
        ],
        "templates": templates,
    }
    arguments.out.write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    rendered = sum("text" in it for template in templates for it in template["expected"])
    print(f"{len(templates)} templates, {len(templates) * len(spoken)} cases, {rendered} rendered", file=sys.stderr)


if __name__ == "__main__":
    main()
