"""Whether masking neurons costs questions more than masking a control: one verdict for both papers.

A verdict is of a row of MMNeuron's effects (a domain's neurons, its own questions) or of MINER's
masking table (a modality's neurons, a data set's questions). The 95% interval of how much more the
mask costs decides; :mod:`mmlens.report.verdict_sentences` says it in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmlens.plots.frames import (
    EFFECT_COLUMNS,
    MASKING_COLUMNS,
    SETTING_COLUMNS,
    Row,
    at_fraction,
    checked_rows,
    with_control,
)
from mmlens.plots.numbers import span
from mmlens.report.sections import Answer, Badge, Part, Text, Verdicts
from mmlens.report.verdict_sentences import domain_sentence, masking_sentence

#: What tells one verdict of the masking table from another.
_KEY = (*SETTING_COLUMNS, "evaluated")


@dataclass(frozen=True)
class Verdict:
    """Whether masking neurons costs questions more than masking a control.

    Attributes:
        owner: whose neurons: a domain, a modality, or ``all``.
        evaluated: whose questions: ``own``, a data set, or ``all``.
        fraction: share of the module's neurons that was selected.
        control: what the mask is compared with.
        n_neurons, n_questions: masked, and asked.
        difference: the control's accuracy minus the mask's, a share of questions (0.02 is two
            percentage points); NaN where this control was not run.
        low, high: its 95% interval.
        answer: as :func:`answer_of`; "unknown" where this control was not run, "no" where there is
            no neuron to mask.
        sentence: the verdict in words.
    """

    owner: str
    evaluated: str
    fraction: float
    control: str
    n_neurons: int
    n_questions: int
    difference: float
    low: float
    high: float
    answer: Answer
    sentence: str

    @property
    def badge(self) -> Badge:
        """What a report's list of verdicts shows of it."""
        if self.evaluated == "own":
            return Badge(self.owner, self.answer, self.sentence)
        owner = "all modalities" if self.owner == "all" else self.owner
        evaluated = "all questions" if self.evaluated == "all" else self.evaluated
        return Badge(f"{owner} \u2192 {evaluated}", self.answer, self.sentence)


def answer_of(low: float, high: float) -> Answer:
    """Does the mask cost more than the control, by the 95% interval of how much more it costs.

    "yes" above 0, "opposite" below, "no" where 0 is inside or at an end, "unknown" where an end is
    not a number.
    """
    if math.isnan(low) or math.isnan(high):
        return "unknown"
    return "yes" if low > 0 else "opposite" if high < 0 else "no"


def domain_verdicts(
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
    for row in own.values():
        if row["n_neurons"] > 0 and answer_of(row["low"], row["high"]) == "unknown":
            raise ValueError(
                f"The effect of silencing {row['mask']!r} at fraction {row['fraction']} has the "
                f"interval [{row['low']}, {row['high']}]: both ends must be numbers."
            )
    return [_domain_verdict(row) for row in own.values()]


def _domain_verdict(row: Row) -> Verdict:
    found = _judged(row, str(row["mask"]), "own", float(row["fraction"]), str(row["control"]))
    return Verdict(**found, sentence=domain_sentence(row, found["answer"]))


def masking_verdicts(table: pd.DataFrame, control: str = "matched", **where: Any) -> list[Verdict]:
    """One verdict per masked setting and evaluated data set, in the order of the table.

    A setting for which this control was not run gets a sentence that says so.

    Args:
        table: columns :data:`mmlens.plots.MASKING_COLUMNS`; empty or not-a-number where no control
            was run.
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
        key = tuple(row[name] for name in _KEY)
        compared = row["control"] == control
        if compared and key in chosen and chosen[key]["control"] == control:
            raise ValueError(
                f"The masking table has two rows of the control {control!r} for {key}: one is "
                "allowed."
            )
        if compared or key not in chosen:
            chosen[key] = row
    if not chosen:
        asked = ", ".join(f"{name}={value!r}" for name, value in where.items()) or "anything"
        raise ValueError(f"The masking table has no row with {asked}.")
    return [_masking_verdict(row, control) for row in chosen.values()]


def _masking_verdict(row: Row, control: str) -> Verdict:
    if row["control"] != control:
        row = row | dict.fromkeys(("difference", "low", "high"), math.nan)
    owner, evaluated = str(row["modality"]), str(row["evaluated"])
    found = _judged(row, owner, evaluated, float(row["ratio"]), control)
    return Verdict(**found, sentence=masking_sentence(row, control))


def _judged(row: Row, owner: str, evaluated: str, fraction: float, control: str) -> dict[str, Any]:
    """All of a verdict but its sentence."""
    numbers = {name: float(row[name]) for name in ("difference", "low", "high")}
    counts = {name: int(row[name]) for name in ("n_neurons", "n_questions")}
    answer = answer_of(numbers["low"], numbers["high"]) if counts["n_neurons"] > 0 else "no"
    known = {"owner": owner, "evaluated": evaluated, "fraction": fraction, "control": control}
    return {**known, **counts, **numbers, "answer": answer}


def _same(found: Any, asked: Any) -> bool:
    if isinstance(found, float) and isinstance(asked, int | float):
        return math.isclose(found, asked, abs_tol=1e-9)
    return found == asked


def domain_parts(found: Sequence[Verdict], control: str, before: str = "") -> list[Part]:
    """How many domains' verdicts say what, the verdicts, and how to read them after ``before``."""
    question = (
        "Does silencing a domain's neurons cost that domain's questions more than silencing the "
        f"{control} control?"
    )
    lead = _lead(question, found, "domain", aside=" (the interval includes 0)")
    note = before + interval_note([v.n_questions for v in found], "domain")
    return [Text(lead, "lead"), Verdicts([v.badge for v in found]), Text(note, "note")]


def masking_parts(table: pd.DataFrame, control: str = "matched", **where: Any) -> list[Part]:
    """How many verdicts of the masking table say what, the verdicts, and how to read them.

    Arguments and errors as in :func:`masking_verdicts`.
    """
    found = masking_verdicts(table, control, **where)
    question = f"Does masking a modality's neurons cost more than masking the {control} control?"
    lead = _lead(question, found, "comparison")
    asked = [v.n_questions for v in found if not math.isnan(v.low)]
    note = [Text(interval_note(asked, "comparison"), "note")] if asked else []
    return [Text(lead, "lead"), Verdicts([v.badge for v in found]), *note]


def _lead(question: str, found: Sequence[Verdict], noun: str, aside: str = "") -> str:
    """The question, and how many verdicts answer it how; ``aside`` explains a no."""
    tally: Mapping[Answer, int] = {
        answer: sum(v.answer == answer for v in found) for answer in ("yes", "no", "opposite")
    }
    said = (
        f"{question} Of {len(found)} {noun}{'' if len(found) == 1 else 's'}: yes in {tally['yes']}, "
        f"no in {tally['no']}{aside}, and in {tally['opposite']} the control costs more."
    )
    unknown = len(found) - sum(tally.values())
    return f"{said} In {unknown} it is not known." if unknown else said


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
