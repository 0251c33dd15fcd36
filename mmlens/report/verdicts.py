"""Whether silencing a domain's neurons costs its questions more than a control, in words.

Part of :mod:`mmlens.report`, which offers it by name; kept apart for length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mmlens.plots.frames import EFFECT_COLUMNS, Row, at_fraction, checked_rows, with_control
from mmlens.plots.numbers import bound, points, span
from mmlens.report.sections import Answer

CONTROLS = {
    "random": "as many random neurons of the same layers",
    "matched": "as many neurons matched in layer and activation frequency",
}


@dataclass(frozen=True)
class Verdict:
    """Whether silencing a domain's neurons costs that domain's questions more than a control.

    ``drop``, ``control_drop``, ``difference``, ``low`` and ``high`` (its 95% interval) are shares
    of questions (0.02 = two percentage points). ``answer``: "yes" when the interval lies above 0,
    "opposite" when it lies below (the control costs more), "no" when it includes 0.
    """

    domain: str
    fraction: float
    n_neurons: int
    drop: float
    control_drop: float
    difference: float
    low: float
    high: float
    answer: Answer
    sentence: str
    control: str
    n_questions: int


def verdicts(
    effects: pd.DataFrame, control: str = "matched", fraction: float | None = 0.01
) -> list[Verdict]:
    """One verdict per domain on its own questions, in the order of ``effects``.

    ``fraction`` None judges every fraction there is. Needs :data:`mmlens.plots.EFFECT_COLUMNS` and
    rows with ``evaluated`` "own" (a full matrix's diagonal serves as well). ValueError for a
    missing column, an absent control or fraction, no such rows, or an interval that is not a
    number.
    """
    rows = with_control(checked_rows(effects, EFFECT_COLUMNS, "effects"), control)
    if fraction is not None:
        rows = at_fraction(rows, fraction, "effects")
    own: dict[tuple[str, float], Row] = {}
    for row in rows:
        key = (str(row["mask"]), float(row["fraction"]))
        if row["evaluated"] == "own":
            own[key] = row
        elif row["evaluated"] == row["mask"] != "all":
            own.setdefault(key, row)
    if not own:
        raise ValueError(
            "The effects frame needs rows evaluated on the mask's 'own' questions, and has "
            f"{sorted({str(row['evaluated']) for row in rows})}."
        )
    return [_verdict(row) for row in own.values()]


def answer_of(low: float, high: float) -> Answer:
    """Does the mask cost more than the control, by the 95% interval of how much more it costs.

    "yes" above 0, "opposite" below, "no" where 0 is inside or at an end, "unknown" where an end is
    not a number.
    """
    if math.isnan(low) or math.isnan(high):
        return "unknown"
    return "yes" if low > 0 else "opposite" if high < 0 else "no"


def interval_note(n_questions: Sequence[int], per: str) -> str:
    """How to read a list of verdicts: units, what a no means, how many intervals were looked at.

    Args:
        n_questions: of each verdict's interval.
        per: what the verdicts are of, such as ``domain``.
    """
    number = len(n_questions)
    caution = (
        f" {number} intervals were looked at and none is corrected for that: of twenty, one may be "
        "expected to exclude 0 by chance."
    )
    return (
        "Numbers are percentage points of accuracy; in brackets the 95% interval. A no means that "
        f"these questions ({span(n_questions)} per {per}) show no difference, not that there is "
        f"none.{caution if number > 1 else ''}"
    )


def _verdict(row: Row) -> Verdict:
    """Judge one row of effects evaluated on the mask's own questions."""
    low, high, n = float(row["low"]), float(row["high"]), int(row["n_neurons"])
    if n > 0 and (math.isnan(low) or math.isnan(high)):
        raise ValueError(
            f"The effect of silencing {row['mask']!r} at fraction {row['fraction']} has the "
            f"interval [{low}, {high}]: both ends must be numbers."
        )
    answer = answer_of(low, high) if n > 0 else "no"
    return Verdict(
        domain=str(row["mask"]),
        fraction=float(row["fraction"]),
        n_neurons=n,
        drop=float(row["drop"]),
        control_drop=float(row["control_drop"]),
        difference=float(row["difference"]),
        low=low,
        high=high,
        answer=answer,
        sentence=_sentence(row, answer),
        control=str(row["control"]),
        n_questions=int(row["n_questions"]),
    )


def _sentence(row: Row, answer: Answer) -> str:
    """The verdict in words: both drops, their difference with its interval, and the answer."""
    domain, n, control = row["mask"], int(row["n_neurons"]), str(row["control"])
    if n == 0:
        return f"No neuron carries the label {domain}, so there was nothing to silence."
    size = f"{points(abs(row['drop']))} percentage points"
    cost = f"costs {domain} questions {size}"
    if row["drop"] < 0:
        cost = f"raises accuracy on {domain} questions by {size}"
    change = "costs" if row["control_drop"] >= 0 else "gains"
    ending = {
        "yes": "yes, it costs more than the control",
        "no": "no, the interval includes 0",
        "opposite": "no, on the contrary, silencing the control costs more",
    }[answer]
    if answer == "yes" and row["drop"] <= 0:
        ending += " (though accuracy itself did not fall)"
    return (
        f"Silencing the {n} {domain} {'neuron' if n == 1 else 'neurons'} {cost}; silencing "
        f"{CONTROLS.get(control, f'the {control} control')} {change} "
        f"{points(abs(row['control_drop']))}. Difference {points(row['difference'], sign=True)} "
        f"[{bound(row['low'])}, {bound(row['high'])}]: {ending}."
    )
