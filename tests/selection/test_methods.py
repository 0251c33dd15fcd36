"""Two methods at equal budget, by hand."""

import pytest
import torch

from mmlens.errors import StatisticsError
from mmlens.selection.methods import entropy_ranked, most_important, parts_of_both


def test_entropy_and_importance_at_equal_budget():
    tokens = torch.tensor([100, 100])
    positive = torch.tensor([[[90, 0], [80, 10], [5, 95], [50, 50], [2, 1], [0, 60]]])
    found = entropy_ranked(positive, tokens, ["text", "image"], 2, quantile=0.5)
    # Of those above the median, by hand: text 90:0 before 80:10 (50:50 is even); image 0:60, 5:95.
    assert {m: list(s) for m, s in found.items()} == {
        "text": [(0, 0), (0, 1)],
        "image": [(0, 2), (0, 5)],
    }
    assert list(entropy_ranked(positive, tokens, ["text", "image"], 1, quantile=0.5)["image"]) == [
        (0, 5)
    ]
    w = torch.tensor([[[0.1, 0.9, 0.9, 0.2, 0.0, 0.3]], [[0.5, 0.4, 0.3, 0.6, 0.1, 0.2]]])
    top = most_important(w, ["text", "image"], {"text": 2, "image": 1})
    assert {m: list(s) for m, s in top.items()} == {"text": [(0, 1), (0, 2)], "image": [(0, 3)]}
    parts = parts_of_both(found["text"], top["text"])
    assert {n: list(s) for n, s in parts.items()} == {
        "entropy": [(0, 0), (0, 1)],
        "importance": [(0, 1), (0, 2)],
        "both methods": [(0, 1)],
        "entropy alone": [(0, 0)],
        "importance alone": [(0, 2)],
    }
    with pytest.raises(StatisticsError, match="at least 1; 0 was given"):
        entropy_ranked(positive, tokens, ["text", "image"], 0)
