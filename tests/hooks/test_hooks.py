"""Neuron hooks on any TransformerLens model: a plain HookedTransformer with no adapter at all."""

import pytest
import torch

import mmlens
from mmlens import hooks
from mmlens.tokens.groups import TokenGroups, TokenIds

pytest.importorskip("transformer_lens.HookedTransformer", reason="transformer-lens 4")
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.hook_points import HookPoint


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


@pytest.mark.parametrize("named", [True, False])
@torch.no_grad()
def test_an_activation_is_set_before_the_product(transformer, tokens, named):
    """Against act_fn itself exchanged; with a bias that a gated MLP adds after the product."""
    gated = transformer.cfg.gated_mlp
    if gated and named:
        for block in transformer.blocks:
            block.mlp.b_in.copy_(torch.linspace(-1, 1, 24))
    neurons = some()
    values = torch.linspace(-2, 3, len(neurons))
    model = transformer if named else None
    if not gated and not named:
        with pytest.raises(KeyError, match="hook_pre_linear"):  # TransformerLens's own
            transformer.run_with_hooks(tokens, fwd_hooks=hooks.set_to(neurons, values))
        return
    ours = transformer.run_with_hooks(tokens, fwd_hooks=hooks.set_to(neurons, values, model=model))
    before = transformer(tokens)
    functions = [block.mlp.act_fn for block in transformer.blocks]
    start = 0
    for layer, index in neurons.per_layer().items():
        value = values[start : start + len(index)]
        start += len(index)

        def exchanged(pre, act=functions[layer], index=index, value=value):
            out = act(pre)
            out[..., index] = value
            return out

        transformer.blocks[layer].mlp.act_fn = exchanged
    expected = transformer(tokens)
    for block, function in zip(transformer.blocks, functions, strict=True):
        block.mlp.act_fn = function
        block.mlp.b_in.zero_()
    assert torch.allclose(ours, expected, atol=1e-5)
    assert (expected - before).abs().max() > 1e-3


@torch.no_grad()
def test_the_layer_minimum_without_adapter(transformer, tokens):
    def activation(module, layer):
        return transformer.blocks[layer].mlp.act_fn

    _, cache = transformer.run_with_cache(tokens)
    lowest = activation("language", 0)(cache["pre", 0]).flatten(1).amin(1)
    assert lowest.unique().numel() == 3
    with transformer.hooks(fwd_hooks=hooks.layer_minimum(some(), activation)):
        _, after = transformer.run_with_cache(tokens)
    written = activation("language", 0)(after["pre", 0])[..., some().per_layer()[0]]
    assert torch.equal(written, lowest[:, None, None].expand_as(written))


def test_neurons_of_several_modules_take_their_values_in_order():
    vision = mmlens.NeuronSet([(2, 1), (0, 3)], "vision", (3, 4))
    few = mmlens.NeuronSet([(1, 5)], "language", (2, 24))
    made = dict(hooks.scale([few, vision], torch.tensor([2.0, 3.0, 4.0])))
    for name, width, column, factor in (
        ("blocks.1.mlp.hook_post", 24, 5, 2),
        ("vision.blocks.0.mlp.hook_post", 4, 3, 3),
        ("vision.blocks.2.mlp.hook_post", 4, 1, 4),
    ):
        out = made[name](torch.ones(1, 1, width), hook=HookPoint())
        assert out.flatten()[column] == factor
        assert out.sum() == width - 1 + factor
