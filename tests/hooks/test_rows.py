"""Hooks on some rows: each intervention beside others is what it is alone."""

from functools import cache

import pytest
import torch
from transformer_lens.hook_points import HookPoint

import mmlens
from mmlens.ablation.intervention import Intervention
from mmlens.backbone.build import has_hooked_transformer
from mmlens.errors import HookError
from mmlens.hooks import on_rows
from mmlens.streaming.batching import Batching
from tests.helpers.models import spliced
from tests.helpers.reference import zeroed_columns
from tests.tiny import family

BACKBONES = ["hooked_transformer", "bridge"] if has_hooked_transformer() else ["bridge"]
INTERVENTIONS = (
    Intervention(),
    Intervention("keep_only"),
    Intervention("layer_minimum"),
    Intervention("set_to", 0.8),
    Intervention("set_to", -1.0, site="glu"),
    Intervention("scale", 3.0, group="prompt", new_tokens=True),
    Intervention("zero", group="last"),
    Intervention("layer_minimum", group="text"),
    Intervention("mean", counted="prompt"),
    Intervention("soft_scale"),
)


@cache
def statistics(name, backbone):
    model = spliced(name, backbone=backbone)
    samples = [s for s in family(name).samples() if s.images or s.videos or s.audios]
    return mmlens.collect(model, samples, by="id", batching=Batching(progress=False))


def drawn(model, seed, share=0.3):
    shape = model.module("language").shape
    chosen = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share
    return mmlens.NeuronSet(chosen.nonzero().tolist(), "language", shape)


def beside(model, batch, parts):
    """The batch once per part, and the parts' hooks on their rows."""
    size = len(batch)
    places = [range(i * size, (i + 1) * size) for i in range(len(parts))]
    many = batch.repeated(len(parts), model.adapter)
    return many, on_rows(list(zip(places, parts, strict=True)), len(many))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", ["llava_next", "qwen2_vl", "qwen2_audio"])
@torch.no_grad()
def test_interventions_beside_each_other_are_what_they_are_alone(name, backbone):
    model = spliced(name, backbone=backbone)
    batch = model.encode_media(model.prepare(family(name).samples()))
    real = batch.groups.attention
    parts = [[]]  # the untouched model beside them
    for seed, one in enumerate(INTERVENTIONS):
        neurons = drawn(model, seed)
        measured = statistics(name, backbone) if one.needs_statistics else None
        parts.append(one.hooks(neurons, model, batch, measured))
    many, hooks = beside(model, batch, parts)
    plain = model(batch)
    together = model.run_with_hooks(many, fwd_hooks=hooks).split(len(batch))
    for part, logits, one in zip(parts, together, ("none", *INTERVENTIONS), strict=True):
        alone = model.run_with_hooks(batch, fwd_hooks=part)
        assert (logits - alone)[real].abs().max() <= 1e-5 * max(1, float(alone.abs().max())), one
        assert part == [] or (alone - plain)[real].abs().max() > 1e-3, one
    with model.hooks(fwd_hooks=hooks):
        tokens = model.generate(many, 4).tokens.split(len(batch))
    for part, found in zip(parts, tokens, strict=True):
        with model.hooks(fwd_hooks=part):
            alone = model.generate(batch, 4).tokens
        assert torch.equal(found[:, : alone.shape[1]], alone)
    assert len({tuple(found.flatten().tolist()) for found in tokens}) > len(tokens) // 2


