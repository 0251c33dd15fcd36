"""The report's sections on token states, from their tables: MI-9, MI-10 and MI-11."""

from __future__ import annotations

import math

import pandas as pd

from mmlens.plots.contributions import contributions_by_layer
from mmlens.plots.frames import METRIC_COLUMNS, Row, checked_rows
from mmlens.plots.states import (
    SEPARATION_NAMES,
    indices_by_layer,
    separation_by_layer,
    state_scatter,
)
from mmlens.report.sections import Figure, Section, Table

_OURS = "The definition is ours: the paper shows a picture and defines no number."
_WORDS = {
    "silhouette": "silhouette",
    "purity": "purity of the 10 nearest",
    "centroid_cosine": "cosine of centroids",
    "probe": "balanced accuracy of the probe",
}


def state_sections(
    metrics: pd.DataFrame,
    contributions: pd.DataFrame | None = None,
    coordinates: pd.DataFrame | None = None,
) -> list[Section]:
    """How the groups' states lie, what reaches out to what, and what the last token takes.

    Args:
        metrics: of :func:`mmlens.states.tables.metric_table`.
        contributions: of :func:`mmlens.states.tables.contributions`; None: no such section.
        coordinates: of :func:`mmlens.states.tables.scatter_table`; None: no pictures.

    Raises:
        ValueError: a frame lacks columns.
    """
    separates = metrics.metric.isin([*SEPARATION_NAMES])
    parts: list[Figure | Table] = []
    for groups in dict.fromkeys(metrics.groups[separates]):
        name = f"separation-{groups.replace('+', '-')}"
        parts.append(Figure(name, separation_by_layer(metrics, groups), "separation"))
    table = convergence_table(metrics)
    parts.append(Table("Untouched model: the groups from layer to layer", table))
    if coordinates is not None:
        parts += [
            Figure(f"states-{method}", state_scatter(coordinates, method), f"states_{method}")
            for method in dict.fromkeys(coordinates.method)
        ]
    found = [Section("How modalities meet", f"{convergence_text(metrics)} {_OURS}", parts)]
    if not separates.all():
        text = (
            "Probing: a media token probes if its nearest neighbour outside its group is closer than the "
            "median distance within the group. Telomere: a special token whose nearest neighbour is a text "
            f"token at most two positions away. {_OURS}"
        )
        figure = Figure("indices", indices_by_layer(metrics), "indices")
        found.append(Section("Probing and telomeres", text, [figure]))
    if contributions is not None:
        figure = Figure("contributions", contributions_by_layer(contributions), "contributions")
        text = f"What the last token, where the answer begins, takes from each token group. {_OURS}"
        found.append(Section("Contributions to the last token", text, [figure]))
    return found


def convergence_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """The untouched setting's separation where tokens enter, half-way and at the end, and its baselines.

    Half-way: after the block in the middle of those measured. Columns as they are to be read.
    """
    found = []
    for groups, metric, rows in _curves(metrics):
        middle = rows[(len(rows) - 1) // 2]
        low = min(rows, key=lambda row: row["value"])
        cells: dict[str, object] = {"groups": groups.replace("+", ", "), "measure": _WORDS[metric]}
        for name, row in (("first", rows[0]), ("middle", middle), ("last", rows[-1])):
            cells[f"{name} ({_layer(row)})"] = f"{row['value']:.3f}"
        cells["lowest"] = f"{low['value']:.3f} ({_layer(low)})"
        cells["permuted, first to last"] = (
            f"{rows[0]['baseline']:.3f} to {rows[-1]['baseline']:.3f}"
        )
        found.append(cells)
    return pd.DataFrame(found)


def convergence_text(metrics: pd.DataFrame) -> str:
    """Whether media and text come closer in the lower half of the layers, in sentences with numbers."""
    by_groups: dict[str, dict[str, list[Row]]] = {}
    for groups, metric, rows in _curves(metrics):
        by_groups.setdefault(groups, {})[metric] = rows
    sentences = []
    for groups, curves in by_groups.items():
        if groups.count("+") != 1 or not {"silhouette", "probe"} <= set(curves):
            continue
        rows, probe = curves["silhouette"], curves["probe"]
        start, half, end = rows[0], rows[(len(rows) - 1) // 2], rows[-1]
        lower, upper = half["value"] - start["value"], end["value"] - half["value"]
        what = "come closer" if lower < 0 else "move apart"
        then = "come closer" if upper < 0 else "move apart"
        sentences.append(
            f"{' and '.join(groups.split('+')).capitalize()} tokens {what} in the lower half of the "
            f"layers (silhouette {start['value']:.2f} to {half['value']:.2f}) and {then} in the upper half "
            f"(to {end['value']:.2f}); a linear probe tells them apart with balanced accuracy "
            f"{math.floor(100 * min(r['value'] for r in probe)) / 100:.2f} or more at every layer, permuted labels with "
            f"{math.ceil(100 * max(r['baseline'] for r in probe)) / 100:.2f} at most."
        )
    return " ".join(sentences)


def _curves(metrics: pd.DataFrame) -> list[tuple[str, str, list[Row]]]:
    """Groups, metric and rows by layer, of the first setting."""
    rows = checked_rows(metrics, METRIC_COLUMNS, "metrics")
    rows = [r for r in rows if r["setting"] == rows[0]["setting"] and r["metric"] in _WORDS]
    keys = dict.fromkeys((str(r["groups"]), str(r["metric"])) for r in rows)
    found = []
    for groups, metric in keys:
        own = [r for r in rows if (r["groups"], r["metric"]) == (groups, metric)]
        found.append((groups, metric, sorted(own, key=lambda r: r["layer"])))
    return found


def _layer(row: Row) -> str:
    return "in" if row["layer"] < 0 else f"layer {row['layer']}"
