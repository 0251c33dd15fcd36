"""Interventions against plain Hugging Face, where the activation function's own output is edited."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformer_lens.hook_points import HookPoint

import mmlens
from mmlens import hooks
from mmlens.ablation.intervention import Intervention, at_the_end
from mmlens.backbone.build import has_hooked_transformer
from mmlens.errors import HookError, SampleError, StatisticsError
from mmlens.streaming.batching import Batching
from tests.helpers.models import spliced
from tests.helpers.reference import close, zeroed_activations
from tests.tiny import family

BACKBONES = ["hooked_transformer", "bridge"] if has_hooked_transformer() else ["bridge"]
# Where plain Hugging Face computes activations, by family and module.
PLACES = {
    ("llava_next", "language"): lambda m: [x.mlp.act_fn for x in m.model.language_model.layers],
    ("llava_next", "vision"): lambda m: [
        x.mlp.activation_fn for x in m.model.vision_tower.encoder.layers
    ],
    ("llava_next", "projector"): lambda m: [m.model.multi_modal_projector.act],
    ("instructblip", "qformer"): lambda m: [
        x.intermediate.intermediate_act_fn for x in m.qformer.encoder.layer
    ],
    ("instructblip", "query"): lambda m: [
        x.intermediate_query.intermediate_act_fn for x in m.qformer.encoder.layer
    ],
    ("qwen2_5_vl", "vision"): lambda m: [x.mlp.act_fn for x in m.model.visual.blocks],
    ("qwen2_audio", "audio"): lambda m: [x.activation_fn for x in m.model.audio_tower.layers],
}


@pytest.fixture(params=BACKBONES)
def llava(request):
    return spliced("llava_next", backbone=request.param)


@pytest.fixture(params=PLACES, ids="-".join)
def place(request):
    """A model, a module of it, and its activation functions; on the bridge, which is exact."""
    name, module = request.param
    model = spliced(name, backbone="bridge")
    return model, module, PLACES[request.param](model.hf)


FAMILIES = {
    "LlavaNextForConditionalGeneration": "llava_next",
    "InstructBlipForConditionalGeneration": "instructblip",
    "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl",
    "Qwen2AudioForConditionalGeneration": "qwen2_audio",
}


def pictured(model):
    samples = family(FAMILIES[type(model.hf).__name__]).samples()
    return [s for s in samples if s.images or s.audios][:4]


@contextmanager
def edited(acts, edit):
    """Plain Hugging Face with ``edit(layer, output)`` in the place of activation functions' outputs."""
    handles = [
        act.register_forward_hook(lambda _m, _i, out, layer=layer: edit(layer, out.clone()))
        for layer, act in enumerate(acts)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def drawn(model, module, share=0.4, seed=0):
    """A random set of neurons, some in every layer but the last of several."""
    layers, width = model.modules[module].shape
    rng = np.random.default_rng(seed)
    chosen = rng.random((layers, width)) < share
    if layers > 2:
        chosen[-1] = False
    return mmlens.NeuronSet(np.argwhere(chosen), module, (layers, width))


def in_layer(neurons, values):
    """layer -> (indices, values) from one value per pair."""
    pairs = neurons.pairs()
    return {
        layer: (pairs[pairs[:, 0] == layer, 1], values[pairs[:, 0] == layer])
        for layer in sorted(set(pairs[:, 0].tolist()))
    }


def putting(neurons, values):
    """An edit that writes a value per neuron."""
    per_layer = in_layer(neurons, values)

    def edit(layer, out):
        if layer in per_layer:
            index, value = per_layer[layer]
            out[..., index] = value.to(out.dtype)
        return out

    return edit


def agree(model, batch, fwd_hooks, acts, edit, tolerance=1e-6):
    with torch.no_grad():
        plain = model.hf(**batch.inputs).logits
        ours = model.run_with_hooks(batch, fwd_hooks)
        with edited(acts, edit):
            theirs = model.hf(**batch.inputs).logits
    real = batch.groups.attention
    assert close(ours, theirs, real, tolerance)
    assert (theirs - plain)[real].abs().max() > 1e-4 * plain.abs().max()  # it is felt


# -- every module against Hugging Face ------------------------------------------------------------


def test_set_to_a_number_and_to_a_value_per_neuron(place):
    model, module, acts = place
    batch, neurons = model.prepare(pictured(model)), drawn(model, module)
    values = torch.linspace(-0.3, 2.0, len(neurons))
    one = hooks.set_to(neurons, 0.7, model=model)
    agree(model, batch, one, acts, putting(neurons, torch.full((len(neurons),), 0.7)))
    agree(model, batch, hooks.set_to(neurons, values, model=model), acts, putting(neurons, values))


def test_mean_and_minimum_of_statistics(place):
    model, module, acts = place
    batch, neurons = model.prepare(pictured(model)), drawn(model, module)
    statistics = mmlens.collect(
        model, pictured(model), modules=(module,), batching=Batching(progress=False)
    )
    one = statistics.modules[module]
    layer, index = neurons.pairs().T
    means = one.total.numpy().sum(0)[0] / one.tokens.numpy().sum()
    means = torch.from_numpy(means)[layer, index]
    lowest = torch.from_numpy(one.minimum.numpy().min(0)[0])
    shared = torch.from_numpy(lowest.numpy().min(1))[layer]
    assert means.std() > 0
    agree(model, batch, hooks.mean(neurons, statistics, model=model), acts, putting(neurons, means))
    least = hooks.minimum(neurons, statistics, model=model)
    agree(model, batch, least, acts, putting(neurons, lowest[layer, index]))
    least = hooks.minimum(neurons, statistics, over="layer", model=model)
    agree(model, batch, least, acts, putting(neurons, shared))


def test_scales_and_keep_only(place):
    model, module, acts = place
    batch, neurons = model.prepare(pictured(model)), drawn(model, module)
    factors = torch.linspace(-1.0, 2.0, len(neurons))
    per_layer = in_layer(neurons, factors)

    def scaled(layer, out):
        if layer in per_layer:
            out[..., per_layer[layer][0]] *= per_layer[layer][1]
        return out

    # (factor x a) x u and factor x (a x u) round differently.
    agree(model, batch, hooks.scale(neurons, factors), acts, scaled, 3e-6)
    expertise = (2 - factors) / 3
    soft = hooks.soft_scale(neurons, expertise, 0.5)
    per_layer = in_layer(neurons, 1 - 0.5 * expertise)
    agree(model, batch, soft, acts, scaled, 3e-6)
    mask = neurons.mask()
    agree(model, batch, hooks.keep_only(neurons), acts, lambda layer, out: out * mask[layer])


def test_the_layer_minimum_is_that_of_each_row(place):
    model, module, acts = place
    samples = pictured(model)
    batch, neurons = model.prepare(samples), drawn(model, module)
    real = batch.groups.attention if module == "language" else None
    per_layer = in_layer(neurons, torch.zeros(len(neurons)))

    def lowest(layer, out):
        if layer in per_layer:
            rows = out if out.dim() == 3 else out[None]
            for i, row in enumerate(rows):
                among = row if real is None else row[real[i]]
                row[:, per_layer[layer][0]] = float(among.numpy().min())
        return out

    agree(model, batch, hooks.layer_minimum(neurons, model.activation, real=real), acts, lowest)


def test_resampling_from_another_run(place):
    model, module, acts = place
    batch, neurons = model.prepare(pictured(model)), drawn(model, module)
    mask = neurons.mask()
    recorded = {}

    noisy = dict(batch.inputs)  # another run over the same positions: its inputs are disturbed
    for name in ("pixel_values", "input_features"):
        if name in noisy:
            noisy[name] = noisy[name].flip(-1)
    ids = batch.input_ids.clone()
    text = batch.groups.mask("text")
    ids[text] = ids[text].flip(0)
    noisy["input_ids"] = ids
    if "qformer_input_ids" in noisy:
        noisy["qformer_input_ids"] = noisy["qformer_input_ids"].flip(-1)
    with edited(acts, recorded.setdefault), torch.no_grad():
        model.hf(**noisy)
    names = [model.modules[module].hook(x, "pre") for x in range(model.modules[module].layers)]
    _, cache = model.run_with_cache(noisy, names)

    def taken(layer, out):
        return torch.where(mask[layer], recorded[layer], out)

    agree(model, batch, hooks.resample(neurons, cache), acts, taken)
    posts = [name.replace("hook_pre", "hook_post") for name in names]
    _, products = model.run_with_cache(noisy, posts)
    ours = model.run_with_hooks(batch, hooks.resample(neurons, products, site="glu"))
    seen = model.run_with_hooks(
        batch,
        [
            (n, lambda t, hook, n=n, i=i: torch.where(mask[i], products[n], t))
            for i, n in enumerate(posts)
        ],
    )
    assert torch.equal(ours, seen)


# -- both backbones, the language module ----------------------------------------------------------


def test_both_backbones_agree_with_hugging_face(llava, samples):
    batch, neurons = llava.prepare(samples), drawn(llava, "language")
    acts = PLACES["llava_next", "language"](llava.hf)
    values = torch.linspace(-1, 1, len(neurons))
    agree(llava, batch, hooks.set_to(neurons, values), acts, putting(neurons, values), 3e-6)
    with torch.no_grad(), zeroed_activations(llava.hf, neurons):
        theirs = llava.hf(**batch.inputs).logits
    for same in (
        hooks.zero(neurons),
        hooks.scale(neurons, 0.0),
        hooks.set_to(neurons, 0.0),
        hooks.keep_only(~neurons),
    ):
        assert close(llava.run_with_hooks(batch, same), theirs, batch.groups.attention)


@torch.no_grad()
def test_what_changes_nothing_changes_no_bit(llava, samples):
    batch, neurons = llava.prepare(samples), drawn(llava, "language")
    plain = llava(batch)
    nowhere = torch.zeros_like(batch.groups.attention)
    nobody = neurons - neurons
    _, cache = llava.run_with_cache(batch, lambda n: n.endswith("hook_pre"))
    for nothing in (
        hooks.scale(neurons, 1.0),
        hooks.soft_scale(neurons, torch.rand(len(neurons)), 0.0),
        hooks.zero(neurons, positions=nowhere),
        hooks.set_to(neurons, 5.0, positions=nowhere),
        hooks.layer_minimum(neurons, llava.activation, positions=nowhere),
        hooks.resample(neurons, cache),
        hooks.resample(neurons, torch.arange(len(samples))),
        hooks.keep_only(~nobody),
    ):
        assert torch.equal(llava.run_with_hooks(batch, nothing), plain)
    for nothing in (
        hooks.zero(nobody),
        hooks.set_to(nobody, 3.0),
        hooks.scale(nobody, torch.zeros(0)),
        hooks.resample(nobody, cache),
    ):
        assert nothing == []


@torch.no_grad()
def test_positions_limit_it_to_tokens(llava, samples):
    batch, neurons = llava.prepare(samples), drawn(llava, "language")
    image = batch.groups.mask("image")
    acts = PLACES["llava_next", "language"](llava.hf)
    put = putting(neurons, torch.full((len(neurons),), 0.9))

    def on_pictures(layer, out):
        return torch.where(image[..., None], put(layer, out.clone()), out)

    limited = hooks.set_to(neurons, 0.9, positions=image)
    agree(llava, batch, limited, acts, on_pictures, 3e-6)
    for fn in (hooks.zero, lambda n, **k: hooks.layer_minimum(n, llava.activation, **k)):
        _, plain = llava.run_with_cache(batch, "blocks.0.mlp.hook_post")
        with llava.hooks(fwd_hooks=fn(neurons, positions=image)):
            _, changed = llava.run_with_cache(batch, "blocks.0.mlp.hook_post")
        columns = neurons.per_layer()[0]
        moved = plain["blocks.0.mlp.hook_post"] != changed["blocks.0.mlp.hook_post"]
        assert not moved[~image].any()
        assert moved[image][:, columns].float().mean() > 0.9
    with pytest.raises(HookError, match=r"positions of shape \[2, 3\] do not fit"):
        llava.run_with_hooks(batch, hooks.zero(neurons, positions=image[:2, :3]))


@pytest.mark.parametrize("how", [{}, {"num_beams": 2}])
@pytest.mark.parametrize("new_tokens", [False, True])
@torch.no_grad()
def test_positions_while_generating(llava, samples, new_tokens, how):
    batch, neurons = llava.prepare(samples), drawn(llava, "language", 0.8)
    image = batch.groups.mask("image")
    acts = PLACES["llava_next", "language"](llava.hf)
    put = putting(neurons, torch.full((len(neurons),), 0.6))
    beams = how.get("num_beams", 1)

    def limited(layer, out):
        if out.shape[1] == 1:
            return put(layer, out) if new_tokens else out
        rows = image.repeat_interleave(beams, 0)[..., None]
        return torch.where(rows, put(layer, out.clone()), out)

    with edited(acts, limited):
        theirs = llava.hf.generate(**batch.inputs, max_new_tokens=6, do_sample=False, **how)
    ours = hooks.set_to(neurons, 0.6, positions=image, new_tokens=new_tokens)
    with llava.hooks(fwd_hooks=ours):
        out = llava.generate(batch, 6, do_sample=False, **how)
    assert torch.equal(out.tokens, theirs[:, batch.shape[1] :])


@torch.no_grad()
def test_every_token_is_changed_while_generating_by_default(llava, samples):
    batch, neurons = llava.prepare(samples), drawn(llava, "language", 0.8)
    acts = PLACES["llava_next", "language"](llava.hf)
    put = putting(neurons, torch.full((len(neurons),), 0.6))
    plain = llava.generate(batch, 6).tokens
    with edited(acts, put):
        theirs = llava.hf.generate(**batch.inputs, max_new_tokens=6)
    with llava.hooks(fwd_hooks=hooks.set_to(neurons, 0.6)):
        ours = llava.generate(batch, 6).tokens
    assert torch.equal(ours, theirs[:, batch.shape[1] :])
    assert not torch.equal(ours, plain)


@torch.no_grad()
def test_rows_of_a_batch_are_exchanged(llava, samples):
    batch, neurons = llava.prepare(samples[:4]), drawn(llava, "language", 0.5)
    order = torch.tensor([1, 0, 3, 3])
    acts, mask = PLACES["llava_next", "language"](llava.hf), neurons.mask()
    both = batch.groups.attention & batch.groups.attention[order]

    def exchanged(layer, out):
        return torch.where(mask[layer] & both[..., None], out[order], out)

    agree(llava, batch, hooks.resample(neurons, order, positions=both), acts, exchanged, 3e-6)
    steps = []
    name = "blocks.1.mlp.hook_pre"
    for new_tokens in (False, True):
        exchange = hooks.resample(neurons, order, positions=both, new_tokens=new_tokens)
        seen = []
        with llava.hooks(
            fwd_hooks=[
                (name, lambda t, hook, seen=seen: seen.append(t.clone())),
                *exchange,
                (name, lambda t, hook, seen=seen: seen.append(t.clone())),
            ]
        ):
            llava.generate(batch, 3)
        before, after = seen[2], seen[3]  # the first new token
        expected = torch.where(mask[1], before[order], before) if new_tokens else before
        assert before.shape[1] == 1
        assert torch.equal(after, expected)
        steps.append(after)


@torch.no_grad()
def test_a_cache_knows_nothing_of_new_tokens(llava, samples):
    batch, neurons = llava.prepare(samples[:2]), drawn(llava, "language", 0.5)
    _, cache = llava.run_with_cache(
        llava.prepare(samples[:2]), lambda n: n.endswith("mlp.hook_pre")
    )
    with llava.hooks(fwd_hooks=hooks.resample(neurons, cache)):
        tokens = llava.generate(batch, 4).tokens
    assert torch.equal(tokens, llava.generate(batch, 4).tokens)  # its own activations
    _, short = llava.run_with_cache(llava.prepare(samples[0]), lambda n: n.endswith("mlp.hook_pre"))
    with pytest.raises(HookError, match="Activations of a donor of shape"):
        llava.run_with_hooks(llava.prepare(samples), hooks.resample(neurons, short))
    with pytest.raises(HookError, match="no new tokens"):
        hooks.resample(neurons, cache, new_tokens=True)
    with pytest.raises(HookError, match="lacks 'blocks.0.mlp.hook_post'"):
        hooks.resample(neurons, cache, site="glu")
    with pytest.raises(HookError, match="rows 0 to 1"):
        hooks.resample(neurons, torch.tensor([0, 2]))
    with pytest.raises(HookError, match="order of 3 rows does not fit"):
        llava.run_with_hooks(batch, hooks.resample(neurons, torch.arange(3)))


# -- plain models and the product -----------------------------------------------------------------


@torch.no_grad()
def test_the_bridge_alone_without_adapter(samples):
    model = spliced("llava_next", backbone="bridge")
    tokens = torch.randint(5, 30, (2, 7), generator=torch.Generator().manual_seed(3))
    neurons = drawn(model, "language")
    values = torch.linspace(-1, 1, len(neurons))
    ours = model.backbone.run_with_hooks(tokens, fwd_hooks=hooks.set_to(neurons, values))
    named = hooks.set_to(neurons, values, model=model.backbone)
    acts = PLACES["llava_next", "language"](model.hf)
    plain = model.hf(tokens).logits
    with edited(acts, putting(neurons, values)):
        theirs = model.hf(tokens).logits
    assert (theirs - plain).abs().max() > 1e-3
    assert torch.allclose(ours, theirs, atol=1e-5)
    again = model.backbone.run_with_hooks(tokens, fwd_hooks=named)
    assert torch.equal(again, ours)


@torch.no_grad()
def test_the_product_is_set_as_it_is(llava, samples):
    batch, neurons = llava.prepare(samples), drawn(llava, "language")
    with llava.hooks(fwd_hooks=hooks.set_to(neurons, 0.25, site="glu")):
        _, cache = llava.run_with_cache(batch, "blocks.1.mlp.hook_post")
    post, columns = cache["blocks.1.mlp.hook_post"], neurons.per_layer()[1]
    assert (post[..., columns] == 0.25).all()
    others = [i for i in range(post.shape[-1]) if i not in set(columns.tolist())]
    assert post[..., others].std() > 0


def test_statistics_of_the_product(llava, samples):
    statistics = mmlens.collect(
        llava, samples, site="glu", batching=Batching(max_batch=3, progress=False)
    )
    assert statistics.site == "glu"
    positive, total, tokens = 0, 0.0, 0
    for sample in samples:
        batch = llava.prepare(sample)
        with torch.no_grad():
            _, cache = llava.run_with_cache(batch, lambda n: n.endswith("mlp.hook_post"))
        post = np.stack([cache[f"blocks.{i}.mlp.hook_post"][0].numpy() for i in range(3)])
        positive = positive + (post > 0).sum(1)
        total = total + post.astype(np.float64).sum(1)
        tokens += post.shape[1]
    one = statistics.modules["language"]
    assert int(one.tokens.sum()) == tokens
    assert np.abs(one.positive.sum(0)[0].numpy() - positive).sum() <= 3
    np.testing.assert_allclose(one.total.sum(0)[0].numpy(), total, rtol=1e-4, atol=1e-3)
    act = mmlens.collect(llava, samples, batching=Batching(progress=False))
    with pytest.raises(StatisticsError, match="site"):
        act + statistics
    # the mean of the product is set at the product
    neurons = drawn(llava, "language")
    assert [n for n, _ in hooks.mean(neurons, statistics)] == [n for n, _ in hooks.zero(neurons)]
    assert len(hooks.mean(neurons, act)) == 2 * len(hooks.zero(neurons))


def test_without_an_up_branch_both_sites_are_the_same():
    model = spliced("llava_next", backbone="bridge")
    act, glu = (
        mmlens.collect(
            model,
            pictured(model),
            modules=("vision",),
            site=site,
            batching=Batching(progress=False),
        )
        for site in ("act", "glu")
    )
    for field, value in act.modules["vision"].tensors().items():
        assert torch.equal(value, glu.modules["vision"].tensors()[field])


# -- bad input ------------------------------------------------------------------------------------


def test_wrong_values_and_factors():
    neurons = mmlens.NeuronSet([(0, 1), (1, 2), (1, 3)], "language", (2, 4))
    with pytest.raises(StatisticsError, match=r"Values of shape \[2\] for 3 neurons"):
        hooks.set_to(neurons, torch.zeros(2))
    with pytest.raises(StatisticsError, match="Factors must be finite"):
        hooks.scale(neurons, float("nan"))
    with pytest.raises(StatisticsError, match=r"must lie in \[0, 1\]; strength 2"):
        hooks.soft_scale(neurons, torch.zeros(3), 2.0)
    with pytest.raises(StatisticsError, match=r"must lie in \[0, 1\]"):
        hooks.soft_factors(torch.tensor([0.5, 1.5]))
    with pytest.raises(StatisticsError, match=r"must lie in \[0, 1\]"):
        hooks.soft_factors(torch.tensor([0.5, float("nan")]))


def test_an_mlp_without_up_branch_is_told(llava, samples):
    neurons = drawn(llava, "vision")
    with pytest.raises(HookError, match="hook_pre_linear"):
        llava.run_with_hooks(llava.prepare(samples), hooks.set_to(neurons, 1.0))
    product = dict(hooks.set_to(drawn(llava, "language"), 1.0))["blocks.0.mlp.hook_post"]
    with pytest.raises(HookError, match="did not fire before its product"):
        product(torch.zeros(1, 2, 48), hook=llava.hook_dict["blocks.0.mlp.hook_post"])


def test_keep_only_keeps_the_union_of_one_modules_sets():
    shape = (1, 6)
    a, b = (mmlens.NeuronSet([(0, i)], "language", shape) for i in (1, 4))
    ((_, function),) = hooks.keep_only([a, b])
    out = function(torch.ones(1, 1, 6), hook=HookPoint())
    assert out.flatten().tolist() == [0, 1, 0, 0, 1, 0]


# -- as values ------------------------------------------------------------------------------------


def test_interventions_are_their_hooks(llava, samples):
    batch, neurons = llava.prepare(samples), drawn(llava, "language")
    statistics = mmlens.collect(
        llava, samples, groups=("prompt", "image"), batching=Batching(progress=False)
    )
    real, image = batch.groups.attention, batch.groups.mask("image")
    p = statistics.modules["language"].positive[:, 0].double().numpy()
    p = p / statistics.modules["language"].tokens[:, 0].numpy()[:, None, None]
    share = p / np.maximum(p.sum(0), 1e-300)
    dape = -(share * np.log(np.where(share > 0, share, 1))).sum(0)
    expertise = np.where(p.sum(0) > 0, 1 - dape / np.log(len(statistics.keys)), 0.0)
    expertise = torch.from_numpy(expertise)[tuple(neurons.pairs().T)].clamp(0, 1)
    cases = {
        Intervention(): hooks.zero(neurons),
        Intervention("scale", 0.5): hooks.scale(neurons, 0.5),
        Intervention("set_to", 0.5, group="image"): hooks.set_to(neurons, 0.5, positions=image),
        Intervention("mean"): hooks.mean(neurons, statistics),
        Intervention("mean", counted="image", keys=statistics.keys[:1]): hooks.mean(
            neurons, statistics, group="image", keys=statistics.keys[:1]
        ),
        Intervention("minimum"): hooks.minimum(neurons, statistics),
        Intervention("layer_minimum"): hooks.layer_minimum(neurons, llava.activation, real=real),
        Intervention("keep_only"): hooks.zero(~neurons),
        Intervention("soft_scale", 0.9): hooks.scale(neurons, 1 - 0.9 * expertise),
    }
    seen = []
    for intervention, expected in cases.items():
        made = intervention.hooks(neurons, llava, batch, statistics)
        ours = llava.run_with_hooks(batch, made)
        torch.testing.assert_close(ours, llava.run_with_hooks(batch, expected), atol=1e-5, rtol=0)
        seen.append(ours)
    plain = llava(batch)
    assert all((one - plain)[real].abs().max() > 1e-4 for one in seen)
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_what_cannot_be_done_is_said(llava, samples):
    batch = llava.prepare(samples)
    vision, language = drawn(llava, "vision"), drawn(llava, "language")
    with pytest.raises(SampleError, match=r"'zero@image' goes by positions.*'vision'"):
        Intervention(group="image").hooks([language, vision], llava, batch)
    with pytest.raises(SampleError, match="'resample' goes by positions"):
        Intervention("resample").hooks(vision, llava, batch)
    with pytest.raises(SampleError, match="one donor per row"):
        Intervention("resample").hooks(language, llava, batch)
    with pytest.raises(SampleError, match="needs statistics"):
        Intervention("mean").hooks(language, llava, batch)
    statistics = mmlens.collect(llava, samples, site="glu", batching=Batching(progress=False))
    with pytest.raises(SampleError, match="of site 'act'.*of 'glu'"):
        Intervention("mean").hooks(language, llava, batch, statistics)
    Intervention("mean", site="glu").hooks(language, llava, batch, statistics)


@torch.no_grad()
def test_donors_are_aligned_at_the_end(llava, samples):
    batch, neurons = llava.prepare(samples[:3]), drawn(llava, "language")
    donors = llava.prepare(samples[3:6])
    acts, mask = PLACES["llava_next", "language"](llava.hf), neurons.mask()
    recorded = {}
    with edited(acts, recorded.setdefault):
        llava.hf(**donors.inputs)

    def taken(layer, out):
        for row in range(3):
            theirs = recorded[layer][row][donors.groups.attention[row]]
            length = min(len(theirs), int(batch.groups.attention[row].sum()))
            out[row, -length:] = torch.where(mask[layer], theirs[-length:], out[row, -length:])
        return out

    made = Intervention("resample").hooks(neurons, llava, batch, donors=donors)
    agree(llava, batch, made, acts, taken, 3e-6)
    assert at_the_end(torch.arange(6).view(1, 6), 8).tolist() == [[0, 0, 0, 1, 2, 3, 4, 5]]
    assert at_the_end(torch.arange(6).view(1, 6), 2).tolist() == [[4, 5]]
