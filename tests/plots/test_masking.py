"""Figures of masks carry the numbers of the masking table, recomputed here."""

from __future__ import annotations

import json
import math
from string import Template
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmlens import plots
from mmlens.storage.assets import asset
from tests.helpers.cost_figures import named, rows_match, ticks
from tests.helpers.masking_frames import COLUMNS, DATA, MODALITIES, masking_frame

ALL = (*MODALITIES, "all")
FOUR = ("zero", "layer_minimum", "keep_only", "own_tokens")
STRATEGIES = ("adaptive", "LA_MU", "LU_MA", "uniform", "random")
WEIGHTS = ("paper", "mean", "prob")
LONG = tuple(f"a_very_long_name_of/some data-set number {i}" for i in range(6))
CONTROL = ["control_mean", "control_sd", "control_drop", "difference", "low", "high"]


def grid_frame(**options: Any) -> pd.DataFrame:
    return masking_frame(
        ("text", "image", "all"), ("all",), strategies=STRATEGIES, weights=WEIGHTS, **options
    )


def mined_frame(**options: Any) -> pd.DataFrame:
    return masking_frame(("image", "all"), (*DATA, "all"), mined=(*DATA, "all"), **options)


def ratio_frame(**options: Any) -> pd.DataFrame:
    return masking_frame(ALL, ("all",), ratios=(0.05, 0.001, 0.02), **options)


def treatment_frame(**options: Any) -> pd.DataFrame:
    return masking_frame(ALL, ("all",), treatments=FOUR, **options)


def split_frame(**options: Any) -> pd.DataFrame:
    splits = {
        "special_text_separate": ("text", "special", "image", "all"),
        "prompt": ("prompt",),
        "special_text_as_one": ("special_text", "image", "all"),
    }
    return pd.concat(
        [
            masking_frame(names, ("all",), seed=i, **options).assign(split=split)
            for i, (split, names) in enumerate(splits.items())
        ],
        ignore_index=True,
    )


def subtitle(figure: Any) -> str:
    return figure.layout.title.subtitle.text


# --- rows: effects, treatments, splits


def test_effects_stand_by_modality_and_data_set() -> None:
    frame = masking_frame(ALL)
    shuffled = frame.sample(frac=1, random_state=1)
    figure = plots.masking_effects(shuffled, modalities=MODALITIES, evaluated=DATA)
    wanted = frame[frame.control == "matched"]
    rows_match(figure, wanted)
    (mask,) = named(figure, "mask")
    assert ticks(figure, mask.y)[:6] == [*DATA, "all data sets", *DATA[:1]]
    heads = [text for text in figure.layout.yaxis.ticktext if text.startswith("<b>")]
    assert heads == [f"<b>{name}</b>" for name in (*MODALITIES, "all modalities")]
    assert len(set(mask.marker.color)) == len(ALL)
    assert "LA_MU, weights paper, 2% of neurons, set to 0, mined on all data" in subtitle(figure)
    assert "matched control of 3 sets" in subtitle(figure)
    assert any(s == "circle-open" for s in named(figure, "difference")[0].marker.symbol)


def test_the_other_control_is_drawn_when_asked_for() -> None:
    frame = masking_frame(ALL)
    rows_match(plots.masking_effects(frame, "random"), frame[frame.control == "random"])
    with pytest.raises(ValueError, match="'shuffled' was asked for"):
        plots.masking_effects(frame, "shuffled")


def test_rows_without_a_control_say_so() -> None:
    frame = masking_frame(ALL, DATA)
    frame = frame[~((frame.modality == "special") & (frame.control == "matched"))]
    figure = plots.masking_effects(frame)
    lacking = [note for note in figure.layout.annotations if note.text == "no control"]
    gap = named(figure, "difference")[0]
    assert len(lacking) == len(DATA) == sum(math.isnan(x) for x in gap.x)
    assert [note.y for note in lacking] == [
        y for y, x in zip(gap.y, gap.x, strict=True) if math.isnan(x)
    ]
    assert "4 of 20 without it" in subtitle(figure)
    drops = dict(zip(gap.y, named(figure, "mask")[0].x, strict=True))
    special = frame[frame.modality == "special"]["drop"].to_numpy()
    np.testing.assert_allclose([drops[note.y] for note in lacking], 100 * special)


