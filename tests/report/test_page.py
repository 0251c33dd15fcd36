"""The page that any report is: its parts say what they are given, trust no text, load nothing."""

from __future__ import annotations

import io
import re

import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

from mmlens.plots.style import finish
from mmlens.report.page import Page, render, write
from mmlens.report.parts import section_html
from mmlens.report.prompt import Piece, Prompt
from mmlens.report.sections import (
    Badge,
    Cell,
    Example,
    Examples,
    Figure,
    Links,
    Packaged,
    Section,
    Shown,
    Table,
    Text,
    Verdicts,
)
from tests.helpers.pages import HOSTILE, read


def png(kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(stream, kind)
    return stream.getvalue()


def figure(name):
    return Figure(name, finish(go.Figure(go.Scatter(y=[1, 2])), "A title", "Below it"), "layers")


def example(**changes):
    given = {
        "question": "What is it?",
        "true": "a cat",
        "before": "a cat",
        "after": {"image silenced": "a dog", "all silenced": "a cat"},
        "label": "pets",
    }
    return Example(**(given | changes))


def all_parts(said):
    """Every kind of part, with ``said`` in every text of it."""
    return [
        Text(said),
        Text(said, "note"),
        Packaged("method.html", {"fractions": said}),
        Table(said, pd.DataFrame([[said, Cell(said, "text")]], columns=[said, "b"])),
        Verdicts([Badge(said, "yes", said)]),
        Examples([example(question=said, before=said, label=said, after={said: said})]),
        Examples([example(pictures=[Shown(png(), said, said), Shown(png("JPEG"), said)])]),
        Prompt(said, (Piece("text", said, 0), Piece("special", said, 1))),
        Links({said: "cards/" + said}),
    ]


def test_no_text_of_any_part_becomes_markup():
    plain = read(section_html(Section("s", "word", all_parts("word"))))
    hostile_html = section_html(Section("s", HOSTILE, all_parts(HOSTILE)))
    hostile = read(hostile_html)
    assert hostile.tags == plain.tags
    assert "<script>alert" not in hostile_html
    assert hostile.text.count(HOSTILE) == plain.text.count("word") >= 18
    assert all(load.startswith("data:image/") for load in hostile.loads)


def test_a_page_lists_its_sections_and_has_one_plotly():
    sections = [Section("One & two", "said", [figure("a")]), Section("Three", "", [figure("b")])]
    html = render(Page("A title", "Below.", sections))
    assert re.findall(r'<a href="#part-(\d)">([^<]*)</a>', html) == [
        ("0", "One &amp; two"),
        ("1", "Three"),
    ]
    assert re.findall(r'id="figure-(\w+)"', html) == ["a", "b"]
    assert html.count("plotly.js v") == 1
    assert html.count("<h1>A title</h1>") == 1
    assert ".mmlens-prompt" in html[: html.index("</style>")]


def test_figures_of_one_name_are_refused():
    # Both would be drawn into the first one's place.
    page = Page("t", "", [Section("a", "", [figure("x")]), Section("b", "", [figure("x")])])
    with pytest.raises(ValueError, match="more than one figure named 'x'"):
        render(page)


def test_a_page_is_written_whole(tmp_path):
    path = write(Page("t", "s", [Section("a", "said")]), tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8") == render(Page("t", "s", [Section("a", "said")]))


def test_tables_keep_titles_numbers_and_looks():
    frame = pd.DataFrame({"a": ["x", "y"], "n": [3, 4], "v": [0.5, float("nan")]})
    html = section_html(Section("", "", [Table("Title", frame)]))
    assert "<h3>Title</h3>" in html
    assert re.findall(r"<td>([^<]*)</td>", html) == ["x", "3", "0.5", "y", "4", ""]
    assert re.findall(r"<th[^>]*>([^<]*)</th>", html) == ["a", "n", "v"]
    pairs = section_html(Section("", "", [Table("", frame[["a", "v"]], "pairs")]))
    assert "<th" not in pairs
    assert "<h3>" not in pairs
    wrapped = pd.DataFrame(
        [[Cell("many words", "text"), Cell("0.25", "lines yes")]], columns=[*"ab"]
    )
    html = section_html(Section("", "", [Table("", wrapped)]))
    assert '<td class="text">many words</td><td class="lines yes">0.25</td>' in html
    # The name of a column of texts starts where they do.
    assert '<th scope="col" class="text">a</th><th scope="col">b</th>' in html


def test_an_empty_table_still_names_its_columns():
    html = section_html(Section("", "", [Table("", pd.DataFrame(columns=["a", "b"]))]))
    assert re.findall(r"<th[^>]*>([^<]*)</th>", html) == ["a", "b"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("yes", "Yes"),
        ("no", "No"),
        ("opposite", "No: the control costs more"),
        ("unknown", "Not known"),
    ],
)
def test_every_verdict_is_told_by_a_word_too(answer, said):
    html = section_html(Section("", "", [Verdicts([Badge("pets", answer, "It is [1.0, 2.0].")])]))
    assert f'<li class="{answer}">' in html
    assert f'<span class="answer">{said}</span>' in html
    assert "[1.0,&nbsp;2.0]" in html


def test_examples_name_every_setting_and_mark_what_changed():
    html = section_html(Section("", "", [Examples([example()])]))
    assert re.findall(r"<dt>([^<]*)</dt><dd([^>]*)>([^<]*)</dd>", html) == [
        ("true", "", "a cat"),
        ("before", "", "a cat"),
        ("image silenced", ' class="changed"', "a dog"),
        ("all silenced", "", "a cat"),
    ]
    assert "pets, changed in 1 of 2" in html
    assert "<img" not in html


@pytest.mark.parametrize(("after", "said"), [("a cat", "unchanged"), ("a dog", "changed")])
def test_one_setting_says_whether_the_answer_changed(after, said):
    html = section_html(Section("", "", [Examples([example(after={"silenced": after}, label="")])]))
    assert f'<div class="domain">{said}</div>' in html


def test_pictures_are_inside_the_page_and_captioned():
    pictures = [Shown(png(), "first"), Shown(png("JPEG"), "second", "frame 2")]
    html = section_html(Section("", "", [Examples([example(pictures=pictures)])]))
    assert re.findall(r'<img src="data:image/(\w+);base64,[^"]*" alt="(\w+)">', html) == [
        ("png", "first"),
        ("jpeg", "second"),
    ]
    assert html.count("<span>frame 2</span>") == 1
    with pytest.raises(ValueError, match="PNG or JPEG"):
        section_html(Section("", "", [Examples([example(pictures=[Shown(b"GIF89a", "x")])])]))
