"""The masking table as figures read it: checked rows, one setting chosen, one control, names.

A row per masked setting, evaluated data set and control. A setting is what was mined, the strategy,
the weights of the scores, the ratio, the modality and the treatment of its neurons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from mmlens.plots.frames import MASKING_COLUMNS, SETTING_COLUMNS, Row, checked_rows
from mmlens.plots.numbers import percent, span
from mmlens.plots.style import label

CONTROL_VALUES = ("control_mean", "control_sd", "control_drop", "difference", "low", "high")


#: What is drawn of several values when none is asked for: methods.md's defaults, and all data.
STANDARD: Mapping[str, object] = {
    "mined": "all",
    "strategy": "LA_MU",
    "weights": "paper",
    "ratio": 0.02,
    "modality": "all",
    "treatment": "zero",
    "evaluated": "all",
}


TREATMENTS = {
    "zero": "set to 0",
    "layer_minimum": "set to layer minimum",
    "keep_only": "all others set to 0",
    "own_tokens": "set to 0 on own tokens",
}


def masking_rows(frame: pd.DataFrame, extra: Sequence[str] = ()) -> list[Row]:
    """Rows of a masking table; an empty control is ''.

    ValueError for a missing column, an empty frame, or one cell given twice.
    """
    rows = checked_rows(frame, (*MASKING_COLUMNS, *extra), "masking")
    seen = set()
    for row in rows:
        row["control"] = row["control"] if isinstance(row["control"], str) else ""
        key = tuple(row[name] for name in (*SETTING_COLUMNS, "evaluated", "control", *extra))
        if key in seen:
            raise ValueError(
                f"The masking frame has two rows for {key}: one is needed per setting, evaluated "
                "data set and control."
            )
        seen.add(key)
    return rows


def choose(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """The rows of one value of each column named.

    None takes the only value there is, or of several the one in :data:`STANDARD`. ValueError, naming
    the values there are, when that cannot be told or the value asked for is not there.
    """
    found = list(rows)
    for column, value in wanted.items():
        present = list(dict.fromkeys(row[column] for row in found))
        named = ", ".join(str(one) for one in present)
        if value is None and len(present) == 1:
            continue
        sought = STANDARD.get(column) if value is None else value
        kept = [row for row in found if _same(row[column], sought)]
        if not kept and value is None:
            raise ValueError(
                f"The masking frame has several values of {column}: {named}. Say which one to draw."
            )
        if not kept:
            raise ValueError(f"The masking frame has {column} {named}, and {value} was asked for.")
        found = kept
    return found


def _same(given: object, wanted: object) -> bool:
    if isinstance(given, int | float) and isinstance(wanted, int | float):
        return math.isclose(given, wanted, rel_tol=1e-6)
    return given == wanted


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
        "treatment": lambda v: TREATMENTS.get(v, label(v)),
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
