"""What is asked of every shipped demo: of its data, its card and its answers."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

Tables = Mapping[str, pd.DataFrame]
CONTROLS = ("shuffled", "shuffled_any", "guess", "guess_domain")


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
