"""What an experiment leaves in its run folder beside its tables: sets, figures, the last words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from experiments.shared.config import CommonConfig
from mmlens import plots
from mmlens.ablation import tables
from mmlens.data.samples import Sample
from mmlens.entropy import Selection
from mmlens.neurons import NeuronSet
from mmlens.report.parts import CONFIG
from mmlens.report.sections import Figure, Section
from mmlens.run.folder import Run
from mmlens.storage.atomic import write_json


def save_sets(run: Run, name: str, sets: Mapping[str, NeuronSet]) -> None:
    """Neuron sets as ``neurons/{name}-{label}.json``, one file each.

    Args:
        run: the run folder.
        name: what the sets have in common, such as ``language-0.01``.
        sets: label -> neurons.
    """
    for label, neurons in sets.items():
        neurons.save(run.path("neurons", f"{name}-{label}.json"))


def save_selections(run: Run, selections: Mapping[float, Mapping[str, Selection]]) -> None:
    """Entropy selections: a set per module, fraction and domain, and ``neurons/thresholds.json``.

    Args:
        run: the run folder.
        selections: fraction -> module -> what was selected.
    """
    thresholds = []
    for fraction, by_module in selections.items():
        for module, selection in by_module.items():
            save_sets(run, f"{module}-{fraction:g}", selection.sets)
            thresholds.append(
                {
                    "module": module,
                    "fraction": fraction,
                    "tau": selection.tau,
                    "entropy_cut": selection.cut,
                    "passing": int(selection.passes.sum()),
                    "selected": len(selection.union),
                }
            )
    write_json(run.path("neurons", "thresholds.json"), {"thresholds": thresholds})


def selection_summary(
    module: str, domains: Sequence[str], selection: Selection, quantile: float
) -> plots.SelectionSummary:
    """An entropy selection as figures show it."""
    return plots.SelectionSummary(
        module=module,
        domains=tuple(domains),
        entropy=selection.entropy.numpy(),
        passes=selection.passes.numpy(),
        tau=selection.tau,
        cut=selection.cut,
        n_selected=len(selection.union),
        quantile=quantile,
    )


def about_run(run: Run) -> dict[str, Any]:
    """The manifest as a report shows it; the stages have a table of their own (``run.stages()``)."""
    return {k: v for k, v in run.manifest.items() if k != "stages"}


def samples_used(
    config: CommonConfig,
    found_on: Sequence[Sample],
    asked: Sequence[Sample],
    domains: Sequence[str],
    skipped: Mapping[str, str],
) -> pd.DataFrame:
    """Questions used and left out, per domain and split; see :func:`mmlens.ablation.tables.samples_table`.

    Args:
        config: names both splits.
        found_on, asked: the samples that neurons were found on, and the questions.
        domains: the domains.
        skipped: sample id -> why it was left out.
    """
    first, second = config.samples.train_split, config.samples.test_split
    if first == second:
        first, second = f"{first} (neurons found on)", f"{second} (asked)"
    return tables.samples_table({first: found_on, second: asked}, domains, skipped)


def write_figures(
    run: Run, figures: Mapping[str, go.Figure], sections: Iterable[Section] = ()
) -> None:
    """Every figure as ``figures/{name}.html``, those of a report's sections too.

    Args:
        run: the run folder.
        figures: name -> figure.
        sections: of the report; their figures have names of their own.
    """
    named = {p.name: p.figure for s in sections for p in s.parts if isinstance(p, Figure)}
    run.path("figures").mkdir(exist_ok=True)
    for name, figure in {**figures, **named}.items():
        # plotly.js lies once beside them, so that they open offline.
        figure.write_html(
            run.path("figures", f"{name}.html"), include_plotlyjs="directory", config=CONFIG
        )


def summarise(run: Run, sentences: Iterable[str], where: str = "") -> None:
    """Say what was found, and where it lies.

    Args:
        run: the run folder.
        sentences: what was found, a line each.
        where: the last line; default: the report's place.
    """
    said = "".join(f"\n{sentence}" for sentence in sentences)
    print(f"{said}\n" if said else "")
    print(where or f"Report: {run.path('report.html')}")
