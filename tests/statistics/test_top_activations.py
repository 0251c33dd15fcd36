"""Top activations against a plain search through every activation; merging; promoted tokens."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mmlens
from mmlens.data.identity import sources
from mmlens.data.samples import Sample
from mmlens.entropy import activation_probability
from mmlens.errors import RunFolderError, SampleError, StatisticsError
from mmlens.lens.promoted import gain_of, promoted, promoted_tokens
from mmlens.neurons import NeuronSet
from mmlens.statistics.top_activations import TopActivations, bin_edges, histogram, largest
from mmlens.streaming.batching import Batching
from mmlens.streaming.distributed import Share
from mmlens.streaming.top import TopStream, top_activations
from tests.tiny import llava_next as tiny
from tests.tiny.common import picture

MODULES = ("language", "vision", "projector")


def some_neurons(model, module, every=7):
    info = model.module(module)
    pairs = [(a, b) for a in range(info.layers) for b in range(0, info.width, every)]
    return NeuronSet(pairs, module, info.shape, model.weight_hash)


def every_activation(model, sample, module, pairs):
    """[position, neuron] of one sample alone, by the cache of TransformerLens."""
    info = model.module(module)
    point = "pre" if info.gated else "post"
    names = [info.hook(layer, point) for layer in range(info.layers)]
    with torch.no_grad():
        _, cache = model.run_with_cache(model.prepare(sample), names_filter=names)
    flat = [cache[name].flatten(0, -2).numpy() for name in names]
    values = np.stack([flat[a][:, b] for a, b in pairs], axis=1)
    if info.gated:  # SiLU, as in the decoders of this family
        values = torch.nn.functional.silu(torch.from_numpy(values)).numpy()
    return values


def searched(model, samples, module, pairs, k, distinct):
    """The same by sorting everything there is: {(neuron, key): [(value, id, position)]}."""
    found = {}
    for sample in samples:
        if module != "language" and not sample.images:
            continue
        values = every_activation(model, sample, module, pairs)
        for n in range(len(pairs)):
            rows = [(-v, sample.id, p) for p, v in enumerate(values[:, n].tolist())]
            if distinct == "sample":
                rows = [min(rows)]
            found.setdefault((n, sample.domain), []).extend(rows)
    return {cell: sorted(rows)[:k] for cell, rows in found.items()}


@pytest.mark.parametrize("distinct", ["sample", "position"])
@pytest.mark.parametrize("module", MODULES)
def test_equal_to_a_search_through_everything(mistral_model, samples, module, distinct):
    model, k = mistral_model, 3
    neurons = some_neurons(model, module)
    alone = top_activations(
        model,
        samples,
        neurons,
        k=k,
        distinct=distinct,
        batching=Batching(max_batch=1, progress=False),
    )[module]
    together = top_activations(
        model,
        samples,
        neurons,
        k=k,
        distinct=distinct,
        batching=Batching(token_budget=200, progress=False),
    )[module]
    assert alone.keys == ("blue", "red")
    pairs = neurons.pairs().tolist()
    assert alone.neurons.tolist() == pairs
    for (n, key), rows in searched(model, samples, module, pairs, k, distinct).items():
        j = alone.keys.index(key)
        assert alone.values[n, j].tolist() == [-value for value, _, _ in rows]
        assert [alone.ids[i] for i in alone.samples[n, j]] == [name for _, name, _ in rows]
        assert alone.positions[n, j].tolist() == [place for _, _, place in rows]
    # Other batches round otherwise, so that near ties may change places; within a sample too, where
    # a tile shows what another does.
    assert torch.allclose(alone.values, together.values, atol=1e-5)
    gaps = (alone.values[..., :-1] - alone.values[..., 1:]).min(-1).values > 1e-4
    assert gaps.any()
    named = [
        [[one.ids[i] for i in row] for row in one.samples[gaps][:, :-1].tolist()]
        for one in (alone, together)
    ]
    assert named[0] == named[1]


def test_order_of_samples_changes_nothing(mistral_model, samples):
    neurons = [some_neurons(mistral_model, module) for module in MODULES]
    shuffled = list(samples)
    random.Random(1).shuffle(shuffled)
    one, other = (
        top_activations(
            mistral_model, s, neurons, k=4, batching=Batching(max_batch=1, progress=False)
        )
        for s in (samples, shuffled)
    )
    assert set(one) == set(MODULES)
    for module in MODULES:
        same(one[module], other[module])


def same(a: TopActivations, b: TopActivations):
    for name in ("ids", "sources", "keys", "group", "distinct", "shape", "skipped"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("neurons", "values", "samples", "positions", "histogram"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_parts_add_up_to_the_whole(mistral_model, samples):
    neurons = some_neurons(mistral_model, "vision")
    pictures = [s for s in samples if s.images]
    settings = {"k": 3, "batching": Batching(max_batch=1, progress=False)}
    whole = top_activations(mistral_model, pictures, neurons, **settings)["vision"]
    parts = [
        top_activations(mistral_model, part, neurons, **settings)["vision"]
        for part in (pictures[:1], pictures[1:4], pictures[4:])
    ]
    same(parts[0] + parts[1] + parts[2], whole)
    same(parts[2] + (parts[1] + parts[0]), whole)


def test_probabilities_are_those_of_collect(mistral_model, samples):
    neurons = [some_neurons(mistral_model, module, 1) for module in MODULES]
    statistics = mmlens.collect(
        mistral_model, samples, modules=MODULES, batching=Batching(progress=False)
    )
    found = top_activations(mistral_model, samples, neurons, k=1, batching=Batching(progress=False))
    for module in MODULES:
        one = found[module]
        counts, tokens = statistics.counts(module)
        wanted = activation_probability(counts, tokens).flatten(0, 1)
        assert torch.equal(one.probabilities(), wanted)
        assert torch.equal(one.tokens, tokens)
        maxima = statistics.modules[module].maximum[:, 0].flatten(1).T
        assert torch.equal(one.values[..., 0], maxima)


def test_a_token_group_counts_alone_and_keeps_prompt_positions(mistral_model, samples):
    neurons = some_neurons(mistral_model, "language", 20)
    found = top_activations(
        mistral_model,
        samples,
        neurons,
        k=50,
        group="text",
        distinct="position",
        batching=Batching(progress=False),
    )["language"]
    for sample in samples:
        batch = mistral_model.prepare(sample)
        text = set(batch.groups.mask("text")[0].nonzero()[:, 0].tolist())
        here = found.positions[found.samples == list(found.ids).index(sample.id)]
        assert set(here.tolist()) <= text
    assert len(found.ids) == len(samples)


def test_a_picture_asked_about_twice_is_shown_once(mistral_model):
    image, other = picture(40, 16, 1), picture(31, 33, 2)
    asked = [
        Sample(f"{name}{i}", f"w{i} w{i + 1}", (one,), answers=("a",), domain="red")
        for name, one in (("a", image), ("b", other))
        for i in range(3)
    ]
    neurons = [some_neurons(mistral_model, m, 20) for m in ("vision", "language")]
    found = top_activations(mistral_model, asked, neurons, k=4, batching=Batching(progress=False))
    for one in found.values():
        kept = (one.samples >= 0).sum(-1)
        assert (kept == 2).all()
        named = [[one.ids[i][0] for i in row if i >= 0] for row in one.samples[:, 0].tolist()]
        assert all(sorted(row) == ["a", "b"] for row in named)
    # The tower does not read the question: equal activations, of which the first id's is kept.
    vision = found["vision"]
    assert {name for name in vision.ids} == {"a0", "b0"}
    every = top_activations(
        mistral_model, asked, neurons, k=4, distinct="sample", batching=Batching(progress=False)
    )
    assert ((every["vision"].samples >= 0).sum(-1) == 4).all()


def test_same_media_are_told_by_content_or_path(tmp_path):
    image = picture(20, 20, 5)
    image.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    rows = {
        "pil": Sample("pil", "w1", (image,)),
        "copy": Sample("copy", "w2", (image.copy(),)),
        "bytes": Sample("bytes", "w1", (data,)),
        "more": Sample("more", "w2", (data,)),
        "path": Sample("path", "w1", (tmp_path / "a.png",)),
        "text": Sample("text", "w1"),
        "video": Sample("video", "w1", videos=((image, image),)),
        "sound": Sample("sound", "w1", audios=((np.zeros(9, np.float32), 16000),)),
        "again": Sample("again", "w2", audios=({"array": np.zeros(9, np.float32)},)),
    }
    found = sources(list(rows.values()), "media")
    assert found["pil"] == found["copy"]
    assert found["bytes"] == found["more"]
    assert found["text"] == "text"
    assert len({found[n] for n in ("pil", "bytes", "path", "text", "video", "sound", "again")}) == 7


def test_save_and_load(mistral_model, samples, tmp_path):
    found = top_activations(
        mistral_model,
        samples,
        some_neurons(mistral_model, "vision"),
        k=2,
        batching=Batching(progress=False),
    )["vision"]
    path = tmp_path / "top.safetensors"
    found.save(path)
    same(TopActivations.load(path), found)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StatisticsError, match="damaged"):
        TopActivations.load(path)
    with pytest.raises(FileNotFoundError, match="top activations"):
        TopActivations.load(tmp_path / "none.safetensors")
    path.write_text("not a tensor")
    with pytest.raises(StatisticsError, match="damaged"):
        TopActivations.load(path)


def test_bad_input_is_told(mistral_model, samples):
    neurons = some_neurons(mistral_model, "language")
    run = {"batching": Batching(progress=False)}
    with pytest.raises(SampleError, match="at least 1"):
        top_activations(mistral_model, samples, neurons, k=0, **run)
    with pytest.raises(SampleError, match="empty"):
        top_activations(mistral_model, samples, NeuronSet([], "language", neurons.shape), **run)
    with pytest.raises(SampleError, match="unique"):
        top_activations(mistral_model, [*samples, samples[0]], neurons, **run)
    with pytest.raises(SampleError, match="'picture'"):
        top_activations(mistral_model, samples, neurons, distinct="picture", **run)
    with pytest.raises(StatisticsError, match="another model"):
        other = NeuronSet(neurons.pairs(), "language", neurons.shape, "0" * 16)
        top_activations(mistral_model, samples, other, **run)
    with pytest.raises(StatisticsError, match="does not fit"):
        top_activations(mistral_model, samples, NeuronSet([(0, 0)], "language", (2, 4)), **run)
    with pytest.raises(SampleError, match="no neurons"):
        top_activations(mistral_model, samples, NeuronSet([(0, 0)], "query", (2, 4)), **run)
    one = top_activations(mistral_model, samples, neurons, k=1, **run)["language"]
    two = top_activations(mistral_model, samples, neurons, k=2, **run)["language"]
    with pytest.raises(StatisticsError, match="their k"):
        one + two
    with pytest.raises(StatisticsError, match="different neurons"):
        one + replace(one, neurons=one.neurons + 1)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 2.5, -1.0]), st.integers(0, 4), st.integers(0, 9)),
        max_size=30,
        unique_by=lambda entry: entry[1:],
    ),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 30),
)
def test_largest_keeps_the_same_whatever_the_order(entries, k, once, cut):
    """Against sorting tuples, with many ties; and taken in two parts."""
    groups = [0, 0, 1, 2, 2]  # samples 0 and 1 share a source, and 3 and 4
    wanted = sorted((-v, s, p) for v, s, p in entries)
    if once:
        seen = set()
        wanted = [e for e in wanted if not (groups[e[1]] in seen or seen.add(groups[e[1]]))]
    wanted = [(-v, s, p) for v, s, p in wanted[:k]]

    def taken(rows, held=None):
        parts = [torch.tensor([r[i] for r in rows]) for i in range(3)]
        columns = [parts[0].float(), parts[1].long(), parts[2].long()]
        if held is not None:
            columns = [torch.cat(pair) for pair in zip(held, columns, strict=True)]
        return largest(*columns, k=k, sources=torch.tensor(groups) if once else None)

    for rows in (entries, entries[::-1]):
        for found in (taken(rows), taken(rows[cut:], taken(rows[:cut]))):
            values, samples, positions = (x.tolist() for x in found)
            got = list(zip(values, samples, positions, strict=True))
            assert got[: len(wanted)] == wanted
            assert all(e == (-np.inf, -1, -1) for e in got[len(wanted) :])


@given(st.lists(st.floats(-3000, 3000, width=32), min_size=1, max_size=60))
def test_histogram_counts_every_value_once(numbers):
    edges = bin_edges().numpy()
    assert (np.diff(edges) > 0).all()
    assert edges[0] == -(2.0**10)
    assert edges[-1] == 2.0**10
    counts = histogram(torch.tensor(numbers)[:, None])[0].numpy()
    values = np.array(numbers, dtype=np.float32)
    wanted = np.zeros(len(edges) + 1, int)
    for value in values:
        wanted[(edges < value).sum()] += 1
    assert (counts == wanted).all()
    assert counts[len(edges) // 2 + 1 :].sum() == (values > 0).sum()


# Promoted tokens


def test_promoted_tokens_are_the_change_of_the_logits(mistral_model):
    """Adding a little of a neuron's output to a stream moves the logits as told, to first order."""
    model = mistral_model
    decoder = model.adapter.decoder()
    neurons = NeuronSet([(0, 3), (1, 7), (2, 40)], "language", model.module("language").shape)
    found = promoted_tokens(model, neurons, 4)
    d, vocab = decoder.head.weight.shape[1], decoder.head.weight.shape[0]
    for n, (layer, index) in enumerate(neurons):
        direction = decoder.layers[layer].mlp.down_proj.weight[:, index].detach().double()
        gain, head = decoder.norm.weight.detach().double(), decoder.head.weight.detach().double()
        # A stream orthogonal to the direction, of root mean square one, so that its size stays.
        stream = torch.randn(d, dtype=torch.double, generator=torch.manual_seed(n))
        stream -= direction * (stream @ direction) / (direction @ direction)
        stream /= stream.square().mean().sqrt()

        def logits(x, gain=gain, head=head):
            return head @ (gain * x / x.square().mean().sqrt())

        change = (logits(stream + 1e-5 * direction) - logits(stream)) / 1e-5
        order = change.argsort(descending=True)
        assert found.top_ids[n].tolist() == order[:4].tolist()
        assert found.bottom_ids[n].tolist() == order.flip(0)[:4].tolist()
        assert np.allclose(found.top[n], change[order[:4]], atol=1e-3)
        assert np.allclose(found.bottom[n], change[order.flip(0)[:4]], atol=1e-3)
        assert found.top_ids.shape == (3, 4) and vocab > 8


