"""Figures carry the numbers of their tables: counts are recomputed here, independently."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmlens import plots
from tests.helpers.domain_frames import (
    DOMAINS,
    FRACTIONS,
    LAYERS,
    make_accuracy,
    make_effects,
    make_neurons,
    make_selection,
)


@pytest.fixture(scope="module")
def neurons() -> pd.DataFrame:
    return make_neurons(DOMAINS)


@pytest.fixture(scope="module")
def effects() -> pd.DataFrame:
    return make_effects(DOMAINS)


def traces(figure: Any, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_label_counts_are_those_of_the_table(neurons: pd.DataFrame, fraction: float) -> None:
    chosen = [
        text
        for text, f in zip(neurons["domains"], neurons["fraction"], strict=True)
        if f <= fraction
    ]
    exclusive = Counter(text for text in chosen if ";" not in text)
    shared = Counter(d for text in chosen if ";" in text for d in text.split(";"))
    figure = plots.neurons_per_domain(neurons, fraction)
    drawn = {kind: traces(figure, kind)[0] for kind in ("exclusive", "shared")}
    assert list(drawn["exclusive"].y) == DOMAINS
    assert list(drawn["exclusive"].x) == [exclusive[d] for d in DOMAINS]
    assert list(drawn["shared"].x) == [shared[d] for d in DOMAINS]
    assert drawn["shared"].marker.pattern.shape == "/"
    assert f"{len(chosen)} neurons" in figure.layout.title.subtitle.text


def test_layers_count_every_label_and_keep_empty_layers(neurons: pd.DataFrame) -> None:
    figure = plots.layer_distribution(neurons, LAYERS + 2, 0.02)
    for domain in DOMAINS:
        wanted = [0] * (LAYERS + 2)
        for row in neurons.itertuples():
            if row.fraction <= 0.02 and domain in str(row.domains).split(";"):
                wanted[int(row.layer)] += 1
        (trace,) = traces(figure, domain)
        assert list(trace.y) == wanted
        assert list(trace.x) == list(range(LAYERS + 2))


def test_modules_get_panels_of_their_own(neurons: pd.DataFrame) -> None:
    both = pd.concat([neurons, make_neurons(DOMAINS, "vision", seed=3)], ignore_index=True)
    figure = plots.layer_distribution(both, {"language": LAYERS, "vision": LAYERS})
    assert len(figure.data) == 2 * len(DOMAINS)
    titles = " ".join(str(note.text) for note in figure.layout.annotations)
    assert "language" in titles
    assert "vision" in titles
    counted = plots.neurons_per_domain(both)
    total = sum(sum(t.x) for t in traces(counted, "exclusive") + traces(counted, "shared"))
    labels = both[both["fraction"] <= 0.01]["domains"].str.split(";").map(len).sum()
    assert total == labels


def test_a_layer_outside_the_module_is_refused(neurons: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="n_layers gives it 2"):
        plots.layer_distribution(neurons, 2)


def test_domains_keep_their_look_across_figures(
    neurons: pd.DataFrame, effects: pd.DataFrame
) -> None:
    order = list(reversed(DOMAINS))
    bars = traces(plots.neurons_per_domain(neurons, domains=order), "exclusive")[0]
    layers = plots.layer_distribution(neurons, LAYERS, domains=order)
    colours = dict(zip(order, bars.marker.color, strict=True))
    assert {t.name: t.marker.color for t in layers.data} == colours
    drawn = traces(plots.effects_against_controls(effects, domains=order), "mask")[0]
    assert drawn.marker.color[0] == colours[DOMAINS[0]]
    assert len(set(colours.values())) == len(DOMAINS)


def test_entropy_histogram_counts_and_marks_its_thresholds() -> None:
    summary, _ = make_selection(DOMAINS)
    figure = plots.entropy_histogram(summary)
    known = np.isfinite(summary.entropy)
    passing, filtered = figure.data[0], figure.data[2]
    assert sum(passing.y) == (known & summary.passes).sum()
    assert sum(filtered.y) == (known & ~summary.passes).sum()
    low = summary.entropy[known & summary.passes] < np.asarray(passing.x)[30] - passing.width / 2
    assert sum(passing.y[:30]) == low.sum()
    assert f"tau = {summary.tau:.3g}" in passing.name
    assert f"{int(summary.passes.sum()):,}" in passing.name
    lines = {round(float(shape.x0), 9) for shape in figure.layout.shapes}
    assert lines == {round(summary.cut, 9), round(math.log(len(DOMAINS)), 9)}
    notes = " ".join(note.text for note in figure.layout.annotations)
    assert f"{summary.cut:.3f}" in notes
    assert f"ln {len(DOMAINS)}" in notes
    assert "7 never active" in figure.layout.title.subtitle.text
    assert figure.layout.barmode == "stack"


def test_entropy_histogram_without_a_selection_and_bad_input() -> None:
    summary, _ = make_selection(["a", "b"])
    none = plots.SelectionSummary(
        "language", ("a", "b"), summary.entropy, summary.passes, summary.tau, float("nan"), 0
    )
    assert len(plots.entropy_histogram(none).layout.shapes) == 1
    wrong = plots.SelectionSummary(
        "language", ("a", "b"), summary.entropy + 5, summary.passes, 0.5, 0.1, 3
    )
    with pytest.raises(ValueError, match="lie within 0 to 0.6931 nats"):
        plots.entropy_histogram(wrong)
    with pytest.raises(ValueError, match="equal shapes"):
        plots.entropy_histogram(
            plots.SelectionSummary(
                "m", ("a", "b"), np.zeros((2, 3)), np.ones((3, 2), bool), 0.0, 0.0, 0
            )
        )


def test_effects_are_points_and_filled_where_zero_is_excluded(effects: pd.DataFrame) -> None:
    figure = plots.effects_against_controls(effects, "matched", fraction=0.02)
    rows = effects[(effects["control"] == "matched") & (effects["fraction"] == 0.02)]
    rows = rows[rows["evaluated"].isin(["own", "others", "all"])]
    (mask,), (control,), (gap,) = (traces(figure, n) for n in ("mask", "control", "difference"))
    assert list(mask.x) == pytest.approx(list(100 * rows["drop"]))
    assert list(control.x) == pytest.approx(list(100 * rows["control_drop"]))
    assert list(gap.x) == pytest.approx(list(100 * rows["difference"]))
    high = np.asarray(gap.x) + np.asarray(gap.error_x.array)
    low = np.asarray(gap.x) - np.asarray(gap.error_x.arrayminus)
    assert list(high) == pytest.approx(list(100 * rows["high"]))
    assert list(low) == pytest.approx(list(100 * rows["low"]))
    filled = [symbol == "circle" for symbol in gap.marker.symbol]
    assert filled == [
        bool(lo > 0 or hi < 0) for lo, hi in zip(rows["low"], rows["high"], strict=True)
    ]
    assert any(filled)
    assert not all(filled)
    assert len(figure.layout.yaxis.ticktext) == len(rows)


def test_a_menu_shows_one_fraction_at_a_time(effects: pd.DataFrame) -> None:
    figure = plots.effects_against_controls(effects)
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == [
        "fraction 1%",
        "fraction 2%",
        "fraction 5%",
        "fraction 10%",
    ]
    for i, button in enumerate(menu.buttons):
        change, which = button.args
        assert [figure.data[t].name for t in which] == ["control", "mask", "difference"] * 4
        assert [t for t, on in zip(which, change["visible"], strict=True) if on] == [
            3 * i,
            3 * i + 1,
            3 * i + 2,
        ]
    assert [t.visible for t in figure.data[:6]] == [True] * 3 + [False] * 3


def test_an_interval_that_touches_zero_is_hollow() -> None:
    frame = make_effects(["a", "b"], matrix=False, fractions=(0.01,))
    frame.loc[frame["evaluated"] == "own", ["low", "high"]] = [0.0, 0.02]
    gap = traces(plots.effects_against_controls(frame), "difference")[0]
    assert gap.marker.symbol[0] == "circle-open"


def test_matrix_stars_and_values(effects: pd.DataFrame) -> None:
    figure = plots.effect_matrix(effects, "random", 0.05)
    heat = figure.data[0]
    rows = effects[(effects["control"] == "random") & (effects["fraction"] == 0.05)]
    cells = {(r.mask, r.evaluated): r for r in rows.itertuples()}
    for i, mask in enumerate(heat.y):
        for j, domain in enumerate(heat.x):
            cell: Any = cells[mask, domain]
            assert heat.z[i][j] == pytest.approx(100 * cell.difference)
            assert heat.text[i][j].endswith("*") == (cell.low > 0 or cell.high < 0)
    assert heat.zmin == -heat.zmax


def test_matrix_needs_named_domains() -> None:
    with pytest.raises(ValueError, match="no full matrix"):
        plots.effect_matrix(make_effects(DOMAINS, matrix=False))


def test_accuracy_means_and_spread_over_seeds() -> None:
    frame = make_accuracy(DOMAINS)
    figure = plots.accuracy_bars(frame, 0.05)
    picked = frame[np.isclose(frame["fraction"], 0.05) & (frame["kind"] == "matched")]
    (bar,) = [t for t in traces(figure, "matched")]
    for domain, height, spread in zip(bar.x, bar.y, bar.error_y.array, strict=True):
        values = picked[(picked["mask"] == domain) & (picked["evaluated"] == domain)]["accuracy"]
        assert len(values) == 3
        assert height == pytest.approx(100 * values.mean())
        assert spread == pytest.approx(100 * values.std(ddof=1))
    (plain,) = traces(figure, "none")
    wanted = frame[frame["kind"] == "none"]["accuracy"]
    assert list(plain.y) == pytest.approx(list(100 * wanted))
    assert list(figure.layout.yaxis.range) == [0, 105]


def test_scores_beyond_0_and_1_are_inside_the_figure() -> None:
    frame = make_accuracy(DOMAINS)
    # CIDEr passes 1, MINER's WRR falls below 0.
    frame["accuracy"] = 20 * frame["accuracy"] - 17.4
    low, high = plots.accuracy_bars(frame, 0.05).layout.yaxis.range
    means = 100 * plots.accuracy_summary(frame, 0.05)["mean"]
    assert low < means.min() < 0 and 105 < means.max() < high


def test_names_are_drawn_as_they_are(neurons: pd.DataFrame) -> None:
    hostile = "<a href='https://x.example'>b</a>"
    frame = neurons.rename(columns={"p_words": f"p_{hostile}"})
    frame["domains"] = frame["domains"].str.replace("words", hostile)
    figure = plots.neurons_per_domain(frame)
    assert hostile not in str(figure.to_dict())
    assert "&lt;a href" in str(figure.to_dict())


@pytest.mark.parametrize(
    ("draw", "make"),
    [
        (plots.neurons_per_domain, make_neurons),
        (lambda frame: plots.layer_distribution(frame, LAYERS), make_neurons),
        (plots.effects_against_controls, make_effects),
        (plots.effect_matrix, make_effects),
        (plots.accuracy_bars, make_accuracy),
    ],
)
def test_missing_columns_and_empty_frames_are_named(draw: Any, make: Any) -> None:
    frame = make(DOMAINS)
    with pytest.raises(ValueError, match=r"lacks \['fraction'\]"):
        draw(frame.drop(columns="fraction"))
    with pytest.raises(ValueError, match="is empty"):
        draw(frame.iloc[:0])


def test_absent_control_fraction_and_label_are_named(
    neurons: pd.DataFrame, effects: pd.DataFrame
) -> None:
    with pytest.raises(ValueError, match="controls \\['matched', 'random'\\]"):
        plots.effects_against_controls(effects, "shuffled")
    with pytest.raises(ValueError, match="0.03 was asked for"):
        plots.effects_against_controls(effects, fraction=0.03)
    with pytest.raises(ValueError, match="none selected at fraction 0.001"):
        plots.neurons_per_domain(neurons, 0.001)
    with pytest.raises(ValueError, match="needs one or more of"):
        plots.neurons_per_domain(neurons, domains=["cats"])


def test_the_low_end_of_the_entropy_shows_the_selected_in_bins_of_their_own() -> None:
    summary, _ = make_selection(DOMAINS)
    figure = plots.entropy_histogram(summary)
    zoomed = figure.data[1]
    low, near = figure.layout.xaxis2.range
    inside = summary.entropy[np.isfinite(summary.entropy) & summary.passes]
    assert low <= inside.min() < summary.cut < near
    assert sum(zoomed.y) == ((inside >= low) & (inside <= near)).sum()
    assert len(zoomed.y) == 30
    assert zoomed.width == pytest.approx((near - low) / 30)
