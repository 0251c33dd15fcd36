"""Figures of neurons carry the counts of their table, recomputed here."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import pytest

from mmlens import plots
from tests.helpers.domain_frames import DOMAINS, FRACTIONS, LAYERS, make_neurons


@pytest.fixture(scope="module")
def neurons() -> pd.DataFrame:
    return make_neurons(DOMAINS)


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
