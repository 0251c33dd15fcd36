"""The report of a domain-neuron experiment: one HTML page that needs nothing beside it.

It says first, in words, what silencing each domain's neurons costs against a control; then come the
figures, examples, tables, the method and the manifest. Nothing here needs a model.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mmlens import plots
from mmlens.files import write_text
from mmlens.reporting import (
    asset,
    at_fraction,
    bound,
    checked_rows,
    percent,
    points,
    span,
    with_control,
)
from mmlens.reporting.sections import Figure, Section
from mmlens.reporting.verdicts import Answer, Verdict, verdicts

__all__ = ["Answer", "ReportData", "Verdict", "render", "verdicts", "write"]

BADGES: dict[Answer, str] = {"yes": "Yes", "no": "No", "opposite": "No: the control costs more"}
# Nothing that sends a figure anywhere.
CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "zoom2d", "resetScale2d"]],
}
SAMPLE_COLUMNS = ("domain", "split", "n_questions", "n_skipped")
STAGE_COLUMNS = ("stage", "seconds", "tokens", "tokens_per_second", "peak_memory_mb")
EXAMPLE_COLUMNS = ("domain", "question", "answer", "unmasked", "masked", "image")


@dataclass(frozen=True, eq=False)
class ReportData:
    """What a report is made of; a part that is None was not run, and the page says so.

    The frames have the columns named in :mod:`mmlens.plots` and above; ``samples`` may also have
    ``reason`` (why samples were skipped). ``selection``: one summary per module. ``domains`` gives
    the order (default: that of the frames). ``fraction`` and ``control`` are those of the verdicts.
    ``more``: further sections, behind the figures.
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
    more: Sequence[Section] = ()


def render(report: ReportData) -> str:
    """The report as one HTML page: plotly.js, figures and pictures are inside it.

    Same data, same page. ValueError where a frame lacks a column or an image is neither PNG nor
    JPEG.
    """
    report = replace(report, domains=_domains(report))
    sections = (
        ("What silencing costs", _verdict_section(report)),
        ("Figures", _figure_section(report)),
        *((section.title, _more_section(section)) for section in report.more),
        ("Examples", _example_section(report)),
        ("Accuracy", _accuracy_section(report)),
        ("How it was done", _method_section(report)),
        ("Data", _data_section(report)),
        ("Time and memory", _stage_section(report)),
        ("Settings and versions", _manifest_section(report)),
    )
    body = "\n".join(
        f'<section id="part-{number}">\n<h2>{_text(title)}</h2>\n{content}\n</section>'
        for number, (title, content) in enumerate(sections)
    )
    contents = "".join(
        f'<li><a href="#part-{number}">{_text(title)}</a></li>'
        for number, (title, _) in enumerate(sections)
    )
    model = report.manifest.get("model")
    about = [f"Model {model}"] if isinstance(model, str) else []
    about.append("Domain neurons found by activation entropy, and what silencing them costs")
    return Template(asset("report.html")).substitute(
        title=_text(report.title),
        css=asset("report.css"),
        plotly=f"<script>{get_plotlyjs()}</script>",
        subtitle=_text(". ".join(about) + "."),
        contents=contents,
        sections=body,
    )


def write(report: ReportData, path: str | os.PathLike[str]) -> Path:
    """Render to ``path``, in one step: a reader sees the old page or the new one, never a half."""
    target = Path(path)
    write_text(target, render(report))
    return target


def _domains(report: ReportData) -> Sequence[str] | None:
    """One order of domains for every figure, so that each keeps its colour."""
    if report.domains is not None:
        return report.domains
    if report.neurons is not None and not report.neurons.empty:
        return plots.neuron_domains(report.neurons)
    if report.accuracy is not None:
        return list(dict.fromkeys(report.accuracy["evaluated"]))
    return None


def _text(value: object) -> str:
    return html.escape(str(value))


def _unbroken(text: str) -> str:
    """Keep an interval on one line."""
    return re.sub(r"\[([^][, ]+), ([^][, ]+)\]", "[\\1,&nbsp;\\2]", text)


