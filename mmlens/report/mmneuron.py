"""The report of a domain-neuron experiment: one HTML page that needs nothing beside it.

It says first, in words, what silencing each domain's neurons costs against a control; then come the
figures, examples, tables, the method and the manifest. Nothing here needs a model. What it is made
of, and any other report too: :mod:`mmlens.report.page`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mmlens import plots
from mmlens.plots.frames import EXAMPLE_COLUMNS, at_fraction, checked_rows, with_control
from mmlens.plots.numbers import interval, percent, points, span
from mmlens.report import page
from mmlens.report.page import Page
from mmlens.report.run_sections import run_sections
from mmlens.report.sections import (
    Cell,
    Example,
    Examples,
    Figure,
    Packaged,
    Part,
    Section,
    Shown,
    Table,
    Text,
)
from mmlens.report.verdicts import domain_parts, domain_verdicts


@dataclass(frozen=True, eq=False)
class ReportData:
    """What a report is made of; a part that is None was not run, and the page says so.

    The frames have the columns named in :mod:`mmlens.plots` and above; ``samples`` may also have
    ``reason`` (why samples were skipped). ``selection``: one summary per module. ``domains`` gives
    the order (default: that of the frames). ``fraction`` and ``control`` are those of the verdicts.
    ``intervention`` is what was done to neurons where that is not silencing, as the tables name it.
    ``more``: further sections, after the figures.
    """

    title: str
    manifest: Mapping[str, Any] = field(default_factory=dict)
    effects: pd.DataFrame | None = None
    accuracy: pd.DataFrame | None = None
    neurons: pd.DataFrame | None = None
    selection: Mapping[str, plots.SelectionSummary] | None = None
    samples: pd.DataFrame | None = None
    stages: pd.DataFrame | None = None
    examples: pd.DataFrame | None = None
    domains: Sequence[str] | None = None
    fraction: float = 0.01
    control: str = "matched"
    intervention: str = ""
    more: Sequence[Section] = ()


def render(report: ReportData) -> str:
    """The report as one HTML page: plotly.js, figures and pictures are inside it.

    Same data, same page. ValueError where a frame lacks a column or an image is neither PNG nor
    JPEG.
    """
    return page.render(_page(report))


def write(report: ReportData, path: str | os.PathLike[str]) -> Path:
    """Render to ``path``, in one step: a reader sees the old page or the new one, never a half."""
    return page.write(_page(report), path)


def _page(report: ReportData) -> Page:
    report = replace(report, domains=_domains(report))
    model = report.manifest.get("model")
    about = [f"Model {model}"] if isinstance(model, str) else []
    about.append("Domain neurons found by activation entropy, and what silencing them costs")
    if report.intervention:
        about.append(
            "Neurons are not silenced in this run: wherever this page says silenced, "
            f"{report.intervention} was done"
        )
    sections = (
        Section("What silencing costs", "", _verdict_parts(report)),
        Section("Figures", "", _figure_parts(report)),
        *report.more,
        Section("Examples", "", _example_parts(report)),
        Section("Accuracy", "", _accuracy_parts(report)),
        Section("How it was done", "", [_method(report)]),
        *run_sections(report.manifest, report.samples, report.stages),
    )
    return Page(report.title, ". ".join(about) + ".", sections)


def _domains(report: ReportData) -> Sequence[str] | None:
    """One order of domains for every figure, so that each keeps its colour."""
    if report.domains is not None:
        return report.domains
    if report.neurons is not None and not report.neurons.empty:
        return plots.neuron_domains(report.neurons)
    if report.accuracy is not None:
        return list(dict.fromkeys(report.accuracy["evaluated"]))
    return None


def _missing(what: str) -> Text:
    return Text(what, "missing")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> Table:
    return Table(title, pd.DataFrame(rows, columns=list(head), dtype=object))


def _verdict_parts(report: ReportData) -> list[Part]:
    if report.effects is None:
        return [_missing("Silencing was not run: nothing is known here about what neurons cost.")]
    found = domain_verdicts(report.effects, report.control, report.fraction)
    if report.domains is not None:
        place = {domain: i for i, domain in enumerate(report.domains)}
        found.sort(key=lambda v: place.get(v.owner, len(place)))
    before = f"Neurons selected at fraction {percent(report.fraction)}. "
    return [
        *domain_parts(found, report.control, before),
        *_verdict_tables(report, report.effects),
    ]


def _verdict_tables(report: ReportData, effects: pd.DataFrame) -> list[Table]:
    """Own questions and others' at the report's fraction; then every fraction and control."""
    rows = with_control(checked_rows(effects, plots.EFFECT_COLUMNS, "effects"), report.control)
    rows = at_fraction(rows, report.fraction, "effects")
    named = {"own": "own", "others": "others'", "all": "all"}
    lines = [
        [
            row["mask"] if row["mask"] != "all" else "all domains",
            row["n_neurons"],
            named[row["evaluated"]],
            f"{int(row['n_questions']):,}",
            f"{100 * row['baseline']:.1f}%",
            f"{100 * row['masked']:.1f}%",
            f"{100 * row['control_mean']:.1f}% (sd {points(row['control_sd'])})",
            f"{points(row['difference'], sign=True)} {interval(row['low'], row['high'])}",
        ]
        for row in rows
        if row["evaluated"] in named
    ]
    head = ("silenced", "neurons", "questions", "n", "before", "mask", f"{report.control} control")
    every = dict.fromkeys([report.control, *effects["control"]])
    return [
        _table([*head, "difference [95%]"], lines),
        *(_fraction_table(effects, control) for control in every),
    ]


def _fraction_table(effects: pd.DataFrame, control: str) -> Table:
    """Domains by fractions: the answer, the difference and its interval."""
    every = domain_verdicts(effects, control, fraction=None)
    fractions = sorted({v.fraction for v in every})
    cells = {(v.owner, v.fraction): v for v in every}
    grid: list[list[object]] = []
    for domain in dict.fromkeys(v.owner for v in every):
        line: list[object] = [domain]
        for fraction in fractions:
            v = cells.get((domain, fraction))
            if v is None or v.n_neurons == 0:
                line.append("no neurons" if v else "not run")
            else:
                said = f"{v.answer}: {points(v.difference, sign=True)}\n{interval(v.low, v.high)}"
                line.append(Cell(said, f"lines {v.answer}"))
        grid.append(line)
    title = f"Own questions, {control} control, at every fraction"
    return _table(["silenced", *(percent(f) for f in fractions)], grid, title)


def _figure_parts(report: ReportData) -> list[Part]:
    """All figures that the data allow, and a sentence for each part that was not run."""
    parts = _effect_figures(report)
    if report.accuracy is None:
        parts.append(_missing("Accuracies per seed were not recorded."))
    else:
        figure = plots.accuracy_bars(report.accuracy, report.fraction, domains=report.domains)
        parts.append(Figure("accuracy", figure, "accuracy"))
    return parts + _neuron_figures(report)


def _effect_figures(report: ReportData) -> list[Part]:
    if report.effects is None:
        return [_missing("Silencing was not run, so there are no effects to draw.")]
    effects, control, domains = report.effects, report.control, report.domains
    figure = plots.effects_against_controls(effects, control, domains=domains)
    parts: list[Part] = [Figure("effects", figure, "effects", {"control": control})]
    if set(effects["evaluated"]) <= {"own", "others", "all"}:
        return [*parts, _missing("Masks were not evaluated on every other domain by name.")]
    matrix = plots.effect_matrix(effects, control, report.fraction, domains=domains)
    heat: Any = matrix.data[0]
    cells = sum(bool(text) for line in heat.text for text in line)
    return [*parts, Figure("matrix", matrix, "matrix", {"control": control, "cells": cells})]


def _neuron_figures(report: ReportData) -> list[Part]:
    summaries, domains, fraction = report.selection or {}, report.domains, report.fraction
    parts: list[Part] = []
    if report.neurons is None or report.neurons.empty:
        parts.append(_missing("No neurons were selected, or their table was not given."))
    else:
        figure = plots.neurons_per_domain(report.neurons, fraction, domains=domains)
        parts.append(Figure("neurons", figure, "neurons"))
        depth: dict[str, int] = {}
        for module, last in zip(report.neurons["module"], report.neurons["layer"], strict=True):
            depth[str(module)] = max(int(last) + 1, depth.get(str(module), 1))
        depth |= {module: summary.entropy.shape[0] for module, summary in summaries.items()}
        figure = plots.layer_distribution(report.neurons, depth, fraction, domains=domains)
        parts.append(Figure("layers", figure, "layers"))
    for i, (module, summary) in enumerate(summaries.items()):
        figure = plots.entropy_histogram(summary)
        parts.append(Figure(f"entropy-{i}", figure, "entropy", {"module": module}))
    if not summaries:
        parts.append(_missing("The entropies of all neurons were not given."))
    return parts


def _example_parts(report: ReportData) -> list[Part]:
    if report.examples is None or report.examples.empty:
        return [_missing("No examples of answers were kept.")]
    cards = [
        Example(
            question=str(row["question"]),
            true=str(row["answer"]),
            before=str(row["unmasked"]),
            after={"silenced": str(row["masked"])},
            label=str(row["domain"]),
            pictures=_shown(row["image"], str(row["question"])),
        )
        for row in checked_rows(report.examples, EXAMPLE_COLUMNS, "examples")
    ]
    note = (
        f"{len(cards)} answers before and after the neurons of the question's own domain were "
        "silenced. They were picked to be looked at and are no evidence: the table and the "
        "intervals are."
    )
    return [Text(note, "note"), Examples(cards)]


def _shown(image: Any, question: str) -> list[Shown]:
    """The picture of a row; none for None (or pandas' not-a-number)."""
    missing = pd.api.types.is_scalar(image) and pd.isna(image)
    return [] if missing else [Shown(image, question)]


def _accuracy_parts(report: ReportData) -> list[Part]:
    if report.accuracy is None:
        return [_missing("Accuracies were not recorded.")]
    rows = checked_rows(plots.accuracy_summary(report.accuracy, report.fraction), (), "accuracy")
    cells = {(row["evaluated"], row["condition"]): row for row in rows}
    conditions = [c for c in (*plots.CONDITIONS, "all") if any(c == k for _, k in cells)]
    order = report.domains or list(dict.fromkeys(row["evaluated"] for row in rows))
    lines = []
    for domain in order:
        found = [cells.get((domain, condition)) for condition in conditions]
        counts = [cell["n"] for cell in found if cell]
        line: list[object] = [domain, span(counts) if counts else "not run"]
        for cell in found:
            spread = f" (sd {points(cell['sd'])})" if cell and cell["n_seeds"] > 1 else ""
            line.append(f"{100 * cell['mean']:.1f}%{spread}" if cell else "not run")
        lines.append(line)
    names = {"none": "before", "mask": "own neurons silenced", "all": "all domains' silenced"}
    head = [names.get(c, f"{c} control") for c in conditions]
    note = f"Fraction {percent(report.fraction)}; controls: mean, standard deviation over seeds."
    return [Text(note, "note"), _table(["questions of", "n", *head], lines)]


def _method(report: ReportData) -> Packaged:
    found = set() if report.neurons is None else set(report.neurons["fraction"])
    fractions = ", ".join(percent(f) for f in sorted(found | {report.fraction}))
    return Packaged("method.html", {"fractions": fractions})
