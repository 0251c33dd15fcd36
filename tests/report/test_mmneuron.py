"""The report says yes and no plainly, holds everything it needs, and trusts no text."""

from __future__ import annotations

import base64
import importlib.util
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmlens.report import mmneuron as report

# The frames are built beside this file; loaded by path, whether or not tests/ is a package.
_spec = importlib.util.spec_from_file_location(
    "plot_frames", Path(__file__).parents[1] / "plots" / "test_plots.py"
)
assert _spec is not None
assert _spec.loader is not None
frames = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(frames)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = "<script>alert(1)</script>\"'&"


def make_report(domains: list[str]) -> report.ReportData:
    summary, _ = frames.make_selection(domains)
    examples = pd.DataFrame(
        [
            {
                "domain": domains[i % len(domains)],
                "question": "What is shown?",
                "answer": "a cell",
                "unmasked": "a cell",
                "masked": masked,
                "image": image,
            }
            for i, (masked, image) in enumerate([("a cell", PNG), (HOSTILE, None)])
        ]
    )
    samples = pd.DataFrame(
        [{"domain": d, "split": "test", "n_questions": 240, "n_skipped": 0} for d in domains]
    )
    stages = pd.DataFrame(
        [
            {
                "stage": "statistics",
                "seconds": 12.5,
                "tokens": 51200,
                "tokens_per_second": 4096.0,
                "peak_memory_mb": float("nan"),
            }
        ]
    )
    return report.ReportData(
        title="Demo",
        manifest={"model": "demo", "seed": 0, "versions": {"torch": "2.9"}, "note": HOSTILE},
        effects=frames.make_effects(domains),
        accuracy=frames.make_accuracy(domains),
        neurons=frames.make_neurons(domains),
        selection={"language": summary},
        samples=samples,
        stages=stages,
        examples=examples,
    )


