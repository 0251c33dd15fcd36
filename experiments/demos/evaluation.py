"""Evaluation of a demo checkpoint: exact match of greedy answers,
beside controls without the picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

#: The controls, in the order of the tables.
CONTROLS = ("blank", "black", "shuffled", "shuffled_any", "guess", "guess_domain")


def read(path: Path) -> pd.DataFrame:
    """A split as a table, with `answer` and a decoded `image` shared by the rows of a picture."""
    table = pd.read_parquet(path)
    decoded: dict[str, Image.Image] = {}
    for name, images in zip(table.picture, table.images, strict=True):
        if name not in decoded:
            decoded[name] = Image.open(io.BytesIO(images[0]["bytes"])).convert("RGB")
    table["answer"] = table.answers.str[0]
    table["image"] = table.picture.map(decoded)
    return table.drop(columns="images")


@torch.inference_mode()
def answer(
    model: Any, processor: Any, texts: Sequence[str], images: Sequence[Image.Image], batch: int = 64
) -> list[str]:
    """Greedy answers through the chat template and `generate`; the same question is asked once."""
    keys = [(text, id(image)) for text, image in zip(texts, images, strict=True)]
    asked = dict(zip(keys, zip(texts, images, strict=True), strict=True))
    rows = sorted(asked.items(), key=lambda item: item[1][1].size)  # little padding
    written: dict[tuple[str, int], str] = {}
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        prompts = []
        for _, (text, _) in part:
            content = [{"type": "image"}, {"type": "text", "text": text}]
            message = [{"role": "user", "content": content}]
            prompts.append(processor.apply_chat_template(message, add_generation_prompt=True))
        shown = [image for _, (_, image) in part]
        inputs = processor(text=prompts, images=shown, padding=True, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        found = processor.batch_decode(new, skip_special_tokens=True)
        written |= {key: text.strip() for (key, _), text in zip(part, found, strict=True)}
    return [written[key] for key in keys]


def replacements(table: pd.DataFrame, seed: int = 0) -> dict[str, list[Image.Image]]:
    """Each control's pictures: grey, black, another of the same domain, another of any domain."""
    rng = np.random.default_rng(seed)
    plain = {}
    for name, shade in (("blank", (128, 128, 128)), ("black", (0, 0, 0))):
        made = {size: Image.new("RGB", size, shade) for size in {i.size for i in table.image}}
        plain[name] = [made[image.size] for image in table.image]
    first = table.drop_duplicates("picture")
    within: dict[str, Image.Image] = {}
    for _, group in first.groupby("domain"):
        within |= dict(zip(group.picture, _others(list(group.image), rng), strict=True))
    anywhere = dict(zip(first.picture, _others(list(first.image), rng), strict=True))
    return plain | {
        "shuffled": [within[name] for name in table.picture],
        "shuffled_any": [anywhere[name] for name in table.picture],
    }


def _others(images: list[Image.Image], rng: np.random.Generator) -> list[Image.Image]:
    """The same images with every one in another's place."""
    order = rng.permutation(len(images))
    moved = np.empty(len(images), dtype=int)
    moved[order] = np.roll(order, 1)
    return [images[index] for index in moved]


def guesses(train: pd.DataFrame, test: pd.DataFrame, by: list[str]) -> pd.Series:
    """The commonest training answer of each cell of `by`."""
    best = (
        train.groupby(by)
        .answer.agg(lambda answers: answers.value_counts().index[0])
        .rename("guess")
    )
    joined: Any = test.join(best, on=by)
    return joined["guess"]


def evaluate(
    model: Any,
    processor: Any,
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    controls: bool = True,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """One column of right/wrong for the model and for each control, beside the rows' keys."""
    result: Any = test[["id", "domain", "question", "picture", "source", "answer"]].copy()
    shown = {"accuracy": list(test.image)} | (replacements(test) if controls else {})
    for name, images in shown.items():
        result[f"{name}_text"] = answer(model, processor, list(test.text), images)
        result[name] = result[f"{name}_text"] == result.answer
        log(f"{name}: {result[name].mean():.4f}")
    result["guess"] = guesses(train, test, ["question"]) == result.answer
    result["guess_domain"] = guesses(train, test, ["question", "domain"]) == result.answer
    return result


def interval(
    result: pd.DataFrame, column: str, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of a mean, resampling whole sources."""
    blocks = result.groupby("source")[column].agg(["sum", "size"]).to_numpy(dtype=float)
    rng = np.random.default_rng(seed)
    picked = rng.integers(len(blocks), size=(draws, len(blocks)))
    means = blocks[picked, 0].sum(1) / blocks[picked, 1].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def tables(result: pd.DataFrame) -> dict[str, Any]:
    """Accuracy, interval and controls by domain, by question and by both, as plain types."""
    names = ["accuracy", *(name for name in CONTROLS if name in result)]

    def figures(part: Any) -> dict[str, Any]:
        found: dict[str, Any] = {name: round(float(part[name].mean()), 4) for name in names}
        found["interval"] = [round(value, 4) for value in interval(part, "accuracy")]
        return found | {
            "questions": len(part),
            "pictures": int(part.picture.nunique()),
            "sources": int(part.source.nunique()),
        }

    grid: Any = result.pivot_table(
        index="domain", columns="question", values="accuracy", aggfunc="mean"
    )
    return {
        "overall": figures(result),
        "domain": {str(key): figures(part) for key, part in result.groupby("domain")},
        "question": {str(key): figures(part) for key, part in result.groupby("question")},
        "domain_question": {
            str(domain): {str(q): round(float(v), 4) for q, v in row.items()}
            for domain, row in grid.iterrows()
        },
    }