def test_promoted_is_a_product_of_matrices():
    generator = np.random.default_rng(0)
    directions, gain, head = (generator.normal(size=s) for s in ((5, 6), (6,), (11, 6)))
    tensors = [torch.tensor(x, dtype=torch.float32) for x in (directions, gain, head)]
    for centred in (False, True):
        moved = directions - directions.mean(1, keepdims=True) if centred else directions
        scores = np.einsum("nd,d,vd->nv", moved, gain, head)
        found = promoted(*tensors, k=20, centred=centred)  # more than there are
        assert found.top.shape == (5, 11)
        assert np.allclose(found.top.numpy(), -np.sort(-scores, axis=1), atol=1e-5)
        assert (found.bottom_ids.numpy() == scores.argsort(1)).all()


@pytest.mark.parametrize("kind", ["rms", "layer", "one plus"])
def test_gains_are_read_however_they_are_kept(kind):
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    norm = {
        "rms": lambda: LlamaRMSNorm(8),
        "layer": lambda: torch.nn.LayerNorm(8),
        "one plus": lambda: Gemma3RMSNorm(8),
    }[kind]()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.arange(8) - 2.5)
    gain = gain_of(norm, 8)
    wanted = torch.arange(8) - 2.5 + (kind == "one plus")
    assert torch.allclose(gain, wanted, atol=1e-4)
    with pytest.raises(ValueError, match="odd"):
        gain_of(norm, 7)