class Page(HTMLParser):
    """What a page would load or link, its text outside scripts, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden = tag in ("script", "style")
        for name, value in attrs:
            if name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "srcset", "data", "action", "poster"):
                self.loads.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data


def read(page: str) -> Page:
    parser = Page()
    parser.feed(page)
    return parser


@pytest.fixture(scope="module")
def page() -> str:
    return report.render(make_report(frames.DOMAINS))


def effect(**changes: Any) -> pd.DataFrame:
    """One row: 54 neurons, own questions, drop 0.05 against 0.02."""
    row: dict[str, Any] = {
        "mask": "satellite",
        "fraction": 0.01,
        "n_neurons": 54,
        "evaluated": "own",
        "control": "matched",
        "n_questions": 200,
        "n_seeds": 5,
        "baseline": 0.9,
        "masked": 0.85,
        "control_mean": 0.88,
        "control_sd": 0.01,
        "drop": 0.05,
        "control_drop": 0.02,
        "difference": 0.03,
        "low": 0.01,
        "high": 0.05,
    }
    return pd.DataFrame([row | changes])


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.01, 0.05, "yes"),
        (1e-9, 0.05, "yes"),
        (0.0, 0.05, "no"),
        (-0.01, 0.05, "no"),
        (-0.05, 0.0, "no"),
        (0.0, 0.0, "no"),
        (-0.05, -1e-9, "opposite"),
        (-0.05, -0.01, "opposite"),
    ],
)
def test_the_verdict_turns_where_the_interval_leaves_zero(
    low: float, high: float, answer: str
) -> None:
    (verdict,) = report.verdicts(effect(low=low, high=high))
    assert verdict.answer == answer


def test_sentences_say_it_plainly() -> None:
    (yes,) = report.verdicts(effect())
    assert yes.sentence == (
        "Silencing the 54 satellite neurons costs satellite questions 5.0 percentage points; "
        "silencing as many neurons matched in layer and activation frequency costs 2.0. "
        "Difference +3.0 [1.0, 5.0]: yes, it costs more than the control."
    )
    (no,) = report.verdicts(effect(low=-0.01))
    assert no.sentence.endswith("[-1.0, 5.0]: no, the interval includes 0.")
    (opposite,) = report.verdicts(effect(drop=-0.01, difference=-0.03, low=-0.05, high=-0.01))
    assert "raises accuracy on satellite questions by 1.0 percentage points" in opposite.sentence
    assert "silencing the control costs more" in opposite.sentence
    (odd,) = report.verdicts(effect(drop=-0.01, control_drop=-0.04))
    assert "gains 4.0" in odd.sentence
    assert "accuracy itself did not fall" in odd.sentence


def test_an_interval_off_zero_is_never_printed_as_touching_it() -> None:
    (verdict,) = report.verdicts(effect(low=0.0002))
    assert verdict.answer == "yes"
    assert "[0.02, 5.0]" in verdict.sentence


def test_no_neurons_is_said_and_a_broken_interval_refused() -> None:
    nan = float("nan")
    (verdict,) = report.verdicts(effect(n_neurons=0, low=nan, high=nan))
    assert verdict.answer == "no"
    assert "nothing to silence" in verdict.sentence
    with pytest.raises(ValueError, match="both ends must be numbers"):
        report.verdicts(effect(low=nan))


def test_verdicts_choose_fraction_control_and_own_questions() -> None:
    effects = frames.make_effects(frames.DOMAINS)
    primary = report.verdicts(effects)
    assert [v.domain for v in primary] == frames.DOMAINS
    assert {v.fraction for v in primary} == {0.01}
    assert {v.control for v in primary} == {"matched"}
    assert len(report.verdicts(effects, "random", None)) == 4 * len(frames.DOMAINS)
    diagonal = effects[~effects["evaluated"].isin(["own", "others"])]
    assert [v.domain for v in report.verdicts(diagonal)] == frames.DOMAINS
    with pytest.raises(ValueError, match="'own' questions"):
        report.verdicts(effects[effects["evaluated"] == "others"])
    with pytest.raises(ValueError, match="0.3 was asked for"):
        report.verdicts(effects, fraction=0.3)
    with pytest.raises(ValueError, match="lacks"):
        report.verdicts(effects.drop(columns="low"))


def test_the_page_needs_nothing_beside_it(page: str) -> None:
    found = read(page)
    assert all(load.startswith("data:image/") for load in found.loads)
    assert len(found.loads) == 1
    parts = [link for link in found.links if link.startswith("#part-")]
    assert len(parts) == len(set(parts)) == page.count("<h2>")
    assert all(f'id="{link[1:]}"' in page for link in parts)
    assert sorted(set(found.links) - set(parts)) == [
        "https://arxiv.org/abs/2402.16438",
        "https://arxiv.org/abs/2406.11193",
    ]
    assert "default-src 'none'" in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    # plotly.js once, and no figure brings a server's address.
    assert page.count("plotly.js v") == 1
    assert "plotlyServerURL" not in page[page.index("</head>") :]


def test_every_part_is_there(page: str) -> None:
    text = read(page).text
    for verdict in report.verdicts(frames.make_effects(frames.DOMAINS)):
        assert verdict.sentence in text.replace("\xa0", " ")
    for part in ("Examples", "Accuracy", "How it was done", "Data", "Time and memory"):
        assert part in text
    assert "versions.torch" in text
    assert "4,096" in text
    assert "7 intervals were looked at" in text
    names = set(re.findall(r'id="figure-([a-z0-9-]+)"', page))
    assert names == {"effects", "matrix", "accuracy", "neurons", "layers", "entropy-0"}


def test_parts_that_were_not_run_are_named() -> None:
    text = read(report.render(report.ReportData("Empty"))).text
    for said in (
        "Silencing was not run",
        "Accuracies were not recorded",
        "No examples of answers",
        "No counts of samples",
        "Time and memory were not measured",
        "No manifest was given",
    ):
        assert said in text


def test_hostile_names_stay_text() -> None:
    plain = read(report.render(make_report(frames.DOMAINS)))
    named = [*frames.DOMAINS[:-1], HOSTILE]
    page = report.render(replace(make_report(named), title=HOSTILE))
    found = read(page)
    assert found.tags.count("script") == plain.tags.count("script")
    assert "<script>alert" not in page
    assert HOSTILE in found.text


def test_a_picture_must_be_one() -> None:
    data = make_report(frames.DOMAINS)
    assert data.examples is not None
    wrong = data.examples.assign(image=[b"GIF89a", None])
    with pytest.raises(ValueError, match="PNG or JPEG"):
        report.render(replace(data, examples=wrong))


def test_same_data_same_page_written_whole(tmp_path: Path, page: str) -> None:
    path = report.write(make_report(frames.DOMAINS), tmp_path / "run" / "report.html")
    assert path.read_text(encoding="utf-8") == page
    broken = replace(make_report(frames.DOMAINS), effects=pd.DataFrame({"mask": ["a"]}))
    with pytest.raises(ValueError, match="effects frame lacks"):
        report.write(broken, path)
    assert path.read_text(encoding="utf-8") == page
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
