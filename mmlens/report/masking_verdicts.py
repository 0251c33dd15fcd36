"""Whether masking a modality's neurons costs questions more than a control, in words.

Rows of the masking table, modality by evaluated data set, as :mod:`mmlens.report.verdicts` does
it for domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmlens.plots.frames import MASKING_COLUMNS, SETTING_COLUMNS, Row, checked_rows
from mmlens.plots.numbers import bound, points
from mmlens.report.sections import Answer, Badge, Part, Text, Verdicts
from mmlens.report.verdicts import answer_of, interval_note

#: What tells one verdict from another.
VERDICT_COLUMNS = (*SETTING_COLUMNS, "evaluated")
CONTROLS = {"matched": "matched random", "random": "random"}
#: What is done to the neurons; {} is which ones.
TREATMENTS = {
    "zero": "Silencing {}",
    "layer_minimum": "Setting {} to the least value of their layer",
    "keep_only": "Keeping {} alone",
    "own_tokens": "Silencing {} at tokens of their own modality alone",
}


@dataclass(frozen=True)
class MaskingVerdict:
    """Whether masking a modality's neurons costs the questions of a data set more than a control.

    ``difference`` (the control's accuracy minus the mask's), ``low`` and ``high`` (its 95%
    interval) are shares of questions. ``answer``: as :func:`mmlens.report.verdicts.answer_of`;
    "unknown" where no control was run, "no" where there is no neuron to mask. ``setting``: the
    values of :data:`VERDICT_COLUMNS`.
    """

    modality: str
    evaluated: str
    n_neurons: int
    n_questions: int
    difference: float
    low: float
    high: float
    answer: Answer
    sentence: str
    setting: tuple[Any, ...]

    @property
    def badge(self) -> Badge:
        """What a report's list of verdicts shows of it."""
        modality = "all modalities" if self.modality == "all" else self.modality
        evaluated = "all questions" if self.evaluated == "all" else self.evaluated
        return Badge(f"{modality} \u2192 {evaluated}", self.answer, self.sentence)


def masking_verdicts(
    table: pd.DataFrame, control: str = "matched", **where: Any
) -> list[MaskingVerdict]:
    """One verdict per masked setting and evaluated data set, in the order of the table.

    A setting for which this control was not run gets a sentence that says so.

    Args:
        table: columns :data:`MASKING_COLUMNS`; empty or not-a-number where no control was run.
        control: ``matched`` or ``random``.
        where: values that columns must have, such as ``strategy="LA_MU", ratio=0.02``.

    Raises:
        ValueError: a missing column, an unknown column in ``where``, no row left, or several rows
            for one setting and control.
    """
    rows = checked_rows(table, MASKING_COLUMNS, "masking")
    if unknown := [name for name in where if name not in MASKING_COLUMNS]:
        raise ValueError(
            f"The masking table has no column {unknown[0]!r}; it has {', '.join(MASKING_COLUMNS)}."
        )
    rows = [row for row in rows if all(_same(row[name], value) for name, value in where.items())]
    chosen: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        setting = tuple(row[name] for name in VERDICT_COLUMNS)
        here = _named(row["control"])
        if here == control and _named(chosen.get(setting, {}).get("control")) == control:
            raise ValueError(
                f"The masking table has two rows of the control {control!r} for {setting}: one is "
                "allowed."
            )
        if here == control or setting not in chosen:
            chosen[setting] = row
    if not chosen:
        asked = ", ".join(f"{name}={value!r}" for name, value in where.items()) or "anything"
        raise ValueError(f"The masking table has no row with {asked}.")
    return [_verdict(setting, row, control) for setting, row in chosen.items()]


def masking_parts(table: pd.DataFrame, control: str = "matched", **where: Any) -> list[Part]:
    """How many verdicts say what, the verdicts, and how to read them; as for the table's verdicts.

    Arguments and errors as in :func:`masking_verdicts`.
    """
    found = masking_verdicts(table, control, **where)
    tally = {name: sum(v.answer == name for v in found) for name in ("yes", "no", "opposite")}
    lead = (
        f"Does masking a modality's neurons cost more than masking the {control} control? Of "
        f"{len(found)} {'comparison' if len(found) == 1 else 'comparisons'}: yes in {tally['yes']}, "
        f"no in {tally['no']}, and in {tally['opposite']} the control costs more."
    )
    if unknown := len(found) - sum(tally.values()):
        lead += f" In {unknown} it is not known."
    asked = [v.n_questions for v in found if not math.isnan(v.low)]
    note = [Text(interval_note(asked, "comparison"), "note")] if asked else []
    return [Text(lead, "lead"), Verdicts([v.badge for v in found]), *note]


