"""Builds the data of `demo/llava-next`: pictures, the questions on them, and their answers.

Every question is asked in every domain, and every domain has as many square, wide and tall
pictures, so that neither the words of a question nor the size of a picture tells the domain.
`sources` says what has to be installed for this; training and evaluating need none of
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from experiments.demos import pictures
from experiments.demos.llava_next import sources
from experiments.demos.llava_next.sources import CLASSES, Source
from experiments.demos.rows import SPLITS, answers_by_question, answers_of, schema, write
from experiments.demos.training import Example

#: Pictures per split: enough for training, and for intervals of about two points in a test domain.
COUNTS: dict[str, dict[str, int]] = {
    "medical": {"train": 1200, "validation": 120, "test": 330},
    "satellite": {"train": 1200, "validation": 120, "test": 330},
    "document": {"train": 2800, "validation": 120, "test": 330},
    "clothing": {"train": 2450, "validation": 140, "test": 350},
    "handwriting": {"train": 1317, "validation": 120, "test": 360},
}
#: Question types and their wordings.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "kind": (
        "what kind of picture is this?",
        "what type of image is this?",
        "where does this picture come from?",
    ),
    "content": ("what is shown?", "what does the picture show?", "what can be seen here?"),
    "light": (
        "is it bright or dark?",
        "is this picture dark or bright?",
        "how bright is the image?",
    ),
    "side": (
        "which side is brighter, left or right?",
        "is the right or the left side brighter?",
        "on which side is there more light?",
    ),
    "half": (
        "which half is brighter, top or bottom?",
        "is the bottom or the top brighter?",
        "which half of the image has more light?",
    ),
    "color": ("what color is it?", "which color does the picture have?", "name the color."),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "kind": tuple(CLASSES),
    "light": ("bright", "dark"),
    "side": ("left", "right"),
    "half": ("top", "bottom"),
    "color": tuple(pictures.TONES),
}
#: How many wordings of a question are asked of one picture; one where not named.
ASKED = {"content": 2}
#: Kinds of picture for which a negative shows the same thing.
NEGATIVE = ("document", "clothing", "handwriting")


def choices(question: str, domain: str) -> tuple[str, ...]:
    """The possible answers of a question in a domain."""
    return CLASSES[domain] if question == "content" else CHOICES[question]


def compose(
    source: Source, label: str, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """A picture of `size` (width, height) from a source, before it is developed."""
    width, height = size
    if source.pixels is None:
        return sources.write_word(label, source.name, size, rng)
    if source.window is None:
        return _place(source.pixels, size, rng)
    long_side = rng.uniform(*source.window)
    crop = np.array([width, height]) * long_side / max(width, height)
    room = np.array(source.pixels.shape[1::-1]) - crop
    left, top = rng.uniform(0, 1, size=2) * room
    image = Image.fromarray(np.uint8(source.pixels * 255))
    box = (left, top, left + crop[0], top + crop[1])
    image = image.resize(size, Image.Resampling.BICUBIC, box=box)
    return pictures.as_array(image)


def _place(pixels: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """An object on black, anywhere in the picture."""
    width, height = size
    side = int(rng.integers(26, 33))
    image = Image.fromarray(np.uint8(pixels * 255)).resize((side, side), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", size)
    canvas.paste(
        image, (int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1)))
    )
    return pictures.as_array(canvas)


def draw_sources(
    found: list[Source], split: str, count: int, rng: np.random.Generator
) -> Iterator[tuple[Source, str]]:
    """`count` pairs of source and label: labels in turn, sources of a label in turn."""
    usable = [source for source in found if source.split == split]
    labels = CLASSES[usable[0].domain]
    pools = {label: [s for s in usable if s.label in ("", label)] for label in labels}
    for pool in pools.values():
        rng.shuffle(pool)  # type: ignore[arg-type]
    if all(source.window is None and source.pixels is not None for source in usable):
        yield from ((source, source.label) for source in usable[:count])
        return
    for index in range(count):
        label = labels[index % len(labels)]
        pool = pools[label]
        yield pool[(index // len(labels)) % len(pool)], label


def rows(
    found: list[Source], split: str, count: int, rng: np.random.Generator
) -> Iterator[dict[str, object]]:
    """The rows of one domain and split: every picture with all the questions that it settles."""
    layouts = rng.permutation(np.resize(list(pictures.SIZES), count))
    for index, (source, label) in enumerate(draw_sources(found, split, count, rng)):
        size = pictures.SIZES[str(layouts[index % count])]
        picture = compose(source, label, size, rng)
        natural, negative = source.natural, source.domain in NEGATIVE
        data = pictures.encode(pictures.develop(picture, rng, natural, negative))
        measured = pictures.measure(pictures.decode(data))
        name = f"{split}-{source.domain}-{index:04d}"
        answers = {"kind": source.domain, "content": label, **vars(measured)}
        block = Path(source.name).name if source.pixels is None else source.name
        for question, answer in answers.items():
            if answer is None:
                continue
            wordings = rng.choice(QUESTIONS[question], size=ASKED.get(question, 1), replace=False)
            for number, text in enumerate(wordings, start=1):
                yield {
                    "id": f"{name}-{question}-{number}",
                    "domain": source.domain,
                    "text": str(text),
                    "images": [{"bytes": data, "path": f"{name}.jpg"}],
                    "answers": [answer],
                    "choices": list(choices(question, source.domain)),
                    "question": question,
                    "picture": name,
                    "source": f"{source.domain}/{block}",
                }


def build(out: Path, source_folder: Path, seed: int = 0) -> None:
    """Write `train`, `validation` and `test` parquet files to `out`."""
    rng = np.random.default_rng(seed)
    found = {
        "medical": sources.medical(rng),
        "satellite": sources.satellite(source_folder, rng),
        "document": sources.fonts(),
        "clothing": sources.clothing(rng, COUNTS["clothing"]),
        "handwriting": sources.handwriting(rng),
    }
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        made = [
            row
            for domain in CLASSES
            for row in rows(found[domain], split, COUNTS[domain][split], rng)
        ]
        write(made, out / f"{split}.parquet", schema("images"))


class TrainingPictures:
    """The pictures of a shipped split, drawn with augmentation and measured anew."""

    def __init__(self, path: Path) -> None:
        table: Any = pd.read_parquet(path)
        self.wordings = {
            str(key): sorted(set(group)) for key, group in table.groupby("question").text
        }
        self.answers, self.classes = answers_of(table), answers_by_question(table)
        content = table[table.question == "content"].drop_duplicates("picture")
        self.domains = list(content.domain)
        self.labels = [answers[0] for answers in content.answers]
        self.arrays = [
            np.uint8(np.round(pictures.decode(images[0]["bytes"]) * 255))
            for images in content.images
        ]

    def __len__(self) -> int:
        return len(self.arrays)

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """A variant of a picture, with the answers that hold for it."""
        domain = self.domains[index]
        picture: Any = self.arrays[index].astype(np.float32) / 255
        if rng.random() < 0.85:
            picture = augmented(picture, domain, rng)
        finished = pictures.as_image(picture)
        measured = vars(pictures.measure(pictures.as_array(finished)))
        answers = {"kind": domain, "content": self.labels[index]}
        answers |= {question: answer for question, answer in measured.items() if answer is not None}
        return Example(finished, answers, first=("content",))


def augmented(picture: np.ndarray, domain: str, rng: np.random.Generator) -> np.ndarray:
    """A training variant of a picture: text is never mirrored, and only some domains have negatives."""
    flip, negative = domain not in ("document", "handwriting"), domain in NEGATIVE
    return pictures.augment(picture, rng, flip=flip, negative=negative)
