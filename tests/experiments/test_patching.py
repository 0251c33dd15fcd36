"""The worked example: TransformerLens's patching on a hooked model."""

import pytest
import torch

import mmlens
from experiments.patching import pairs, patched


@pytest.fixture(scope="module", params=["auto", "bridge"])
def demo(request):
    return mmlens.load("demo/llava-next", backbone=request.param, device="cpu", check=False)


def test_the_answer_moves_from_the_picture_to_later_positions(demo):
    found = list(pairs(demo, mmlens.load_samples("demo/llava-next", "test"), 2))
    assert len(found) == 2
    for pair in found:
        assert pair.clean.input_ids.equal(pair.corrupted.input_ids)
        assert pair.answers[0] != pair.answers[1]
    table = patched(demo, found)
    # Before the first layer nothing but the picture differs, so the patch makes the clean run.
    with torch.no_grad():
        clean = torch.stack([pair.metric(demo(pair.clean)) for pair in found]).mean()
        corrupted = torch.stack([pair.metric(demo(pair.corrupted)) for pair in found]).mean()
    assert table.image[0] == pytest.approx(float(clean), abs=1e-3)
    assert table.later[0] == pytest.approx(float(corrupted), abs=1e-3)
    assert table.image_flips[0] == 1
    assert table.later_flips[0] == 0
    # Before the last layer it has moved on to where the answer is read.
    assert table.image_flips.iloc[-1] < table.later_flips.iloc[-1]
