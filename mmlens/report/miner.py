"""The report of a modality-neuron experiment (MINER): one HTML page that needs nothing beside it.

It says first, in words, what masking each modality's neurons costs against a control; then come the
experiment's own sections, examples, the method and the manifest. Nothing here needs a model. What it
is made of, and any other report too: :mod:`mmlens.report.page`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mmlens.report import page
from mmlens.report.page import Page
from mmlens.report.run_sections import run_sections
from mmlens.report.sections import Example, Examples, Packaged, Part, Section, Text
from mmlens.report.verdicts import masking_parts

EXAMPLES_NOTE = (
    "Answers that changed come first: they were picked to be looked at and are no evidence; the "
    "verdicts are."
)


@dataclass(frozen=True, eq=False)
class MinerReport:
    """What MINER's report is made of.

    Attributes:
        model: its name.
        masking: rows of the masking table that verdicts are of; columns
            :data:`mmlens.plots.MASKING_COLUMNS`, ``measure`` and ``control_measure``.
        ratio: the share of the language model's neurons that was selected.
        method: what the description of the method says of this run; see :func:`method_words`.
        examples: answers before and after.
        more: further sections, behind the verdicts.
        manifest, samples, stages: of the run; see :func:`mmlens.report.run_sections.run_sections`.
    """

    model: str
    masking: pd.DataFrame
    ratio: float
    method: Mapping[str, str]
    examples: Sequence[Example] = ()
    more: Sequence[Section] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)
    samples: pd.DataFrame | None = None
    stages: pd.DataFrame | None = None


def write(report: MinerReport, path: str | os.PathLike[str]) -> Path:
    """Render to ``path``, in one step: a reader sees the old page or the new one, never a half.

    Raises:
        ValueError: a frame lacks a column, or the masking table has no row.
    """
    return page.write(_page(report), path)


def _page(report: MinerReport) -> Page:
    none = Text("No question was asked.", "missing")
    examples = Examples(report.examples) if report.examples else none
    return Page(
        title=f"Modality-specific neurons of {report.model}",
        subtitle=(
            f"Model {report.model}. Modality-specific neurons found by importance scores (MINER), "
            f"{report.ratio:.2%} of the language model, and what masking them costs."
        ),
        sections=[
            Section("What masking costs", "", verdict_parts(report.masking)),
            *report.more,
            Section("Examples", EXAMPLES_NOTE, [examples]),
            Section("How it was done", "", [Packaged("miner_method.html", report.method)]),
            *run_sections(report.manifest, report.samples, report.stages),
        ],
    )


def verdict_parts(masking: pd.DataFrame) -> list[Part]:
    """Whether each mask costs more than its matched control, over all questions and per data set."""
    return [
        *masking_parts(masking, evaluated="all"),
        activity_note(masking),
        Text("Per data set:", "note"),
        *masking_parts(masking.loc[masking["evaluated"] != "all"])[1:],
    ]


def activity_note(masking: pd.DataFrame) -> Text:
    """How active the matched controls are beside the masks: what "matched" is worth here."""
    rows = masking.loc[(masking["evaluated"] == "all") & (masking["control"] == "matched")]
    shares = rows["control_measure"] / rows["measure"]
    said = [f"{m} {share:.0%}" for m, share in zip(rows["modality"], shares, strict=True)]
    return Text(
        "How active the matched controls are, as a share of the mask's mean root mean square at the "
        f"modality's tokens: {', '.join(said) or 'no control was run'}. Where that is well below 100%, the "
        "most active neurons are all selected and have no equal: part of what the mask costs more may be due "
        "to their activity alone.",
        "note",
    )


def method_words(
    attention_mode: str, strategy: str, weights: str, ratio: float, seeds: int
) -> dict[str, str]:
    """What the description of the method says of a run.

    Args:
        attention_mode: ``causal``, or ``paper``.
        strategy, weights, ratio: how neurons were selected.
        seeds: control sets of each kind.
    """
    attention = (
        "the model's own, restricted to the set"
        if attention_mode == "causal"
        else "computed without the causal mask and passed through a second softmax, as in the "
        "official code"
    )
    known = {"attention": attention, "strategy": strategy, "weights": weights}
    return {**known, "ratio": f"{ratio:.2%}", "seeds": str(seeds)}