@pytest.mark.parametrize("backbone", BACKBONES)
def test_rows_equal_models_whose_columns_are_zeroed(backbone):
    """Methods section 5: the mask in prompt and new tokens equals zeroed down-projection columns."""
    model = spliced("qwen2_vl", backbone=backbone)
    samples = family("qwen2_vl").samples()
    batch = model.encode_media(model.prepare(samples))
    sets = [drawn(model, seed, share) for seed, share in enumerate((0.02, 0.2, 0.5, 0.9))]
    many, hooks = beside(model, batch, [mmlens.hooks.zero(one) for one in sets])
    with model.hooks(fwd_hooks=hooks):
        found = model.generate(many, 6).tokens.split(len(batch))
    options = {"max_new_tokens": 6, "do_sample": False}
    answers = []
    for one, tokens in zip(sets, found, strict=True):
        with zeroed_columns(model.hf, one):
            whole = model.hf.generate(**model.prepare(samples).inputs, **options)
        answers.append(whole[:, batch.shape[1] :])
        assert torch.equal(tokens, answers[-1])
    assert any(not torch.equal(answers[0], other) for other in answers[1:])


def test_what_a_hook_is_given_and_what_becomes_of_it():
    seen = []

    def keep(tensor, hook):
        seen.append((hook.name, tensor.clone()))

    def add(number):
        return lambda tensor, hook: tensor + number

    hooks = on_rows(
        [
            (range(0, 2), [("a", keep), ("b", add(1.0))]),
            (range(2, 3), []),
            (range(3, 5), [("b", add(10.0)), ("b", add(100.0)), ("b", keep)]),
        ],
        of=5,
    )
    assert [name for name, _ in hooks] == ["a", "b"]
    point = HookPoint()
    point.name = "x"
    tensor = torch.arange(5.0)[:, None, None].expand(5, 1, 2).clone()
    before = tensor.clone()
    (_, first), (_, second) = hooks
    assert first(tensor, hook=point) is None
    assert second(tensor, hook=point)[:, 0, 0].tolist() == [1, 2, 2, 113, 114]
    assert torch.equal(tensor, before)  # nothing is changed in place
    assert [name for name, _ in seen] == ["x", "x"]
    assert seen[0][1].shape == (2, 1, 2)
    assert seen[1][1][:, 0, 0].tolist() == [113, 114]  # as the hooks before it left them


def test_gradients_pass_through():
    (_, function) = on_rows([(range(1, 2), [("a", lambda tensor, hook: tensor * 3)])], 2)[0]
    tensor = torch.ones(2, 1, 1, requires_grad=True)
    function(tensor, hook=HookPoint()).sum().backward()
    assert tensor.grad.flatten().tolist() == [1, 3]


def test_rows_that_do_not_fit():
    def nothing(tensor, hook):
        return None

    for rows in (range(3, 6), range(0, 4, 2), range(-1, 2), range(3, 1)):
        with pytest.raises(HookError, match=r"do not fit a batch of 5 rows"):
            on_rows([(rows, [("a", nothing)])], 5)
    point = HookPoint()
    point.name = "a"
    (_, function) = on_rows([(range(0, 2), [("a", nothing)])], 4)[0]
    with pytest.raises(HookError, match="batch of 4 met 12 rows at 'a'"):
        function(torch.zeros(12, 1, 2), hook=point)
    (_, shrinking) = on_rows([(range(0, 2), [("a", lambda t, hook: t[:1])])], 4)[0]
    with pytest.raises(HookError, match=r"given \[2, 1, 2\] and returned \[1, 1, 2\]"):
        shrinking(torch.zeros(4, 1, 2), hook=point)


def test_beams_and_towers_are_refused():
    model = spliced("llava_next", backbone="bridge")
    batch = model.prepare(family("llava_next").samples())
    hooks = on_rows([(range(0, 1), mmlens.hooks.zero(drawn(model, 0)))], len(batch))
    with pytest.raises(HookError, match="without beams"), model.hooks(fwd_hooks=hooks):
        model.generate(batch, 2, num_beams=2)
    tower = mmlens.NeuronSet([(0, 0)], "vision", model.module("vision").shape)
    hooks = on_rows([(range(0, 1), mmlens.hooks.zero(tower))], len(batch))
    with pytest.raises(HookError, match="outside the language model"):
        model.run_with_hooks(batch, fwd_hooks=hooks)
