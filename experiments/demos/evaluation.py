"""Evaluation of a demo checkpoint: exact match of greedy answers,
beside controls that show something else in the medium's place.

A medium is a picture, a list of pictures, a sound or a video. What a demo's controls show is
its own choice: any mapping of a name to one medium per row.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

#: Answers of a model to texts, each about its medium.
Answer = Callable[[Sequence[str], Sequence[Any]], list[str]]
#: Questions that are answered at once.
BATCH = 64
#: Columns of an evaluation that are not figures.
KEYS = ("id", "domain", "question", "picture", "source", "answer")
#: What a part of a message that holds a medium is called, by the column of the data.
PARTS = {"images": "image", "audios": "audio", "videos": "video"}
#: What a processor calls the media, by the column of the data.
ARGUMENTS = {"images": "images", "audios": "audio", "videos": "videos"}


def open_picture(data: bytes) -> Image.Image:
    """The bytes of a picture as an RGB image."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def read(path: Path, decoders: Mapping[str, Callable[[bytes], Any]]) -> pd.DataFrame:
    """A split as a table, with `answer`, and a decoded `medium` shared by the rows that show it.

    `decoders`: how the bytes of each media column are decoded. `kind` is the column that a row's
    medium stands in; several media of a row make a list.
    """
    table = pd.read_parquet(path)
    decoded: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for column, decode in decoders.items():
        for name, parts in zip(table.picture, table[column], strict=True):
            if name not in decoded and parts is not None and len(parts):
                media = [decode(part["bytes"]) for part in parts]
                decoded[name] = media[0] if len(media) == 1 else media
                kinds[name] = column
    table["answer"] = table.answers.str[0]
    table["medium"] = table.picture.map(decoded)
    table["kind"] = table.picture.map(kinds)
    return table.drop(columns=list(decoders))


def size(medium: Any) -> tuple[int, ...]:
    """The size of a medium, to sort by: width and height of a picture, shape of an array."""
    if isinstance(medium, list):
        return tuple(number for part in medium for number in size(part))
    return medium.size if isinstance(medium, Image.Image) else tuple(medium.shape)


@torch.inference_mode()
def answer(
    model: Any,
    processor: Any,
    texts: Sequence[str],
    media: Sequence[Any],
    kind: str,
    **options: Any,
) -> list[str]:
    """Greedy answers through the chat template and `generate`; the same question is asked once.

    A processor without a chat template is given the bare question.

    `kind`: the data's column of these media. `options`: further arguments of the processor,
    such as a sampling rate.
    """
    keys = [(text, id(medium)) for text, medium in zip(texts, media, strict=True)]
    asked = dict(zip(keys, zip(texts, media, strict=True), strict=True))
    rows = sorted(asked.items(), key=lambda item: size(item[1][1]))  # little padding
    has_chat = getattr(processor, "chat_template", None) is not None
    written: dict[tuple[str, int], str] = {}
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        prompts = []
        for _, (text, medium) in part:
            count = len(medium) if isinstance(medium, list) else 1
            content = [{"type": PARTS[kind]}] * count + [{"type": "text", "text": text}]
            message = [{"role": "user", "content": content}]
            prompts.append(
                processor.apply_chat_template(message, add_generation_prompt=True)
                if has_chat
                else text
            )
        shown = {ARGUMENTS[kind]: [medium for _, (_, medium) in part]}
        inputs = processor(text=prompts, **shown, padding=True, return_tensors="pt", **options)
        tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        found = processor.batch_decode(new, skip_special_tokens=True)
        written |= {key: text.strip() for (key, _), text in zip(part, found, strict=True)}
    return [written[key] for key in keys]


def plain_pictures(pictures: Sequence[Image.Image]) -> dict[str, list[Image.Image]]:
    """A grey and a black picture of the size of each picture."""
    found = {}
    for name, shade in (("blank", (128, 128, 128)), ("black", (0, 0, 0))):
        made = {size: Image.new("RGB", size, shade) for size in {p.size for p in pictures}}
        found[name] = [made[picture.size] for picture in pictures]
    return found


