"""What holds for every figure of domains: one look, names as they are, errors that name what is missing."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from mmlens import plots
from tests.helpers.domain_frames import DOMAINS, LAYERS, make_accuracy, make_effects, make_neurons


@pytest.fixture(scope="module")
def neurons() -> pd.DataFrame:
    return make_neurons(DOMAINS)


@pytest.fixture(scope="module")
def effects() -> pd.DataFrame:
    return make_effects(DOMAINS)


def traces(figure: Any, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


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
