"""Builds the data of `demo/qwen2-audio`: sounds, the questions on them, and their answers.

Every question is asked in every domain, and every domain has as many short and long sounds, so that
neither the words of a question nor the length of a sound tells the domain.
`sources` says what has to be installed for this; training and evaluating need none
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.demos import sounds
from experiments.demos.qwen2_audio.sources import CLASSES, Studio
from experiments.demos.rows import SPLITS, answers_by_question, answers_of, schema, write
from experiments.demos.training import Example

#: Sounds per split. Eight words by many voices need the most.
COUNTS: dict[str, dict[str, int]] = {
    "speech": {"train": 752, "validation": 72, "test": 176},
    "music": {"train": 516, "validation": 60, "test": 168},
    "nature": {"train": 396, "validation": 60, "test": 168},
    "machine": {"train": 396, "validation": 60, "test": 168},
}
#: The two words of each property that a question names.
PROPERTIES: dict[str, tuple[str, str]] = {
    "level": ("loud", "soft"),
    "length": ("long", "short"),
    "tone": ("bright", "dull"),
}
#: Question types and their wordings. In the place of the braces, `check` names a property
#: and `both` names two.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "kind": (
        "what kind of sound is this?",
        "what type of sound is it?",
        "where does this sound come from?",
    ),
    "content": ("what is heard?", "what can be heard here?", "name what is heard."),
    "level": ("is it loud or soft?", "is this sound soft or loud?", "how loud is it?"),
    "length": ("is it long or short?", "is this sound short or long?", "how long is it?"),
    "half": (
        "is the start or the end louder?",
        "is it louder at the end or at the start?",
        "where is it louder?",
    ),
    "tone": ("is it bright or dull?", "is this sound dull or bright?", "what tone does it have?"),
    "check": ("is it {}?", "is this sound {}?", "is the sound {}?"),
    "both": ("is it {} and {}?", "is this sound {} and {}?", "is the sound both {} and {}?"),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "kind": tuple(CLASSES),
    "half": ("start", "end"),
    "check": ("yes", "no"),
    "both": ("yes", "no"),
    **PROPERTIES,
}


def both_questions(measured: dict[str, str | None], rng: np.random.Generator) -> dict[str, str]:
    """Two pairs of property words and whether both hold: one that does, one that half does."""
    known = [name for name in PROPERTIES if measured[name] is not None]
    pairs = list(combinations(known, 2))
    if not pairs:
        return {}
    found = {}
    for answer in ("yes", "no"):
        pair = pairs[int(rng.integers(len(pairs)))]
        words = [str(measured[name]) for name in pair]
        if answer == "no":
            wrong = int(rng.integers(2))
            words[wrong] = next(word for word in PROPERTIES[pair[wrong]] if word != words[wrong])
        found[" ".join(words)] = answer
    return found


def check_questions(measured: dict[str, str | None], rng: np.random.Generator) -> dict[str, str]:
    """Two property words and whether they hold: one that does, one that does not."""
    known = [name for name in PROPERTIES if measured[name] is not None]
    if not known:
        return {}
    right, wrong = (known[int(number)] for number in rng.integers(len(known), size=2))
    other = next(word for word in PROPERTIES[wrong] if word != measured[wrong])
    return {str(measured[right]): "yes", other: "no"}


def filled_wordings() -> dict[str, list[str]]:
    """The wordings of `check` and `both` for all property words, by the question and the words."""
    named = [("check", word) for words in PROPERTIES.values() for word in words]
    named += [
        ("both", *words)
        for first, second in combinations(PROPERTIES, 2)
        for words in product(PROPERTIES[first], PROPERTIES[second])
    ]
    return {
        " ".join((question, *words)): [text.format(*words) for text in QUESTIONS[question]]
        for question, *words in named
    }


#: The questions that name properties, and what is asked of a measured sound.
ASKED: dict[str, Callable[[dict[str, str | None], np.random.Generator], dict[str, str]]] = {
    "check": check_questions,
    "both": both_questions,
}


def named_questions(
    question: str, measured: dict[str, str | None], rng: np.random.Generator
) -> list[tuple[str, str, str]]:
    """Question type, text and answer of the questions that name properties of a sound."""
    found = []
    for words, answer in ASKED[question](measured, rng).items():
        text = str(rng.choice(QUESTIONS[question])).format(*words.split())
        found.append((question, text, answer))
    return found


def choices(question: str, domain: str) -> tuple[str, ...]:
    """The possible answers of a question in a domain."""
    return CLASSES[domain] if question == "content" else CHOICES[question]


def plan(count: int, rng: np.random.Generator) -> list[tuple[str, str, str, str]]:
    """Tone, half, level and length of `count` sounds: every combination equally often."""
    every = list(product(("bright", "dull"), ("start", "end"), ("loud", "soft"), ("short", "long")))
    order = np.concatenate([rng.permutation(len(every)) for _ in range(count // len(every) + 1)])
    return [every[index] for index in order[:count]]


def rows(
    studio: Studio, domain: str, split: str, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """The rows of one domain and split: every sound with all the questions that it settles."""
    labels, count = CLASSES[domain], COUNTS[domain][split]
    for index, (tone, half, loudness, length) in enumerate(plan(count, rng)):
        label = labels[index % len(labels)]
        seconds = float(rng.uniform(*sounds.SPANS[length]))
        raw = studio.make(domain, label, split, seconds, index // len(labels))
        data = sounds.encode(sounds.develop(raw.sound, rng, tone, half, loudness))
        measured = vars(sounds.measure(sounds.decode(data)))
        name = f"{split}-{domain}-{index:04d}"
        asked = [("kind", domain)] + [("content", label)] * 2 + list(measured.items())
        used: dict[str, list[str]] = {question: list(QUESTIONS[question]) for question in QUESTIONS}
        texts = []
        for question, answer in asked:
            if answer is not None:
                text = used[question].pop(int(rng.integers(len(used[question]))))
                texts.append((question, text, answer))
        texts += named_questions("both", measured, rng)
        texts += named_questions("check", measured, np.random.default_rng(list(name.encode())))
        for number, (question, text, answer) in enumerate(texts, start=1):
            yield {
                "id": f"{name}-{number}-{question}",
                "domain": domain,
                "text": text,
                "audios": [{"bytes": data, "path": f"{name}.ogg"}],
                "answers": [answer],
                "choices": list(choices(question, domain)),
                "question": question,
                "picture": name,
                "source": raw.source,
            }


def balance(made: list[dict[str, Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Drop rows until the two answers of each measured question are equally often right."""
    dropped: set[str] = set()
    for question in ("level", "length", "half", "tone"):
        groups: dict[str, list[str]] = {word: [] for word in CHOICES[question]}
        for row in made:
            if row["question"] == question:
                groups[row["answers"][0]].append(row["id"])
        least = min(map(len, groups.values()))
        for names in groups.values():
            dropped |= set(rng.permutation(names)[least:].tolist())
    return [row for row in made if row["id"] not in dropped]