def test_no_control_at_all_is_drawn_and_said() -> None:
    frame = masking_frame(("image",), ("TextVQA",), controls=("",))
    frame["control"] = math.nan  # as an empty cell of a CSV file is read
    figure = plots.masking_effects(frame)
    assert "no control was run" in subtitle(figure)
    assert list(figure.layout.yaxis.ticktext) == ["image"]
    assert "questions of TextVQA" in subtitle(figure)


def test_a_setting_must_be_said_when_there_are_several() -> None:
    frame = masking_frame(ALL, ("all",), ratios=(0.01, 0.02))
    for ratio in (0.02, 0.01):
        figure = plots.masking_effects(plots.choose(frame, ratio=ratio))
        rows_match(figure, frame[(frame.control == "matched") & (frame.ratio == ratio)])
    with pytest.raises(ValueError, match=r"ratio 0\.01, 0\.02, and 0\.05 was asked for"):
        plots.choose(frame, ratio=0.05)
    with pytest.raises(ValueError, match=r"several values of ratio: 0\.01, 0\.02"):
        plots.masking_effects(frame)
    odd = masking_frame(ALL, ("all",), weights=("mean", "max"))
    with pytest.raises(ValueError, match="several values of weights: mean, max"):
        plots.masking_effects(odd)


def test_treatments_stand_side_by_side() -> None:
    frame = treatment_frame()
    figure = plots.treatments_figure(frame, modalities=MODALITIES)
    order = ["zero", "own_tokens", "layer_minimum", "keep_only"]
    wanted = frame[frame.control == "matched"].copy()
    wanted["place"] = wanted.treatment.map(order.index) + 10 * wanted.modality.map(ALL.index)
    rows_match(figure, wanted.sort_values("place"))
    texts = ticks(figure, named(figure, "mask")[0].y)
    assert texts[:4] == [
        "set to 0",
        "set to 0 on own tokens",
        "set to layer minimum",
        "all others set to 0",
    ]


def test_splits_say_how_many_neurons_they_found() -> None:
    frame = split_frame()
    figure = plots.split_types_figure(frame)
    order = ["prompt", "special_text_as_one", "special_text_separate"]
    names = ["text", "special", "image", "prompt", "special_text", "all"]
    wanted = frame[frame.control == "matched"].copy()
    wanted["place"] = 10 * wanted.split.map(order.index) + wanted.modality.map(names.index)
    wanted = wanted.sort_values("place")
    rows_match(figure, wanted)
    texts = ticks(figure, named(figure, "mask")[0].y)
    for text, row in zip(texts, wanted.itertuples(), strict=True):
        assert f"({row.n_neurons})" in text
    assert sum(text.startswith("<b>") for text in figure.layout.yaxis.ticktext) == 3


# --- maps


def cells(figure: Any) -> dict[tuple[str, int, int], tuple[float, str]]:
    return {
        (trace.name, i, j): (trace.z[i][j], trace.text[i][j])
        for trace in figure.data
        for i in range(len(trace.z))
        for j in range(len(trace.z[i]))
    }


def check_cells(found: Any, wanted: pd.DataFrame, down: Any, across: Any) -> int:
    """Every cell has its row's drop, masked accuracy and star; the number of stars."""
    stars = 0
    for row in wanted.to_dict("records"):
        z, text = found[row["modality"], down(row), across(row)]
        assert z == pytest.approx(100 * row["drop"])
        clear = row["low"] > 0 or row["high"] < 0
        change = f"{-100 * row['drop']:+.1f}"
        assert text == f"{100 * row['masked']:.1f}<br>{change}{'*' if clear else ''}"
        stars += clear
    return stars