def _missing(what: str) -> str:
    return f'<p class="missing">{_text(what)}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], kind: str = "") -> str:
    """A table that scrolls on its own; cells are escaped, (class, value) gives a cell a class."""
    lines = []
    for row in rows:
        cells = [cell if isinstance(cell, tuple) else ("", cell) for cell in row]
        lines.append(
            "".join(
                f'<td class="{name}">{_text(v)}</td>' if name else f"<td>{_text(v)}</td>"
                for name, v in cells
            )
        )
    top = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in head)
    thead = f"<thead><tr>{top}</tr></thead>" if head else ""
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table class="{kind}">{thead}<tbody>{body}</tbody></table></div>'


def _interval(difference: float, low: float, high: float) -> str:
    return f"{points(difference, sign=True)} [{bound(low)}, {bound(high)}]"


def _verdict_section(report: ReportData) -> str:
    if report.effects is None:
        return _missing("Silencing was not run: nothing is known here about what neurons cost.")
    found = verdicts(report.effects, report.control, report.fraction)
    if report.domains is not None:
        place = {domain: i for i, domain in enumerate(report.domains)}
        found.sort(key=lambda v: place.get(v.domain, len(place)))
    tally = {answer: sum(v.answer == answer for v in found) for answer in BADGES}
    items = "\n".join(
        f'<li class="{v.answer}"><div><span class="domain">{_text(v.domain)}</span>'
        f'<span class="answer">{BADGES[v.answer]}</span></div>'
        f"<div>{_unbroken(_text(v.sentence))}</div></li>"
        for v in found
    )
    return (
        f"<p class=\"lead\">Does silencing a domain's neurons cost that domain's questions "
        f"more than silencing the {_text(report.control)} control? Of {len(found)} domains: yes in "
        f"{tally['yes']}, no in {tally['no']} (the interval includes 0), and in "
        f"{tally['opposite']} the control costs more.</p>\n"
        f'<ul class="verdicts">\n{items}\n</ul>\n'
        f'<p class="note">Neurons selected at fraction {percent(report.fraction)}. Numbers are '
        "percentage points of accuracy; in brackets the 95% interval. A no means that these "
        f"questions ({span([v.n_questions for v in found])} per domain) show no difference, not "
        f"that there is none. {len(found)} intervals were looked at and none is corrected for "
        "that: of twenty, one may be expected to exclude 0 by chance.</p>\n"
        + _verdict_table(report, report.effects)
    )


def _verdict_table(report: ReportData, effects: pd.DataFrame) -> str:
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
            _interval(row["difference"], row["low"], row["high"]),
        ]
        for row in rows
        if row["evaluated"] in named
    ]
    head = ("silenced", "neurons", "questions", "n", "before", "mask", f"{report.control} control")
    text = _table([*head, "difference [95%]"], lines)
    for control in dict.fromkeys([report.control, *effects["control"]]):
        every = verdicts(effects, control, fraction=None)
        fractions = sorted({v.fraction for v in every})
        cells = {(v.domain, v.fraction): v for v in every}
        grid: list[list[object]] = []
        for domain in dict.fromkeys(v.domain for v in every):
            line: list[object] = [domain]
            for fraction in fractions:
                v = cells.get((domain, fraction))
                if v is None or v.n_neurons == 0:
                    line.append("no neurons" if v else "not run")
                else:
                    interval = f"[{bound(v.low)}, {bound(v.high)}]"
                    said = f"{v.answer}: {points(v.difference, sign=True)}\n{interval}"
                    line.append((f"lines {v.answer}", said))
            grid.append(line)
        text += f"<h3>Own questions, {_text(control)} control, at every fraction</h3>" + _table(
            ["silenced", *(percent(f) for f in fractions)], grid
        )
    return text


