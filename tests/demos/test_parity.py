"""The shipped demo under the splice: equal to Hugging Face, also under a zeroing that is felt."""

import os

import pytest
import torch

import mmlens
from tests.helpers import models
from tests.helpers.reference import close, zeroed_activations


@pytest.fixture(scope="module")
def demo():
    return models.demo("llava-next")


@pytest.fixture(scope="module")
def mixed(demo):
    """Pictures of every size and domain of the demo's test data."""
    by_length = {}
    for sample in mmlens.load_samples("demo/llava-next", "test")[::53]:
        by_length.setdefault((sample.domain, demo.prepare(sample).shape[1]), sample)
    return list(by_length.values())[:16]


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits(demo, mixed, side):
    batch = demo.prepare(mixed, padding_side=side)
    assert not batch.groups.attention.all()  # different lengths, so padding is in play
    theirs = demo.hf(**batch.inputs).logits
    assert close(demo(batch), theirs, batch.groups.attention)
    alone = demo(demo.prepare(mixed[0]))[0]
    inside = demo(batch)[0, batch.groups.attention[0]]
    assert (alone - inside).abs().max() <= 1e-5 * inside.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 3}])
def test_generation_plain_and_under_zeroing(demo, mixed, options):
    batch = demo.prepare(mixed)
    options = {"do_sample": False, "max_new_tokens": 6, **options}
    shape = demo.modules["language"].shape
    neurons = mmlens.NeuronSet(
        torch.rand(600, 2, generator=torch.Generator().manual_seed(0))
        .mul(torch.tensor(shape))
        .long(),
        "language",
        shape,
    )
    plain, masked = demo(batch), demo.run_with_hooks(batch, mmlens.hooks.zero(neurons))
    assert (plain - masked).abs().max() > 0.01 * plain.abs().max()
    for sets in ([], [neurons]):
        torch.manual_seed(0)
        with zeroed_activations(demo.hf, neurons if sets else neurons - neurons):
            theirs = demo.hf.generate(**batch.inputs, **options)[:, batch.shape[1] :]
        torch.manual_seed(0)
        with demo.hooks(fwd_hooks=mmlens.hooks.zero(sets)):
            ours = demo.generate(batch, **options)
        assert torch.equal(ours.tokens, theirs)


def test_found_whatever_the_working_directory(tmp_path):
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert len(mmlens.load_samples("demo/llava-next", "validation")) > 100
        assert mmlens.load("demo/llava-next").modules["language"].layers >= 1
    finally:
        os.chdir(before)


def test_token_groups_of_a_prompt(demo, mixed):
    batch = demo.prepare(mixed)
    groups = batch.groups
    whole = groups.mask("text").int() + groups.mask("special").int() + groups.mask("image").int()
    assert torch.equal(whole.bool(), groups.attention)
    assert whole.max() == 1
    for row, sample in enumerate(batch.samples):
        own = batch.input_ids[row][groups.mask("text")[row] & ~groups.mask("template")[row]]
        assert demo.to_string(own).replace(" ", "") == sample.text.lower().replace(" ", "")
