"""How `demo/qwen2-vl` is judged: pictures, pairs and clips apart, and clips in another order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor

from experiments.demos import clips, evaluation

#: Names of controls: another medium instead; a clip that stands still or runs backward.
SHUFFLED = ("shuffled", "shuffled_any")
ORDERS = ("still", "backward")
#: A picture, a list of pictures, or the frames of a clip.
Medium = Image.Image | list[Image.Image] | np.ndarray


def pictures_of(medium: Medium) -> list[Image.Image]:
    """The pictures of a medium that is no clip."""
    return medium if isinstance(medium, list) else [medium]  # type: ignore[list-item]


def task(medium: Medium) -> str:
    """What is shown: a picture, a pair of pictures or a video."""
    if isinstance(medium, np.ndarray):
        return "video"
    return "pair" if isinstance(medium, list) else "picture"


def answer(model: Any, processor: Any, texts: Sequence[str], media: Sequence[Medium]) -> list[str]:
    """Greedy answers about pictures, pairs and clips."""
    found = [""] * len(texts)
    for name in ("picture", "pair", "video"):
        chosen = [index for index, medium in enumerate(media) if task(medium) == name]
        if chosen:
            kind = "videos" if name == "video" else "images"
            asked, shown = [texts[i] for i in chosen], [media[i] for i in chosen]
            written = evaluation.answer(model, processor, asked, shown, kind)
            for index, text in zip(chosen, written, strict=True):
                found[index] = text
    return found


def plain(media: Sequence[Medium], shade: int) -> list[Medium]:
    """Media of the same sizes that show one shade of grey."""
    made: dict[Any, Medium] = {}

    def make(medium: Medium) -> Medium:
        if isinstance(medium, list):
            return [make(picture) for picture in medium]  # type: ignore[misc]
        key = evaluation.size(medium)
        if key not in made:
            made[key] = (
                np.full(key, shade, dtype=np.uint8)
                if isinstance(medium, np.ndarray)
                else Image.new("RGB", medium.size, (shade,) * 3)
            )
        return made[key]

    return [make(medium) for medium in media]


def in_tasks(table: pd.DataFrame) -> dict[str, list[Medium]]:
    """Another medium in the place of each, of the same task: of the same domain, and of any."""
    found = {name: pd.Series(index=table.index, dtype=object) for name in SHUFFLED}
    for _, part in table.groupby(table.medium.map(task)):
        for name, media in evaluation.shuffles(part).items():
            found[name][part.index] = pd.Series(media, index=part.index, dtype=object)
    return {name: list(column) for name, column in found.items()}


def in_other_order(clips_shown: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Clips that stand still at their first frame, and clips that run backward."""
    made = {id(c): (c[:1].repeat(len(c), 0), c[::-1].copy()) for c in clips_shown}
    return {name: [made[id(c)][number] for c in clips_shown] for number, name in enumerate(ORDERS)}


def judge(out: Path, data: Path, split: str, controls: bool) -> pd.DataFrame:
    """Judge a saved checkpoint in float32; `still` and `backward` are judged on clips alone."""
    processor = Qwen2VLProcessor.from_pretrained(out)
    model: Any = Qwen2VLForConditionalGeneration.from_pretrained(out, dtype=torch.float32).eval()
    decoders = {"images": evaluation.open_picture, "videos": clips.decode}
    train = evaluation.read(data / "train.parquet", decoders)
    table = evaluation.read(data / f"{split}.parquet", decoders)
    media = list(table.medium)
    asked = partial(answer, model, processor)
    grey = {"blank": plain(media, 128), "black": plain(media, 0)} if controls else {}
    result = evaluation.evaluate(train, table, asked, grey | (in_tasks(table) if controls else {}))
    result["task"] = table.medium.map(task)
    if controls:
        moving = table[result.task == "video"]
        for name, shown in in_other_order(list(moving.medium)).items():
            written = pd.Series(asked(list(moving.text), shown), index=moving.index)
            result[f"{name}_right"] = (written == moving.answer).astype(float)
    return result


def more_tables(result: pd.DataFrame) -> dict[str, Any]:
    """Figures by task, and of the questions on clips beside clips in another order."""
    found = {"task": evaluation.by(result, "task", evaluation.controls_of(result))}
    named: Any = result.rename(columns={f"{name}_right": name for name in ORDERS})
    orders = [name for name in ORDERS if name in named]
    moving = named[named.task == "video"]
    return {**found, "question on clips": evaluation.by(moving, "question", orders)}
