"""Builds the data of `demo/qwen2-vl`: pictures, pairs of pictures and clips, with questions.

Everything is made from the pictures of `demo/llava-next`, within their splits: a picture is shown
as it is or enlarged, a pair is two pictures of one domain, a clip is a square picture that moves
(`clips`). Questions about the kind of picture, its content and its colour are asked of pictures
and of clips alike, and every question is asked in every domain, about media of the same sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from experiments.demos import clips, pictures
from experiments.demos.llava_next.data import CLASSES, augmented
from experiments.demos.rows import SPLITS, schema, write
from experiments.demos.training import Example

DOMAINS = ("clothing", "document", "handwriting", "satellite")
#: Media per domain and split. In training, pairs and clips are drawn anew from the pictures.
COUNTS: dict[str, dict[str, int]] = {
    "picture": {"train": 1600, "validation": 120, "test": 300},
    "pair": {"train": 100, "validation": 60, "test": 150},
    "video": {"train": 50, "validation": 40, "test": 120},
}
COLORS = tuple(pictures.TONES)
#: Question types and their wordings. What follows a type after a blank is a part of the wording.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "kind": ("what kind is it?", "which kind is this?", "what type is it?"),
    "content": ("what is shown?", "what does it show?", "what can be seen?"),
    "color": ("what color is it?", "which color is it?", "name the color."),
    **{f"check {color}": (f"is it {color}?", f"is the color {color}?") for color in COLORS},
    "light": ("is it bright or dark?", "is it dark or bright?", "how bright is it?"),
    "side": ("is the left or right brighter?", "is the right or left brighter?"),
    "half": ("is the top or bottom brighter?", "is the bottom or top brighter?"),
    "motion": (
        "which way does it move?",
        "where does it move?",
        "in which direction does it move?",
    ),
    "speed": ("is it fast or slow?", "is it slow or fast?", "how fast is it?"),
    "growth": ("does it grow or shrink?", "does it shrink or grow?"),
    "fading": ("does it get brighter or darker?", "does it get darker or brighter?"),
    "first": ("what is shown first?", "what does the first show?"),
    "second": ("what is shown second?", "what does the second show?"),
    "brighter": ("is the first or second brighter?", "which is brighter, first or second?"),
    "same": ("do they have the same color?", "are both of the same color?"),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "kind": DOMAINS,
    "color": COLORS,
    "check": ("yes", "no"),
    "light": ("bright", "dark"),
    "side": ("left", "right"),
    "half": ("top", "bottom"),
    "motion": tuple(clips.DIRECTIONS),
    "speed": tuple(clips.SPEEDS),
    "growth": tuple(clips.GROWTH),
    "fading": tuple(clips.FADING),
    "brighter": ("first", "second"),
    "same": ("yes", "no"),
}
#: The question types that are asked of each task. The others are drawn too, and left out: they
#: were not learned in the time that training had.
ASKED: dict[str, tuple[str, ...]] = {
    "picture": ("kind", "content", "color", "light", "side", "half"),
    "pair": ("kind", "brighter"),
    "video": ("kind", "color", "motion", "speed", "fading"),
}
#: Question types whose answers are the contents of a domain.
CONTENTS = ("content", "first", "second")


@dataclass(frozen=True)
class Source:
    """A picture of `demo/llava-next`."""

    name: str
    domain: str
    label: str
    source: str
    data: bytes

    def pixels(self) -> np.ndarray:
        """`[h, w, 3]` in 0..1."""
        return pictures.decode(self.data)


@dataclass(frozen=True)
class Shown:
    """A finished picture, its bytes and its colour."""

    source: Source
    picture: np.ndarray
    data: bytes
    color: str | None


def question_type(key: str) -> str:
    """The type of a question whose wording it may name a part of."""
    return key.split(maxsplit=1)[0]


def choices(key: str, domain: str) -> tuple[str, ...]:
    """The possible answers of a question in a domain."""
    name = question_type(key)
    return CLASSES[domain] if name in CONTENTS else CHOICES[name]


def sources(path: Path) -> dict[str, list[Source]]:
    """The pictures of a split of `demo/llava-next`, by domain."""
    table: Any = pd.read_parquet(path).query("question == 'content'").drop_duplicates("picture")
    found: dict[str, list[Source]] = {domain: [] for domain in DOMAINS}
    for row in table[table.domain.isin(DOMAINS)].itertuples():
        data = row.images[0]["bytes"]
        found[row.domain].append(Source(row.picture, row.domain, row.answers[0], row.source, data))
    return found


def asked(answers: Mapping[str, str], task: str) -> dict[str, str]:
    """The answers to the questions that are asked of a task."""
    return {key: value for key, value in answers.items() if question_type(key) in ASKED[task]}


def check(color: str, rng: np.random.Generator) -> dict[str, str]:
    """A question whether it is some colour, half of the time the right one."""
    if rng.random() < 0.5:
        return {f"check {color}": "yes"}
    others = [other for other in COLORS if other != color]
    return {f"check {others[int(rng.integers(len(others)))]}": "no"}


def about_picture(picture: np.ndarray, rng: np.random.Generator) -> dict[str, str]:
    """The answers measured on a finished picture."""
    measured = vars(pictures.measure(picture))
    found = {question: answer for question, answer in measured.items() if answer is not None}
    return found | (check(found["color"], rng) if "color" in found else {})


def about_pair(first: np.ndarray, second: np.ndarray) -> dict[str, str]:
    """The answers measured on two finished pictures."""
    found = {}
    lights = [float(pictures.luminance(picture).mean()) for picture in (first, second)]
    if abs(lights[0] - lights[1]) > 0.1:
        found["brighter"] = "first" if lights[0] > lights[1] else "second"
    colors = [pictures.measure(picture).color for picture in (first, second)]
    if None not in colors:
        found["same"] = "yes" if colors[0] == colors[1] else "no"
    return found


def enlarge(picture: np.ndarray) -> np.ndarray:
    """A square picture at 48 by 48 pixels."""
    image = pictures.as_image(picture)
    return pictures.as_array(image.resize((48, 48), Image.Resampling.BICUBIC))


def is_square(picture: np.ndarray) -> bool:
    """Whether a picture is as wide as high."""
    return picture.shape[0] == picture.shape[1]


def media(
    found: list[Source], split: str, rng: np.random.Generator
) -> Iterator[tuple[str, Source, dict[str, list[bytes]], dict[str, str]]]:
    """The media of one domain and split: name, (first) source, files by column, answers."""
    domain = found[0].domain
    order = [found[index] for index in rng.permutation(len(found))]
    shown = []
    for source in order[: COUNTS["picture"][split]]:
        picture, data = source.pixels(), source.data
        if is_square(picture) and rng.random() < 0.5:
            data = pictures.encode(enlarge(picture))
            picture = pictures.decode(data)
        shown.append(Shown(source, picture, data, pictures.measure(picture).color))
        answers = {"kind": domain, "content": source.label} | about_picture(picture, rng)
        yield source.name, source, {"images": [data]}, answers
    for index in range(COUNTS["pair"][split]):
        first, second = _pair(shown, rng)
        files = {"images": [first.data, second.data]}
        answers = {"kind": domain, "first": first.source.label, "second": second.source.label}
        answers |= about_pair(first.picture, second.picture)
        yield f"{split}-{domain}-pair-{index:03d}", first.source, files, answers
    squares = [source for source in order if is_square(source.pixels())]
    for index in range(COUNTS["video"][split]):
        source = squares[index % len(squares)]
        clip = clips.draw(source.pixels(), clips.SIZES[index % len(clips.SIZES)], rng)
        answers = {"kind": domain, "content": source.label} | clip.answers()
        answers |= check(clip.color, rng)
        files = {"videos": [clips.encode(clip.frames)]}
        yield f"{split}-{domain}-video-{index:03d}", source, files, answers


def _pair(shown: list[Shown], rng: np.random.Generator) -> tuple[Shown, Shown]:
    """Two different pictures; of one colour half of the time."""
    first, *others = (shown[index] for index in rng.permutation(len(shown)))
    wanted = rng.random() < 0.5
    fitting = (other for other in others if (other.color == first.color) == wanted)
    return first, next(fitting, others[0])


def rows(found: list[Source], split: str, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """The rows of one domain and split: every medium with all the questions that it settles."""
    for name, source, files, answers in media(found, split, rng):
        task = "video" if "videos" in files else "picture" if len(files["images"]) == 1 else "pair"
        texts = {key: str(rng.choice(QUESTIONS[key])) for key in answers}
        for key, answer in asked(answers, task).items():
            columns = {
                column: [
                    {"bytes": data, "path": f"{name}-{number}.{ending}"}
                    for number, data in enumerate(files.get(column, []))
                ]
                for column, ending in (("images", "jpg"), ("videos", "webp"))
            }
            yield {
                "id": f"{name}-{question_type(key)}",
                "domain": source.domain,
                "text": texts[key],
                **columns,
                "answers": [answer],
                "choices": list(choices(key, source.domain)),
                "question": question_type(key),
                "picture": name,
                "source": source.source,
            }


def build(out: Path, pictures_folder: Path, seed: int = 0) -> None:
    """Write `train`, `validation` and `test` parquet files to `out`."""
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        found = sources(pictures_folder / f"{split}.parquet")
        made = [row for domain in DOMAINS for row in rows(found[domain], split, rng)]
        write(made, out / f"{split}.parquet", schema("images", "videos"))


class TrainingMedia:
    """Pictures, pairs and clips of the shipped training pictures, drawn with augmentation."""

    #: Shares of pictures, pairs and clips among what is drawn.
    shares: Mapping[str, float] = {"picture": 0.5, "pair": 0.2, "video": 0.3}

    def __init__(self, path: Path) -> None:
        table: Any = pd.read_parquet(path).query("question == 'content'")
        table = table[table.images.str.len() == 1]
        self.wordings = {key: list(texts) for key, texts in QUESTIONS.items()}
        contents = [label for domain in DOMAINS for label in CLASSES[domain]]
        self.answers = sorted({a for options in CHOICES.values() for a in options} | set(contents))
        learned = ("color", "light", "motion", "speed", "fading", "brighter")
        #: What the tower is warmed up on.
        self.classes: dict[str, list[str]] = {
            "kind": sorted(DOMAINS),
            "content": sorted(contents),
            **{name: sorted(CHOICES[name]) for name in learned},
        }
        self.domains = list(table.domain)
        self.labels = [answers[0] for answers in table.answers]
        self.arrays = [
            np.round(pictures.decode(images[0]["bytes"]) * 255).astype(np.uint8)
            for images in table.images
        ]
        self.members = {d: [i for i, e in enumerate(self.domains) if e == d] for d in DOMAINS}
        self.squares = {
            d: [i for i in m if is_square(self.arrays[i])] for d, m in self.members.items()
        }

    def __len__(self) -> int:
        return len(self.arrays)

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """A medium made of a picture, with the answers that hold for it."""
        domain = self.domains[index]
        task = str(rng.choice(list(self.shares), p=list(self.shares.values())))
        if task == "video":
            if not is_square(self.arrays[index]):
                index = int(rng.choice(self.squares[domain]))
            return self._clip(index, rng)
        first = self._picture(index, rng)
        if task == "picture":
            answers = {"kind": domain, "content": self.labels[index]} | about_picture(first, rng)
            return Example(pictures.as_image(first), asked(answers, task), first=("content",))
        other, second = self._second(first, domain, rng)
        answers = {"kind": domain, "first": self.labels[index], "second": self.labels[other]}
        answers |= about_pair(first, second)
        shown = [pictures.as_image(picture) for picture in (first, second)]
        return Example(shown, asked(answers, task))

    def _picture(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """A variant of a picture, as finished as it will be shown."""
        picture = self.arrays[index].astype(np.float32) / 255
        if rng.random() < 0.85:
            picture = augmented(picture, self.domains[index], rng)
        if is_square(picture) and rng.random() < 0.5:
            picture = enlarge(picture)
        return pictures.as_array(pictures.as_image(picture))

    def _second(
        self, first: np.ndarray, domain: str, rng: np.random.Generator
    ) -> tuple[int, np.ndarray]:
        """Another picture and which it is; of the same colour about half of the time."""
        color, wanted = pictures.measure(first).color, rng.random() < 0.5
        index, picture = -1, first
        for _ in range(4):
            index = int(rng.choice(self.members[domain]))
            picture = self._picture(index, rng)
            if (pictures.measure(picture).color == color) == wanted:
                break
        return index, picture

    def _clip(self, index: int, rng: np.random.Generator) -> Example:
        domain = self.domains[index]
        picture = augmented(self.arrays[index].astype(np.float32) / 255, domain, rng)
        clip = clips.draw(picture, clips.SIZES[int(rng.integers(len(clips.SIZES)))], rng)
        answers = {"kind": domain, "content": self.labels[index]} | clip.answers()
        answers |= check(clip.color, rng)
        return Example(clip.frames, asked(answers, "video"))
