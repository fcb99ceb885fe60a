"""Writes flowery.txt and plain.txt: 200 requests each about the same 40 subjects, five for a subject.

    python make.py

Subjects are in order, so that slices of the files share none: [:100], [100:160] and [160:].
"""

SUBJECTS = """the sea; a mountain at dawn; an old library; the first day of spring; a long train ride; the night sky;
a small garden; friendship; a river in autumn; a city in the rain; bread from the oven; an empty theater; snow in the
forest; a lighthouse; coffee in the morning; learning to swim; a grandmother's kitchen; the wind; a wooden boat; music;
a desert road; the harvest; a quiet village; time; a summer storm; an old clock; the moon over a lake; a market in the
morning; growing up; a stone bridge; candlelight; an orchard; a letter from far away; fog on the hills; a painter at
work; the last day of school; a campfire; a migrating bird; winter mornings; coming home"""

FLOWERY = [
    "Write a lyrical opening sentence about {}.",
    "Describe {} in rich, poetic language.",
    "Write a dreamy paragraph about {}, full of metaphors.",
    "Praise {} as a romantic poet would.",
    "Write an evocative, emotional passage about {}.",
]

PLAIN = [
    "State one plain fact about {}.",
    "Describe {} in short, simple words.",
    "Write a matter-of-fact paragraph about {}, without metaphors.",
    "Explain {} as a dictionary would.",
    "Write a dry, factual note about {}.",
]

for name, forms in (("flowery.txt", FLOWERY), ("plain.txt", PLAIN)):
    with open(name, "w", encoding="utf-8") as file:
        for subject in SUBJECTS.replace("\n", " ").split("; "):
            for form in forms:
                file.write(form.format(subject) + "\n")
