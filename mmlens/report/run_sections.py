"""The sections that the report of any run ends with: its data, its stages, its manifest."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mmlens.plots.frames import SAMPLE_COLUMNS, STAGE_COLUMNS, checked_rows
from mmlens.report.sections import Cell, Section, Table, Text


def run_sections(
    manifest: Mapping[str, Any], samples: pd.DataFrame | None, stages: pd.DataFrame | None
) -> list[Section]:
    """What any report ends with; arguments and errors as the functions below."""
    return [data_section(samples), stage_section(stages), manifest_section(manifest)]


def data_section(samples: pd.DataFrame | None) -> Section:
    """How many samples of each domain and split were used and left out.

    Args:
        samples: columns :data:`mmlens.plots.frames.SAMPLE_COLUMNS`, and ``reason`` (why samples were left out) where
            that is known; None: not counted, and the section says so.

    Raises:
        ValueError: a column is missing, or there is no row.
    """
    if samples is None:
        return Section("Data", "", [Text("No counts of samples were given.", "missing")])
    rows = checked_rows(samples, SAMPLE_COLUMNS, "samples")
    skipped = sum(int(row["n_skipped"]) for row in rows)
    reasons = "reason" in samples.columns
    lines = [
        [
            row["domain"],
            Cell(row["split"], "text"),
            f"{int(row['n_questions']):,}",
            f"{int(row['n_skipped']):,}",
            Cell(row["reason"] if reasons and row["n_skipped"] else "", "text"),
        ]
        for row in rows
    ]
    frame = pd.DataFrame(lines, columns=["domain", "split", "questions", "skipped", "reason"])
    said = "No sample was skipped."
    if skipped:
        unknown = "" if reasons else "; the reasons were not recorded"
        said = f"{skipped:,} samples were skipped{unknown}."
    return Section("Data", said, [Table("", frame if reasons else frame.drop(columns="reason"))])


def stage_section(stages: pd.DataFrame | None) -> Section:
    """What each stage of the run took; columns :data:`mmlens.plots.frames.STAGE_COLUMNS`. Errors as for the data."""
    title = "Time and memory"
    if stages is None:
        return Section(title, "", [Text("Time and memory were not measured.", "missing")])
    forms = dict(zip(STAGE_COLUMNS[1:], (",.1f", ",.0f", ",.0f", ",.0f"), strict=True))
    lines = [
        [row["stage"], *(_number(row[key], form) for key, form in forms.items())]
        for row in checked_rows(stages, STAGE_COLUMNS, "stages")
    ]
    head = ["stage", "seconds", "tokens", "tokens/s", "peak memory (MB)"]
    return Section(title, "", [Table("", pd.DataFrame(lines, columns=head))])


def manifest_section(manifest: Mapping[str, Any]) -> Section:
    """The settings and versions of the run, nested ones under dotted names."""
    title = "Settings and versions"
    if not manifest:
        said = "No manifest was given: this page cannot say how to repeat the run."
        return Section(title, "", [Text(said, "missing")])
    frame = pd.DataFrame(_flat(manifest), columns=["name", "value"])
    return Section(title, "", [Table("", frame, kind="pairs")])


def _number(value: Any, form: str) -> str:
    return "n/a" if value is None or math.isnan(value) else format(value, form)


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and text."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += _flat(value, f"{before}{key}.")
        elif isinstance(value, (list, tuple, dict, bool, float)) or value is None:
            lines.append((f"{before}{key}", json.dumps(value, default=str, ensure_ascii=False)))
        else:
            lines.append((f"{before}{key}", str(value)))
    return lines