def test_the_grid_has_a_cell_per_strategy_and_weights() -> None:
    frame = grid_frame()
    helped = (frame.strategy == "random") & (frame.modality == "text")
    frame.loc[helped, ["difference", "low", "high"]] = [-0.05, -0.08, -0.02]
    figure = plots.masking_grid(
        frame.sample(frac=1, random_state=2), strategies=STRATEGIES, weights=WEIGHTS
    )
    found = cells(figure)
    assert len(found) == 3 * 15
    wanted = frame[frame.control == "matched"]
    stars = check_cells(
        found,
        wanted,
        lambda row: WEIGHTS.index(row["weights"]),
        lambda row: STRATEGIES.index(row["strategy"]),
    )
    assert 0 < stars < 45
    assert list(figure.layout.xaxis.ticktext) == list(STRATEGIES)
    assert figure.layout.coloraxis.cmax == pytest.approx(100 * wanted["drop"].max())
    one = plots.masking_grid(frame, modalities=["image"])
    assert [trace.name for trace in one.data] == ["image"]


def test_cells_that_were_not_run_or_have_no_control_are_distinguished() -> None:
    frame = grid_frame(controls=("matched",))
    bare = (frame.strategy == "random") & (frame.modality == "image")
    frame.loc[bare, CONTROL] = math.nan
    frame.loc[bare, "control"] = ""
    frame = frame[~((frame.weights == "prob") & (frame.modality == "text"))]
    figure = plots.masking_grid(frame, strategies=STRATEGIES, weights=WEIGHTS)
    found = cells(figure)
    assert found["text", 2, 0] == (None, "")
    assert found["image", 0, 4][1].endswith("°")
    assert not found["all", 0, 4][1].endswith("°")
    assert "° no control" in subtitle(figure)
    none = plots.masking_grid(grid_frame(controls=("",)))
    assert "no control was run" in subtitle(none)
    assert not any("°" in text or "*" in text for _, text in cells(none).values())


def test_mining_marks_the_data_it_was_found_on() -> None:
    frame = mined_frame()
    figure = plots.mining_matrix(frame, data_sets=DATA)
    order = [*DATA, "all"]
    check_cells(
        cells(figure),
        frame[frame.control == "matched"],
        lambda row: order.index(row["mined"]),
        lambda row: order.index(row["evaluated"]),
    )
    assert list(figure.layout.yaxis.ticktext) == [*DATA, "all data"]
    centres = {((s.x0 + s.x1) / 2, (s.y0 + s.y1) / 2) for s in figure.layout.shapes}
    assert {tuple(round(v, 6) for v in one) for one in centres} == {(i, i) for i in range(5)}
    assert len(figure.layout.shapes) == 2 * 5


# --- ratios


def test_accuracy_falls_against_the_ratio() -> None:
    frame = ratio_frame()
    figure = plots.ratio_curves(frame, modalities=MODALITIES)
    masks = named(figure, "mask")
    assert len(masks) == len(ALL)
    for modality, line in zip(ALL, masks, strict=True):
        own = frame[(frame.modality == modality) & (frame.control == "matched")]
        own = own.sort_values("ratio")
        assert list(line.x) == pytest.approx([0.1, 2, 5])
        np.testing.assert_allclose(line.y, 100 * own.masked)
        filled = [colour != "#ffffff" for colour in line.marker.color]
        assert filled == ((own.low > 0) | (own.high < 0)).tolist()
    for kind in ("matched", "random"):
        lines = [t for t in figure.data if str(t.name).startswith(f"{kind} control") and t.x[0]]
        lines = [t for t in lines if "band" not in t.name]
        for modality, line in zip(ALL, lines, strict=True):
            own = frame[(frame.modality == modality) & (frame.control == kind)]
            np.testing.assert_allclose(line.y, 100 * own.sort_values("ratio").control_mean)
    assert figure.layout.xaxis.type == "log"


def test_ratios_without_control_or_of_one_point_are_drawn() -> None:
    figure = plots.ratio_curves(masking_frame(("image",), ("COCO",), controls=("",)))
    (line,) = named(figure, "mask")
    assert len(line.x) == 1
    assert list(line.marker.color) == ["#ffffff"]
    assert not [t for t in figure.data if "control ±" in str(t.name)]