def _same(found: Any, asked: Any) -> bool:
    if isinstance(found, float) and isinstance(asked, int | float):
        return math.isclose(found, asked, abs_tol=1e-9)
    return found == asked


def _named(control: Any) -> str:
    """The control's name; none for an empty cell, which pandas reads as not-a-number."""
    return control if isinstance(control, str) else ""


def _verdict(setting: Sequence[Any], row: Row, control: str) -> MaskingVerdict:
    n, compared = int(row["n_neurons"]), _named(row["control"]) == control
    nothing = math.nan
    difference, low, high = (
        float(row[name]) if compared else nothing for name in ("difference", "low", "high")
    )
    answer = answer_of(low, high) if n > 0 else "no"
    return MaskingVerdict(
        modality=str(row["modality"]),
        evaluated=str(row["evaluated"]),
        n_neurons=n,
        n_questions=int(row["n_questions"]),
        difference=difference,
        low=low,
        high=high,
        answer=answer,
        sentence=_sentence(row, control, difference, (low, high)),
        setting=tuple(setting),
    )


def _sentence(row: Row, control: str, difference: float, interval: tuple[float, float]) -> str:
    n, modality, evaluated = int(row["n_neurons"]), str(row["modality"]), str(row["evaluated"])
    if n == 0:
        named = "any modality" if modality == "all" else f"the modality {modality}"
        return f"No neuron was selected for {named}, so there was nothing to mask."
    noun = "neuron" if n == 1 else "neurons"
    which = (
        f"the {n:,} {noun} of all modalities"
        if modality == "all"
        else f"the {n:,} {modality} {noun}"
    )
    done = TREATMENTS.get(str(row["treatment"]), f"{row['treatment']} of {{}}").format(which)
    asked = "all questions" if evaluated == "all" else f"questions of {evaluated}"
    kind = CONTROLS.get(control, control)
    others = f"{'a ' if n == 1 else ''}{kind} {noun}"
    if math.isnan(difference):
        return (
            f"{done} {_accuracy(row, asked)}; no {control} control was run, so nothing is known of "
            "what other neurons would have cost."
        )
    return (
        f"{done} costs {asked} {_compared(difference, interval, others)}. Accuracy {_change(row)}."
    )


def _compared(difference: float, interval: tuple[float, float], others: str) -> str:
    """How much more than the control, and its interval."""
    low, high = interval
    size = bound(abs(difference))
    noun = "point" if size == "1.0" else "points"
    if abs(difference) <= 1e-12:
        said = f"as much as {others}"
    else:
        said = f"{size} {noun} {'more' if difference > 0 else 'less'} than {others}"
    if math.isnan(low) or math.isnan(high):
        return f"{said}; there is no interval, so this may be chance"
    between = f"[{bound(low)}, {bound(high)}]"
    if abs(difference) <= 1e-12:
        return f"{said} {between}"
    if low <= 0 <= high:
        return f"{said}, but the interval of the difference includes 0 {between}"
    # The interval is that of the difference, whose sign "less" has turned.
    return (
        f"{said} {between}"
        if difference > 0
        else f"{said}, difference {points(difference)} {between}"
    )


def _accuracy(row: Row, asked: str) -> str:
    drop = float(row["drop"])
    size = bound(abs(drop))
    noun = "percentage point" if size == "1.0" else "percentage points"
    if abs(drop) <= 1e-12:
        return f"leaves accuracy on {asked} at {100 * row['baseline']:.1f}%"
    verb = "lowers" if drop > 0 else "raises"
    return f"{verb} accuracy on {asked} by {size} {noun}, {_from_to(row)}"


def _change(row: Row) -> str:
    drop = float(row["drop"])
    if abs(drop) <= 1e-12:
        return f"stays at {100 * row['baseline']:.1f}%"
    return f"{'falls' if drop > 0 else 'rises'} {_from_to(row)}"


def _from_to(row: Row) -> str:
    return f"from {100 * row['baseline']:.1f}% to {100 * row['masked']:.1f}%"