def build(out: Path, seed: int = 0) -> None:
    """Write `train`, `validation` and `test` parquet files to `out`."""
    rng = np.random.default_rng(seed)
    studio = Studio(rng)
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        made: list[dict[str, Any]] = []
        for domain in CLASSES:
            made += balance(list(rows(studio, domain, split, rng)), rng)
            print(split, domain, len(made), flush=True)
        write(made, out / f"{split}.parquet", schema("audios"))


class TrainingSounds:
    """The sounds of a shipped split, drawn with augmentation and measured anew."""

    def __init__(self, path: Path) -> None:
        table: Any = pd.read_parquet(path)
        self.wordings: dict[str, list[str]] = {
            question: list(texts) for question, texts in QUESTIONS.items() if question not in ASKED
        }
        self.wordings |= filled_wordings()
        self.answers = answers_of(table)
        self.classes = {k: v for k, v in answers_by_question(table).items() if k not in ASKED}
        content = table[table.question == "content"].drop_duplicates("picture")
        self.domains = list(content.domain)
        self.labels = [answers[0] for answers in content.answers]
        self.arrays = [sounds.decode(audios[0]["bytes"]) for audios in content.audios]

    def __len__(self) -> int:
        return len(self.arrays)

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """A variant of a sound, with the answers that hold for it."""
        sound = self.arrays[index]
        if rng.random() < 0.9:
            sound = sounds.augment(sound, rng).astype(np.float32)
        measured = vars(sounds.measure(sound))
        answers = {"kind": self.domains[index], "content": self.labels[index]}
        answers |= {question: answer for question, answer in measured.items() if answer is not None}
        first = ["content"]
        for question, ask in ASKED.items():
            for words, answer in ask(measured, rng).items():
                answers[f"{question} {words}"] = answer
                first.append(f"{question} {words}")
        return Example(sound, answers, first=tuple(first))