def _figure(figure: go.Figure, name: str, kind: str, **words: object) -> str:
    """A figure whose title stands in the page's own type, where a narrow window can wrap it."""
    look: Any = figure.layout
    title, subtitle = look.title.text, look.title.subtitle.text
    above = look.margin.t or look.template.layout.margin.t
    bare = go.Figure(figure).update_layout(title=None, margin={"t": above - 65})
    plot = bare.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"figure-{name}", config=CONFIG
    )
    caption = Template(json.loads(asset("captions.json"))[kind]).substitute(words)
    return (
        f'<figure>\n<h3>{title}</h3>\n<p class="note">{subtitle}</p>\n<div class="plot">{plot}'
        f'</div>\n<figcaption class="swipe">{_text(caption)}</figcaption>\n</figure>'
    )


def _figure_section(report: ReportData) -> str:
    """All figures that the data allow, and a sentence for each part that was not run."""
    parts = _effect_figures(report)
    if report.accuracy is None:
        parts.append(_missing("Accuracies per seed were not recorded."))
    else:
        figure = plots.accuracy_bars(report.accuracy, report.fraction, domains=report.domains)
        parts.append(_figure(figure, "accuracy", "accuracy"))
    return "\n".join(parts + _neuron_figures(report))


def _effect_figures(report: ReportData) -> list[str]:
    if report.effects is None:
        return [_missing("Silencing was not run, so there are no effects to draw.")]
    effects, control, domains = report.effects, report.control, report.domains
    figure = plots.effects_against_controls(effects, control, domains=domains)
    parts = [_figure(figure, "effects", "effects", control=control)]
    if set(effects["evaluated"]) <= {"own", "others", "all"}:
        return [*parts, _missing("Masks were not evaluated on every other domain by name.")]
    matrix = plots.effect_matrix(effects, control, report.fraction, domains=domains)
    cells = sum(bool(text) for line in matrix.data[0].text for text in line)
    return [*parts, _figure(matrix, "matrix", "matrix", control=control, cells=cells)]


def _neuron_figures(report: ReportData) -> list[str]:
    summaries, domains, fraction = report.selection or {}, report.domains, report.fraction
    parts = []
    if report.neurons is None or report.neurons.empty:
        parts.append(_missing("No neurons were selected, or their table was not given."))
    else:
        figure = plots.neurons_per_domain(report.neurons, fraction, domains=domains)
        parts.append(_figure(figure, "neurons", "neurons"))
        depth: dict[str, int] = {}
        for module, last in zip(report.neurons["module"], report.neurons["layer"], strict=True):
            depth[str(module)] = max(int(last) + 1, depth.get(str(module), 1))
        depth |= {module: summary.entropy.shape[0] for module, summary in summaries.items()}
        figure = plots.layer_distribution(report.neurons, depth, fraction, domains=domains)
        parts.append(_figure(figure, "layers", "layers"))
    for i, (module, summary) in enumerate(summaries.items()):
        figure = plots.entropy_histogram(summary)
        parts.append(_figure(figure, f"entropy-{i}", "entropy", module=module))
    if not summaries:
        parts.append(_missing("The entropies of all neurons were not given."))
    return parts


def _more_section(section: Section) -> str:
    """The text of a section, its parts, its links."""
    parts = [f"<p>{_text(section.text)}</p>"] if section.text else []
    for part in section.parts:
        if isinstance(part, Figure):
            parts.append(_figure(part.figure, part.name, part.caption, **part.words))
        else:
            rows = [[_cell(value) for value in row] for row in part.frame.to_numpy()]
            parts.append(f"<h3>{_text(part.title)}</h3>")
            parts.append(_table([str(name) for name in part.frame.columns], rows))
    for words, path in section.links.items():
        parts.append(f'<p><a href="{_text(path)}">{_text(words)}</a></p>')
    return "\n".join(parts)


