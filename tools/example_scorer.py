"""A scorer of your own for ablate: how often answers use the words that you are tired of.

    scorers = [
        { plugin = "refusals" },
        { plugin = "command", instance_name = "cliches", optimization = "minimize" },
    ]

    [scorer.command_cliches]
    command = ["python3", "tools/example_scorer.py"]
    settings = { words = ["tapestry", "delve", "testament"] }

in a configuration file, or in a word of the command line:

    --scorer 'command@cliches:minimize:{"command": ["python3", "tools/example_scorer.py"]}'

The program reads one request a line from stdin and answers each with one line on stdout; what it prints to stderr is
shown when something goes wrong. To try it without a model:

    printf '%s\n' '{"type": "hello", "version": 1}' '{"type": "init", "settings": {"words": ["delve"]}}' \
        '{"type": "score", "id": 1, "prompts": ["Go on."], "responses": ["Let us delve into it."]}' \
        | python3 tools/example_scorer.py

Only `score` has to be changed to make it another scorer. Any library may be imported.
"""

import json
import re
import sys


def score(settings, prompts, responses):
    """One number per answer: how many of its words are in the list."""
    tired_of = {word.lower() for word in settings.get("words", ["tapestry", "delve", "testament"])}
    counts = [sum(word in tired_of for word in re.findall(r"\w+", answer.lower())) for answer in responses]
    return {
        "value": sum(counts) / len(counts),
        "display": f"{sum(counts)} in {len(counts)} answers",
        "per_prompt": counts,
        "details": {"answers_with_one": sum(count > 0 for count in counts)},
    }


def main():
    settings = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["type"] == "hello":
                reply = {"type": "hello", "version": 1}
            elif request["type"] == "init":
                settings = request["settings"]
                reply = {"type": "ready"}
            else:
                reply = score(settings, request["prompts"], request["responses"])
                reply = {"type": "score", "id": request["id"], **reply}
        except Exception as error:
            reply = {"type": "error", "message": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
