"""The tables that figures and reports read: names of their columns and values, checks of their rows.

Whoever writes a table takes its names from here, and whoever draws it too. Shares are 0 to 1,
differences and intervals are of shares; an interval ``low`` to ``high`` is one of 95%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

Row = dict[str, Any]

# MMNeuron: neurons by domain, what silencing them costs
NEURON_COLUMNS = ("module", "layer", "index", "fraction", "domains")
_COSTS = (
    *("n_questions", "n_seeds", "baseline", "masked", "control_mean", "control_sd"),
    *("drop", "control_drop", "difference", "low", "high"),
)
EFFECT_COLUMNS = ("mask", "fraction", "n_neurons", "evaluated", "control", *_COSTS)
ACCURACY_COLUMNS = ("mask", "kind", "seed", "fraction", "evaluated", "n", "accuracy")
DEVIATION_COLUMNS = (
    *("mask", "kind", "seed", "fraction", "layer", "group", "metric"),
    *("mean", "se", "n_samples"),
)
STABILITY_COLUMNS = (
    *("module", "fraction", "domain", "comparison", "half", "part"),
    *("tokens", "n_neurons", "n_reference", "jaccard", "chance"),
)
OVERLAP_COLUMNS = ("module", "a", "b", "n_a", "n_b", "both", "share_of_b", "jaccard")
COMBINATION_COLUMNS = ("module", "domains", "n_domains", "n_neurons")
LENS_COLUMNS = ("id", "key", "group", "layer", "entropy")

# MINER: importance by modality, what masking costs, token states
CORRELATION_COLUMNS = ("group", "score_a", "score_b", "pearson", "spearman")
CONVERGENCE_COLUMNS = ("n_samples", "group", "comparison", "jaccard", "correlation")
#: What tells one masked setting from another.
SETTING_COLUMNS = ("mined", "strategy", "weights", "ratio", "modality", "treatment")
MASKING_COLUMNS = (*SETTING_COLUMNS, "evaluated", "control", "n_neurons", *_COSTS)
SPLIT_COLUMNS = (*MASKING_COLUMNS, "split")
METHOD_COLUMNS = (
    *("method", "evaluated", "n_neurons", "n_questions", "baseline", "masked", "control_mean"),
    *("difference", "low", "high"),
)
PAIR_COLUMNS = ("method_a", "method_b", "evaluated", "difference", "low", "high")
METHOD_OVERLAP_COLUMNS = ("domain", "modality", "n_domain", "n_modality", "both", "expected")
GROUP_COUNT_COLUMNS = (
    *("dataset", "group", "n_samples", "n_skipped"),
    *("tokens", "mean_tokens", "share", "n_without"),
)
METRIC_COLUMNS = (
    *("setting", "layer", "metric", "groups", "value", "low", "high"),
    *("baseline", "baseline_low", "baseline_high", "n_samples", "n_tokens"),
)
CONTRIBUTION_COLUMNS = (
    *("setting", "measure", "group", "layer", "value", "low", "high"),
    *("delta", "delta_low", "delta_high", "n_samples", "n_paired"),
)
SCATTER_COLUMNS = ("setting", "layer", "method", "group", "id", "position", "x", "y")

# Any run
EXAMPLE_COLUMNS = ("domain", "question", "answer", "unmasked", "masked", "image")
SAMPLE_COLUMNS = ("domain", "split", "n_questions", "n_skipped")
STAGE_COLUMNS = ("stage", "seconds", "tokens", "tokens_per_second", "peak_memory_mb")

#: Values of ``control``.
CONTROLS = ("random", "matched")
#: Values of ``comparison``: with the sets of all data, and between two disjoint halves.
COMPARISONS = ("full", "halves")
#: Values of ``treatment``: what is done to a mask's neurons.
TREATMENTS = ("zero", "own_tokens", "layer_minimum", "keep_only")


def checked_rows(frame: pd.DataFrame, columns: Sequence[str], name: str) -> list[Row]:
    """The rows of ``frame`` as dictionaries. ValueError for a missing column or an empty frame."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(
            f"The {name} frame lacks {missing}: it has {[str(c) for c in frame.columns]}, "
            f"and needs {list(columns)}."
        )
    if frame.empty:
        raise ValueError(f"The {name} frame is empty: at least one row is needed.")
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def at_fraction(rows: Sequence[Row], fraction: float, name: str) -> list[Row]:
    """Rows of exactly this fraction. Raises ValueError naming the fractions there are."""
    found = [row for row in rows if math.isclose(row["fraction"], fraction, abs_tol=1e-9)]
    if not found:
        given = sorted({float(row["fraction"]) for row in rows})
        raise ValueError(f"The {name} frame has fractions {given}, and {fraction} was asked for.")
    return found


def with_control(rows: Sequence[Row], control: str) -> list[Row]:
    """Rows of effects against one control. Raises ValueError naming the controls there are."""
    found = [row for row in rows if row["control"] == control]
    if not found:
        given = sorted({str(row["control"]) for row in rows})
        raise ValueError(f"The effects frame has controls {given}, and {control!r} was asked for.")
    return found


def of_module(rows: Sequence[Row], module: str | None) -> tuple[list[Row], str]:
    """The rows of one module. Raises ValueError naming the modules there are."""
    present = in_order(rows, "module")
    if module is None and len(present) > 1:
        raise ValueError(f"The frame has the modules {present}; say which one to draw.")
    if module is not None and module not in present:
        raise ValueError(f"The frame has the modules {present}, and {module!r} was asked for.")
    chosen = module if module is not None else present[0]
    return [row for row in rows if str(row["module"]) == chosen], chosen


def in_order(rows: Sequence[Row], column: str) -> list[str]:
    """The values of a column, in order of first appearance."""
    return list(dict.fromkeys(str(row[column]) for row in rows))


def ordered(rows: Sequence[Row], column: str, given: Sequence[str] | None = None) -> list[str]:
    """Values of a column in the order of ``given``, else of first appearance; "all" comes last.

    ValueError for a value that ``given`` lacks.
    """
    present = in_order(rows, column)
    if given is not None and (unknown := [p for p in present if p not in (*given, "all")]):
        raise ValueError(
            f"The frame has the {column} {unknown[0]!r}, which is not in {list(given)}."
        )
    order = [one for one in given or present if one in present and one != "all"]
    return [*order, "all"] if "all" in present else order


def excludes_zero(row: Row) -> bool:
    """Whether the 95% interval of the difference excludes 0; false where there is none."""
    return bool(row["low"] > 0 or row["high"] < 0)