def _cell(value: object) -> object:
    """Numbers as they are read: at most three digits behind the point."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}".rstrip("0").rstrip(".")
    return value


def _picture(image: object, alt: str) -> str:
    """An inline picture from PNG or JPEG bytes; nothing for None (or pandas' not-a-number)."""
    if image is None or (isinstance(image, float) and math.isnan(image)):
        return ""
    kinds = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
    if isinstance(image, bytes):
        for magic, kind in kinds.items():
            if image.startswith(magic):
                data = base64.b64encode(image).decode("ascii")
                return f'<img src="data:image/{kind};base64,{data}" alt="{_text(alt)}">'
    raise ValueError(
        f"The image of the example {alt!r} is {type(image).__name__}: PNG or JPEG bytes, or None, "
        "are needed."
    )


def _example_section(report: ReportData) -> str:
    if report.examples is None or report.examples.empty:
        return _missing("No examples of answers were kept.")
    cards = []
    for row in checked_rows(report.examples, EXAMPLE_COLUMNS, "examples"):
        changed = "changed" if row["unmasked"] != row["masked"] else "unchanged"
        cards.append(
            f'<div class="example">{_picture(row["image"], str(row["question"]))}'
            f'<div class="domain">{_text(row["domain"])}, {changed}</div>'
            f'<div class="question">{_text(row["question"])}</div><dl>'
            f"<dt>true</dt><dd>{_text(row['answer'])}</dd>"
            f"<dt>before</dt><dd>{_text(row['unmasked'])}</dd>"
            f"<dt>silenced</dt><dd>{_text(row['masked'])}</dd></dl></div>"
        )
    return (
        f'<p class="note">{len(cards)} answers before and after the neurons of the question\'s own '
        "domain were silenced. They were picked to be looked at and are no evidence: the table "
        'and the intervals are.</p>\n<div class="examples">\n' + "\n".join(cards) + "\n</div>"
    )


def _accuracy_section(report: ReportData) -> str:
    if report.accuracy is None:
        return _missing("Accuracies were not recorded.")
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
    return (
        f'<p class="note">Fraction {percent(report.fraction)}; controls: mean, standard deviation '
        "over seeds.</p>" + _table(["questions of", "n", *head], lines)
    )


def _method_section(report: ReportData) -> str:
    found = set() if report.neurons is None else set(report.neurons["fraction"])
    fractions = ", ".join(percent(f) for f in sorted(found | {report.fraction}))
    return Template(asset("method.html")).substitute(fractions=fractions)


def _data_section(report: ReportData) -> str:
    if report.samples is None:
        return _missing("No counts of samples were given.")
    rows = checked_rows(report.samples, SAMPLE_COLUMNS, "samples")
    skipped = sum(int(row["n_skipped"]) for row in rows)
    reasons = "reason" in report.samples.columns
    head = ["domain", "split", "questions", "skipped", *(["reason"] if reasons else [])]
    lines = [
        [
            row["domain"],
            ("text", row["split"]),
            f"{int(row['n_questions']):,}",
            f"{int(row['n_skipped']):,}",
        ]
        + ([("text", row["reason"] if row["n_skipped"] else "")] if reasons else [])
        for row in rows
    ]
    said = (
        "No sample was skipped."
        if not skipped
        else f"{skipped:,} samples were skipped"
        + ("." if reasons else "; the reasons were not recorded.")
    )
    return f"<p>{said}</p>" + _table(head, lines)


def _stage_section(report: ReportData) -> str:
    if report.stages is None:
        return _missing("Time and memory were not measured.")

    def number(value: Any, form: str) -> str:
        return "n/a" if value is None or math.isnan(value) else format(value, form)

    forms = dict(zip(STAGE_COLUMNS[1:], (",.1f", ",.0f", ",.0f", ",.0f"), strict=True))
    lines = [
        [row["stage"], *(number(row[key], form) for key, form in forms.items())]
        for row in checked_rows(report.stages, STAGE_COLUMNS, "stages")
    ]
    return _table(("stage", "seconds", "tokens", "tokens/s", "peak memory (MB)"), lines)


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


def _manifest_section(report: ReportData) -> str:
    if not report.manifest:
        return _missing("No manifest was given: this page cannot say how to repeat the run.")
    return _table((), _flat(report.manifest), kind="pairs")
