"""What is asked of every shipped demo: of its data, its card and its answers."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

import mmlens

Tables = Mapping[str, pd.DataFrame]
SPLITS = ("train", "validation", "test")
#: Domains of the demos that share their pictures.
PICTURES = {"medical", "satellite", "document", "clothing", "handwriting"}
CONTROLS = ("shuffled", "shuffled_any", "guess", "guess_domain")


def folder(name: str) -> Path:
    """The folder of a demo."""
    return Path(mmlens.__file__).parent / "demo" / name


def picture(part: Mapping[str, Any]) -> Image.Image:
    """A picture of a row."""
    return Image.open(io.BytesIO(part["bytes"])).convert("RGB")


def grey(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Grey pictures of the same sizes."""
    return [Image.new("RGB", one.size, (128, 128, 128)) for one in pictures]


def generated(model: Any, processor: Any, prompts: Sequence[str], **media: Any) -> list[str]:
    """Greedy answers to prompts, in one batched `generate`."""
    inputs = processor(text=list(prompts), **media, padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=8)
    new = tokens[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]


def assert_folder_is_small(name: str, data_mb: float = 0) -> None:
    """At most 8 MB of model, and so much of data."""
    place = folder(name)
    sizes = {True: 0, False: 0}
    for file in (found for found in place.rglob("*") if found.is_file()):
        sizes[place / "data" in file.parents] += file.stat().st_size
    assert sizes[False] <= 8 * 2**20
    assert sizes[True] <= data_mb * 2**20


def assert_answers_are_those_of_the_card(
    ask: Callable[[Iterable[str], Sequence[Any]], list[str]],
    table: pd.DataFrame,
    card: Mapping[str, Any],
    shown: Callable[[Any], Any],
    blank: Callable[[list[Any]], Sequence[Any]],
) -> None:
    """Twenty questions a domain: close to the card, and far above those on blank media."""
    asked = table.groupby("domain").sample(20, random_state=0)
    wanted = asked.answers.str[0].to_numpy()
    media = [shown(row) for row in asked.itertuples()]
    right = pd.Series(np.array(ask(asked.text, media)) == wanted, index=asked.domain)
    control = np.mean(np.array(ask(asked.text, blank(media))) == wanted)
    for domain, answered in right.groupby(level=0):
        assert_as_expected(answered, card["results"]["domain"][domain]["accuracy"])
    assert right.mean() >= 0.85
    assert right.mean() >= control + 0.25


def columns(*media: str) -> list[str]:
    """The columns of a demo's data in their order, with those of its media."""
    first, *more = media
    return [
        *("id", "domain", "text", first, "answers", "choices", "question", "picture", "source"),
        *more,
    ]


def assert_words_are_known(tokenizer: Any, tables: Iterable[pd.DataFrame]) -> None:
    """Questions and answers survive the tokenizer."""
    for table in tables:
        for text in {*table.text.unique(), *table.answers.explode().unique()}:
            ids = tokenizer(text, add_special_tokens=False).input_ids
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text


def assert_rows_are_whole(tables: Tables, domains: set[str], *media: str) -> None:
    """One answer each, among the choices; a medium is of one domain and named by its split."""
    for split, table in tables.items():
        assert list(table.columns) == columns(*media)
        assert table.id.is_unique
        assert set(table.domain) == domains
        assert all(len(answers) == 1 for answers in table.answers)
        assert all(a[0] in set(c) for a, c in zip(table.answers, table.choices, strict=True))
        assert table.groupby("picture").domain.nunique().max() == 1
        assert table.picture.str.startswith(split).all()


def assert_splits_share_nothing(tables: Tables, *media: str) -> None:
    """No medium, no source and no file is in two splits."""
    for column in ("picture", "source", "id"):
        sets = [set(table[column]) for table in tables.values()]
        assert sum(map(len, sets)) == len(set.union(*sets))
    contents = [
        {part["bytes"] for parts in table[column] for part in parts}
        for table in tables.values()
        for column in media
    ]
    assert sum(map(len, contents)) == len(set.union(*contents))


def assert_domain_is_not_told(
    tables: Tables, shape: Callable[[Any], object], above_chance: float = 0.04
) -> None:
    """The best guess from a question's text and its medium's shape is little better than chance."""
    cells = {}
    for split in ("train", "test"):
        table = tables[split]
        shapes = {
            row.picture: str(shape(row)) for row in table.drop_duplicates("picture").itertuples()
        }
        cells[split] = table.assign(cell=table.text + " " + table.picture.map(shapes))
    share = 1 / cells["train"].groupby("domain").size()  # every domain counts the same
    weights = cells["train"].groupby(["cell", "domain"]).size().unstack(fill_value=0) * share
    known = cells["test"][cells["test"].cell.isin(weights.index)]
    assert len(known) > 0.9 * len(cells["test"])
    right = (known.cell.map(weights.idxmax(axis=1)) == known.domain).groupby(known.domain).mean()
    assert right.mean() <= 1 / len(share) + above_chance


def assert_figures_convince(figures: Mapping[str, Any], blanks: Iterable[str]) -> None:
    """At least 0.85, inside its interval, and 0.2 above every control."""
    assert figures["accuracy"] >= 0.85
    low, high = figures["interval"]
    assert low <= figures["accuracy"] <= high
    assert max(figures[name] for name in (*blanks, *CONTROLS)) < figures["accuracy"] - 0.2


def assert_as_expected(right: pd.Series, expected: float) -> None:
    """The share of right answers is not far below that of the card."""
    spread = (expected * (1 - expected) / len(right)) ** 0.5
    assert right.mean() >= expected - 4 * spread - 0.01
