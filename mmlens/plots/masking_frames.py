"""The masking table as figures read it: one setting chosen, one control, names.

A row per masked setting, evaluated data set and control. A setting is what was mined, the strategy,
the weights of the scores, the ratio, the modality and the treatment of its neurons. A figure varies
two of these and is given a frame in which the others have one value each: :func:`choose` makes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from mmlens.plots.frames import MASKING_COLUMNS, SETTING_COLUMNS, Row, checked_rows
from mmlens.plots.numbers import percent, span
from mmlens.plots.style import label

CONTROL_VALUES = ("control_mean", "control_sd", "control_drop", "difference", "low", "high")


TREATMENT_NAMES = {
    "zero": "set to 0",
    "layer_minimum": "set to layer minimum",
    "keep_only": "all others set to 0",
    "own_tokens": "set to 0 on own tokens",
}


def choose(frame: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows that have these values, such as ``ratio=0.02, evaluated="all"``.

    ValueError for a missing column, or, naming the values there are, for one that is not there.
    """
    checked_rows(frame, (*MASKING_COLUMNS, *wanted), "masking")
    for column, value in wanted.items():
        kept = frame.loc[[_same(one, value) for one in frame[column]]]
        if kept.empty:
            raise ValueError(
                f"The masking frame has {column} {_listed(frame[column])}, and {value} was asked for."
            )
        frame = kept
    return frame


def _same(given: object, wanted: object) -> bool:
    if isinstance(given, int | float) and isinstance(wanted, int | float):
        return math.isclose(given, wanted, rel_tol=1e-6)
    return given == wanted


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(one) for one in dict.fromkeys(values))


def masking_rows(
    frame: pd.DataFrame, varying: Sequence[str], extra: Sequence[str] = ()
) -> list[Row]:
    """Rows of a masking table, in which only the ``varying`` columns may have several values.

    An empty control is ''. ``extra`` names further columns that tell settings apart.

    ValueError for a missing column, an empty frame, several values where a figure shows one, or one
    row given twice.
    """
    rows = checked_rows(frame, (*MASKING_COLUMNS, *extra), "masking")
    names = (*SETTING_COLUMNS, "evaluated", *extra)
    for column in names:
        given = dict.fromkeys(row[column] for row in rows)
        if column not in varying and len(given) > 1:
            raise ValueError(
                f"The masking frame has several values of {column}: {_listed(given)}. Choose one: "
                f"plots.choose(frame, {column}=...)."
            )
    seen = set()
    for row in rows:
        row["control"] = row["control"] if isinstance(row["control"], str) else ""
        key = tuple(row[name] for name in (*names, "control"))
        if key in seen:
            raise ValueError(
                f"The masking frame has two rows for {key}: one is needed per setting, evaluated "
                "data set and control."
            )
        seen.add(key)
    return rows


def against(rows: Sequence[Row], control: str, extra: Sequence[str] = ()) -> list[Row]:
    """One row per setting and evaluated data set: against ``control``, or without any.

    Where that control was not run, the columns that need it are NaN and ``control`` is ''. ValueError
    when the frame has controls, and not this one. ``extra`` names further columns that tell settings
    apart.
    """
    given = sorted({row["control"] for row in rows} - {""})
    if given and control not in given:
        raise ValueError(f"The masking frame has controls {given}, and {control!r} was asked for.")
    blank = dict.fromkeys(CONTROL_VALUES, math.nan) | {"control": ""}
    cells: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in (*SETTING_COLUMNS, "evaluated", *extra))
        if row["control"] == control:
            cells[key] = row
        else:
            cells.setdefault(key, row | blank)
    return list(cells.values())


def setting_text(rows: Sequence[Row], leave_out: Sequence[str] = ()) -> str:
    """What the drawn rows have in common, for a subtitle: 'LA_MU, weights paper, 2% of neurons'."""
    words = {
        "strategy": label,
        "weights": lambda v: f"weights {label(v)}",
        "ratio": lambda v: f"{percent(v)} of neurons",
        "modality": lambda v: "all modalities" if v == "all" else f"{label(v)} neurons",
        "treatment": lambda v: TREATMENT_NAMES.get(v, label(v)),
        "mined": lambda v: "mined on all data" if v == "all" else f"mined on {label(v)}",
        "evaluated": lambda v: "all questions" if v == "all" else f"questions of {label(v)}",
    }
    parts = []
    for column, text in words.items():
        values = {row[column] for row in rows if column in row}
        if column not in leave_out and len(values) == 1:
            parts.append(text(values.pop()))
    return ", ".join(parts)


def control_text(rows: Sequence[Row], control: str) -> str:
    """Which control stands beside the masks, and how many rows have none, for a subtitle."""
    without = sum(not row["control"] for row in rows)
    if without == len(rows):
        return "no control was run"
    seeds = [int(r["n_seeds"]) for r in rows if r["control"] and math.isfinite(r["n_seeds"])]
    text = f"{label(control)} control"
    if seeds:
        text += f" of {span(seeds)} {'set' if max(seeds) == 1 else 'sets'}"
    return f"{text}; {without} of {len(rows)} without it" if without else text


def described(rows: Sequence[Row], control: str, varying: Sequence[str], before: str = "") -> str:
    """A subtitle: what the rows have in common, their questions and their control."""
    questions = span([row["n_questions"] for row in rows])
    return f"{setting_text(rows, varying)};<br>{before}{questions} questions; {control_text(rows, control)}"


def modality_name(name: str) -> str:
    """A modality as figures name it."""
    return "all modalities" if name == "all" else name
