"""The report says yes and no plainly, holds everything it needs, and trusts no text."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mmlens.report import mmneuron as report
from mmlens.report.verdicts import domain_verdicts
from tests.helpers import domain_frames as frames
from tests.helpers.pages import HOSTILE, read

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


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


@pytest.fixture(scope="module")
def page() -> str:
    return report.render(make_report(frames.DOMAINS))


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
    for verdict in domain_verdicts(frames.make_effects(frames.DOMAINS)):
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


def test_a_page_of_another_intervention_says_so():
    def words(**parts):
        return read(report.render(report.ReportData("Run", **parts))).text

    assert "Neurons are not silenced in this run" not in words()
    assert "wherever this page says silenced, scale-0.5 was done" in words(intervention="scale-0.5")
