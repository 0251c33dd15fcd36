"""Neuron hooks on any TransformerLens model: a plain HookedTransformer with no adapter at all."""

import pytest
import torch

import mmlens
from mmlens import hooks
from mmlens.groups import TokenGroups, TokenIds

pytest.importorskip("transformer_lens.HookedTransformer", reason="transformer-lens 4")
from transformer_lens import HookedTransformer, HookedTransformerConfig


@pytest.fixture(scope="module", params=["gated", "plain"])
def transformer(request):
    config = HookedTransformerConfig(
        n_layers=2,
        d_model=16,
        n_ctx=32,
        d_head=8,
        d_mlp=24,
        d_vocab=30,
        act_fn="silu" if request.param == "gated" else "gelu",
        gated_mlp=request.param == "gated",
        seed=0,
        device="cpu",
    )
    return HookedTransformer(config)


@pytest.fixture
def tokens():
    return torch.randint(0, 30, (3, 9), generator=torch.Generator().manual_seed(1))


def some(n=7):
    return mmlens.NeuronSet(
        [(layer, 3 * i) for layer in (0, 1) for i in range(n)], "language", (2, 24)
    )


@torch.no_grad()
def test_zero_equals_zeroed_rows_of_the_output_projection(transformer, tokens):
    before = transformer(tokens)
    masked = transformer.run_with_hooks(tokens, fwd_hooks=hooks.zero(some()))
    saved = [block.mlp.W_out.clone() for block in transformer.blocks]
    for layer, index in some().per_layer().items():
        transformer.blocks[layer].mlp.W_out[index] = 0
    expected = transformer(tokens)
    for block, weight in zip(transformer.blocks, saved, strict=True):
        block.mlp.W_out.copy_(weight)
    assert torch.allclose(masked, expected, atol=1e-6)
    assert (masked - before).abs().max() > 1e-3
    assert torch.equal(transformer(tokens), before)


@torch.no_grad()
def test_count_equals_the_cached_activations(transformer, tokens):
    groups = TokenGroups.from_input_ids(tokens, None, TokenIds({"image": 3}, frozenset({0, 1, 2})))
    counter = hooks.count(range(2), groups.stack(("prompt", "text")))
    for _ in range(2):  # counts add up over runs
        transformer.run_with_hooks(tokens, fwd_hooks=counter)
    _, cache = transformer.run_with_cache(tokens)
    for layer in range(2):
        activation = transformer.blocks[layer].mlp.act_fn(cache["pre", layer])
        assert torch.equal(counter.counts()[layer, 0], 2 * (activation > 0).flatten(0, 1).sum(0))
        text = groups.mask("text")
        assert torch.equal(counter.counts()[layer, 1], 2 * (activation[text] > 0).sum(0))
    everything = hooks.count(range(2))
    transformer.run_with_hooks(tokens, fwd_hooks=everything)
    assert torch.equal(everything.counts()[:, 0] * 2, counter.counts()[:, 0])


@torch.no_grad()
def test_scale_and_keep_only(transformer, tokens):
    name = "blocks.1.mlp.hook_post"
    _, cache = transformer.run_with_cache(tokens)

    def seen(fwd_hooks):
        kept = []
        transformer.run_with_hooks(
            tokens, fwd_hooks=[*fwd_hooks, (name, lambda t, hook: kept.append(t.clone()))]
        )
        return kept[0]

    late = mmlens.NeuronSet([(1, 0), (1, 5)], "language", (2, 24))
    scaled = seen(hooks.scale(late, 3.0))
    expected = cache[name].clone()
    expected[..., [0, 5]] *= 3.0
    assert torch.allclose(scaled, expected)
    assert torch.equal(seen(hooks.scale(late, 1.0)), cache[name])
    everything_but = seen(
        hooks.keep_only(late | mmlens.NeuronSet([(0, i) for i in range(24)], "language", (2, 24)))
    )
    assert torch.equal(everything_but[..., [0, 5]], cache[name][..., [0, 5]])
    others = [i for i in range(24) if i not in (0, 5)]
    assert everything_but[..., others].abs().sum() == 0


def test_a_hook_changes_no_tensor_in_place(transformer, tokens):
    post = torch.ones(1, 2, 24)
    (_, function), *_ = hooks.zero(some())
    out = function(post, hook=transformer.hook_dict["blocks.0.mlp.hook_post"])
    assert post.sum() == 48
    assert out.sum() == 48 - 14


def test_names_of_other_modules():
    vision = mmlens.NeuronSet([(2, 1)], "vision", (3, 4))
    assert [name for name, _ in hooks.zero([some(), vision])] == [
        "blocks.0.mlp.hook_post",
        "blocks.1.mlp.hook_post",
        "vision.blocks.2.mlp.hook_post",
    ]
    assert hooks.zero(mmlens.NeuronSet([], "language", (2, 24))) == []
