"""The masking table as figures read it: checked rows, one setting chosen, one control, names.

A row per masked setting, evaluated data set and control. A setting is what was mined, the strategy,
the weights of the scores, the ratio, the modality and the treatment of its neurons.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd

from mmlens.plots.style import (
    INK,
    DomainStyle,
    Row,
    checked_rows,
    domain_styles,
    label,
    percent,
    span,
)

SETTING_COLUMNS = ("mined", "strategy", "weights", "ratio", "modality", "treatment")
MASKING_COLUMNS = (
    *SETTING_COLUMNS,
    *("evaluated", "control", "n_neurons", "n_questions", "n_seeds"),
    *("baseline", "masked", "control_mean", "control_sd"),
    *("drop", "control_drop", "difference", "low", "high"),
)
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


def ordered(rows: Sequence[Row], column: str, given: Sequence[str] | None = None) -> list[str]:
    """Values of a column in the order of ``given``, else of first appearance; "all" comes last.

    ValueError for a value that ``given`` lacks.
    """
    present = list(dict.fromkeys(str(row[column]) for row in rows))
    if given is not None and (unknown := [p for p in present if p not in (*given, "all")]):
        raise ValueError(
            f"The frame has the {column} {unknown[0]!r}, which is not in {list(given)}."
        )
    order = [one for one in given or present if one in present and one != "all"]
    return [*order, "all"] if "all" in present else order


def styles_of(names: Sequence[str]) -> dict[str, DomainStyle]:
    """Styles by place; "all" is drawn in ink."""
    found = domain_styles([name for name in names if name != "all"])
    return found | {"all": DomainStyle(INK, "circle", "solid")}


def excludes_zero(row: Row) -> bool:
    """Whether the 95% interval of the difference excludes 0; false where there is none."""
    return bool(row["low"] > 0 or row["high"] < 0)


def wrapped(name: str, width: int = 18, lines: int = 2) -> str:
    """A name over a few short lines, cut with an ellipsis where it is longer still; as plotly text.

    >>> wrapped("a_very_long_data_set_name_of_somebody", 16)
    'a_very_long_<br>data_set_name…'
    """
    loose = str(name).replace("_", "_ ").replace("/", "/ ").replace("-", "- ")
    parts = textwrap.wrap(loose, width, break_long_words=True, break_on_hyphens=False) or [""]
    parts = [part.replace("_ ", "_").replace("/ ", "/").replace("- ", "-") for part in parts]
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1].rstrip("_-/ ") + "…"]
    return "<br>".join(label(part) for part in parts)


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