def shuffles(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Another medium in the place of each: of the same domain, and of any domain."""
    rng = np.random.default_rng(0)
    first = table.drop_duplicates("picture")
    within: dict[str, Any] = {}
    for _, group in first.groupby("domain"):
        within |= dict(zip(group.picture, _others(list(group.medium), rng), strict=True))
    anywhere = dict(zip(first.picture, _others(list(first.medium), rng), strict=True))
    return {
        "shuffled": [within[name] for name in table.picture],
        "shuffled_any": [anywhere[name] for name in table.picture],
    }


def _others(media: list[Any], rng: np.random.Generator) -> list[Any]:
    """The same media with every one in another's place."""
    order = rng.permutation(len(media))
    moved = np.empty(len(media), dtype=int)
    moved[order] = np.roll(order, 1)
    return [media[index] for index in moved]


def guesses(train: pd.DataFrame, test: pd.DataFrame, by: list[str]) -> pd.Series:
    """The commonest training answer to questions of the same `by`."""
    best = train.groupby(by).answer.agg(lambda answers: answers.value_counts().index[0])
    joined: Any = test.join(best.rename("guess"), on=by)
    return joined["guess"]


def evaluate(
    train: pd.DataFrame,
    test: pd.DataFrame,
    answer: Answer,
    controls: Mapping[str, Sequence[Any]],
) -> pd.DataFrame:
    """One column of right/wrong for the model and for each control, beside the rows' keys.

    `test` has the columns `text`, `medium` and `KEYS`; `controls` maps the name of a control to the
    media shown instead, one per row. Best guesses from the answers of `train` come last.
    """
    result: Any = test[list(KEYS)].copy()
    for name, media in {"accuracy": test.medium, **controls}.items():
        result[f"{name}_text"] = answer(list(test.text), list(media))
        result[name] = result[f"{name}_text"] == result.answer
        print(f"{name}: {result[name].mean():.4f}")
    result["guess"] = guesses(train, test, ["question"]) == result.answer
    result["guess_domain"] = guesses(train, test, ["question", "domain"]) == result.answer
    return result


def judge(
    out: Path,
    data: Path,
    split: str,
    controls: bool,
    *,
    model_class: Any = AutoModelForImageTextToText,
    kind: str = "images",
    decode: Callable[[bytes], Any] = open_picture,
    plain: Callable[[Sequence[Any]], Mapping[str, list[Any]]] = plain_pictures,
    **options: Any,
) -> pd.DataFrame:
    """Judge a saved checkpoint in float32, on data of one medium per question.

    Args:
        out: folder of the checkpoint.
        data: folder of the splits.
        split: the one that is asked.
        controls: also show plain media, and those of other questions.
        model_class: loads the checkpoint.
        kind, decode: column of the media, and how their bytes are decoded.
        plain: the plain media in the place of each.
        options: further arguments of the processor.
    """
    model = model_class.from_pretrained(out, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(out)
    train, table = (read(data / f"{one}.parquet", {kind: decode}) for one in ("train", split))
    shown = {**plain(list(table.medium)), **shuffles(table)} if controls else {}
    return evaluate(train, table, partial(answer, model, processor, kind=kind, **options), shown)


def interval(result: pd.DataFrame) -> tuple[float, float]:
    """95 % bootstrap interval of the accuracy, 2000 times resampling whole sources."""
    blocks = result.groupby("source")["accuracy"].agg(["sum", "size"]).to_numpy(dtype=float)
    rng = np.random.default_rng(0)
    picked = rng.integers(len(blocks), size=(2000, len(blocks)))
    means = blocks[picked, 0].sum(1) / blocks[picked, 1].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def figures(part: Any, controls: Sequence[str]) -> dict[str, Any]:
    """Accuracy, controls, interval and counts of some rows of an evaluation, as plain types."""
    return {
        **{name: round(float(part[name].mean()), 4) for name in ("accuracy", *controls)},
        "interval": [round(value, 4) for value in interval(part)],
        "questions": len(part),
        "pictures": int(part.picture.nunique()),
        "sources": int(part.source.nunique()),
    }


def by(result: pd.DataFrame, key: Any, controls: Sequence[str]) -> dict[str, Any]:
    """The figures of each group of an evaluation."""
    return {str(name): figures(part, controls) for name, part in result.groupby(key)}


def controls_of(result: pd.DataFrame) -> list[str]:
    """The names of an evaluation's controls."""
    return [str(name) for name in result if result[name].dtype == bool and name != "accuracy"]


def tables(result: pd.DataFrame) -> dict[str, Any]:
    """Accuracy, interval and controls by domain, by question and by both, as plain types."""
    controls = controls_of(result)
    grid: Any = result.pivot_table(
        index="domain", columns="question", values="accuracy", aggfunc="mean"
    )
    return {
        "overall": figures(result, controls),
        "domain": by(result, "domain", controls),
        "question": by(result, "question", controls),
        "domain_question": {
            str(domain): {str(q): round(float(v), 4) for q, v in row.dropna().items()}
            for domain, row in grid.iterrows()
        },
    }