# --- all of them


DRAWN = [
    (plots.masking_effects, lambda **o: masking_frame(ALL, **o)),
    (plots.masking_grid, grid_frame),
    (plots.mining_matrix, mined_frame),
    (plots.ratio_curves, ratio_frame),
    (plots.treatments_figure, treatment_frame),
    (plots.split_types_figure, split_frame),
]


@pytest.mark.parametrize(("draw", "make"), DRAWN)
def test_missing_columns_empty_frames_and_doubled_rows_are_named(draw: Any, make: Any) -> None:
    frame = make()
    with pytest.raises(ValueError, match=r"lacks \['control_mean'\]"):
        draw(frame.drop(columns="control_mean"))
    with pytest.raises(ValueError, match="is empty"):
        draw(frame.iloc[:0])
    with pytest.raises(ValueError, match="two rows for"):
        draw(pd.concat([frame, frame.iloc[:1]]))


@pytest.mark.parametrize(("draw", "make"), DRAWN)
@pytest.mark.parametrize("value", [0.5, math.nan])
def test_constant_and_missing_numbers_do_not_crash(draw: Any, make: Any, value: float) -> None:
    frame = make()
    frame[[*CONTROL, "drop", "masked", "baseline"]] = value
    figure = draw(frame)
    assert figure.layout.title.text
    assert figure.to_json()


@pytest.mark.parametrize(("draw", "make"), DRAWN[:-1])
def test_a_table_read_from_csv_is_drawn_the_same(draw: Any, make: Any, tmp_path: Any) -> None:
    frame = make(controls=("",))
    frame.to_csv(tmp_path / "masking.csv", index=False)
    read = pd.read_csv(tmp_path / "masking.csv")
    assert read["control"].isna().all()
    assert draw(read).to_json() == draw(frame).to_json()


def test_long_names_are_wrapped_and_stay_apart() -> None:
    figure = plots.mining_matrix(masking_frame(("all",), LONG, mined=LONG))
    assert len(figure.layout.xaxis.ticktext) == 6
    for text in figure.layout.xaxis.ticktext:
        assert all(len(line) <= 17 for line in text.split("<br>"))
        assert text.count("<br>") == 1
    assert len(figure.data[0].z[0]) == 6
    assert LONG[0] in figure.data[0].customdata[0][0]


def test_names_are_drawn_as_they_are() -> None:
    hostile = "<a href='https://x.example'>b</a>"
    frame = masking_frame(("image", hostile), (hostile, "COCO"), mined=("all", hostile, "COCO"))
    mined_on_all = plots.choose(frame, mined="all")
    for figure in (plots.masking_effects(mined_on_all), plots.mining_matrix(frame)):
        assert "<a href" not in str(figure.to_dict())
    frame = masking_frame(("image", hostile), (hostile,), ratios=(0.01, 0.02))
    assert "<a href" not in str(plots.ratio_curves(frame).to_dict())


def test_the_made_up_tables_are_consistent() -> None:
    frame = masking_frame(ALL)
    assert tuple(frame.columns) == COLUMNS == plots.MASKING_COLUMNS
    np.testing.assert_allclose(frame["drop"], frame.baseline - frame.masked)
    np.testing.assert_allclose(frame.difference, frame.control_mean - frame.masked)


def test_every_figure_has_a_caption_of_the_words_that_reports_give() -> None:
    captions = json.loads(asset("mmlens.report", "captions.json"))
    words = {"control": "matched", "cells": 9}
    kinds = (
        *("importance_maps", "score_correlations", "selected_by_layer", "modality_subsets"),
        *("convergence", "masking_effects", "masking_grid", "mining_matrix", "ratio_curves"),
        *("treatments", "methods_comparison", "method_pairs", "method_overlap", "split_types"),
    )
    for kind in kinds:
        assert "$" not in Template(captions[kind]).substitute(words)