def test_promoted_tokens_are_of_the_language_module_alone(mistral_model):
    with pytest.raises(SampleError, match="language"):
        promoted_tokens(mistral_model, some_neurons(mistral_model, "vision"))


def test_both_backbones_promote_the_same():
    hf = tiny.model("mistral")
    one, other = (mmlens.splice(hf, tiny.processor(), backbone=b) for b in ("auto", "bridge"))
    neurons = some_neurons(one, "language")
    a, b = promoted_tokens(one, neurons, 5), promoted_tokens(other, neurons, 5)
    assert torch.equal(a.top_ids, b.top_ids)
    assert torch.allclose(a.bottom, b.bottom)


def test_shares_of_processes_merge_into_the_whole(mistral_model, samples, monkeypatch):
    neurons = some_neurons(mistral_model, "language", 9)
    settings = {"k": 3, "batching": Batching(max_batch=1, progress=False)}
    whole = top_activations(mistral_model, samples, neurons, **settings)["language"]
    parts = []
    monkeypatch.setattr(Share, "merged", lambda self, part: part)
    for rank in range(2):
        launched = classmethod(lambda cls, rank=rank: cls(rank, 2))
        monkeypatch.setattr(Share, "of_launcher", launched)
        parts.append(top_activations(mistral_model, samples, neurons, **settings)["language"])
    assert all(0 < int(part.tokens.sum()) < int(whole.tokens.sum()) for part in parts)
    same(parts[0] + parts[1], whole)


def test_an_interrupted_pass_is_resumed_and_ends_with_the_same_bits(
    mistral_model, samples, tmp_path, monkeypatch
):
    neurons = [some_neurons(mistral_model, module) for module in MODULES]
    settings = {"k": 3, "batching": Batching(max_batch=2, progress=False)}
    whole = top_activations(mistral_model, samples, neurons, **settings)
    path, step, done = tmp_path / "top.safetensors", TopStream.step, []

    def failing(self, batch):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(step(self, batch))

    monkeypatch.setattr(TopStream, "step", failing)
    with pytest.raises(KeyboardInterrupt):
        top_activations(
            mistral_model, samples, neurons, checkpoint=path, checkpoint_every=0.0, **settings
        )
    monkeypatch.undo()
    again = top_activations(mistral_model, samples, neurons, checkpoint=path, **settings)
    assert set(again) == set(whole)
    for module in MODULES:
        same(again[module], whole[module])
    with pytest.raises(RunFolderError, match="other settings"):
        top_activations(mistral_model, samples, neurons, checkpoint=path, **{**settings, "k": 2})
