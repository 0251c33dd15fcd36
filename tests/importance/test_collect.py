"""Streamed importance against the reference on separately recorded activations and attention."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlens import importance
from mmlens.backbone.build import has_hooked_transformer
from mmlens.data.halves import split, sum_of
from mmlens.errors import RunFolderError, SampleError, StatisticsError, UnsupportedModelError
from mmlens.importance.collect import ChosenScores, ImportanceStream
from mmlens.streaming.batching import Batching
from mmlens.streaming.collect import collect_parts
from mmlens.streaming.distributed import Share
from mmlens.streaming.plan import make_plan
from tests.helpers.models import spliced
from tests.helpers.reference import activations
from tests.tiny import NAMES, family
from tests.tiny import llava_next as tiny

MODES = ("paper", "causal")


def recorded(model, sample, mode):
    """Activations and head-averaged attention of one sample alone, per layer.

    The model's own attention comes from ``hook_pattern``, which the streamed scores never touch; the
    official code's, without a mask, from the cached queries and keys by plain products.
    """
    batch = model.prepare(sample)
    layers = range(model.cfg.n_layers)
    points = ["mlp.hook_pre", "attn.hook_pattern", "attn.hook_rot_q", "attn.hook_rot_k"]
    names = [f"blocks.{layer}.{point}" for layer in layers for point in points]
    with torch.no_grad():
        _, found = model.run_with_cache(batch, names)
    groups = {name: batch.groups.mask(name)[0].numpy() for name in batch.groups.base}
    rows = []
    for layer in layers:
        pre, pattern, q, k = (found[f"blocks.{layer}.{point}"][0].double() for point in points)
        x = model.activation("language", layer)(pre)
        a = pattern.mean(0).numpy()
        if mode == "paper":
            q, k = q.transpose(0, 1), k.transpose(0, 1)
            k = k.repeat_interleave(len(q) // len(k), 0)
            s = (q @ k.transpose(1, 2)).numpy() / np.sqrt(q.shape[-1])
            e = np.exp(s - s.max(-1, keepdims=True))
            a = (e / e.sum(-1, keepdims=True)).mean(0)
        rows.append((x, torch.tensor(a)))
    return groups, rows


def expected(model, samples, mode, groups):
    """The mean over samples that have the group, [score group layer neuron]."""
    sums, number = {}, {}
    for sample in samples:
        masks, rows = recorded(model, sample, mode)
        for group in groups:
            here = masks[group].nonzero()[0]
            if not len(here):
                continue
            number[group] = number.get(group, 0) + 1
            for layer, (x, a) in enumerate(rows):
                part = a[here][:, here]
                score = importance.token_set_scores(x[here], part, mode)
                sums[group, layer] = sums.get((group, layer), 0) + score
    return {cell: value / number[cell[0]] for cell, value in sums.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backbone", ["auto", "bridge"] if has_hooked_transformer() else ["bridge"])
@pytest.mark.parametrize("name", ["llava-next", "qwen2-vl", "qwen2-audio", "gemma3", "paligemma"])
def test_streamed_scores_equal_the_reference_sample_by_sample(name, backbone, mode):
    """In one padded batch, with sliding windows and prefixes: as each sample alone."""
    model, samples = spliced(name, backbone=backbone), family(name).samples()
    groups = ("text", "special", *model.adapter.modalities)
    got = importance.collect(
        model,
        samples,
        by="id",
        attention_mode=mode,
        batching=Batching(max_batch=len(samples), progress=False),
    )
    assert got.groups == groups
    everything = got.samples.sum(0)
    mean = got.sums.sum(0) / everything[None, :, None, None].clamp(min=1)
    wanted = expected(model, samples, mode, groups)
    assert len(wanted) >= 3 * model.cfg.n_layers
    for (group, layer), value in wanted.items():
        difference = (mean[:, groups.index(group), layer] - value).abs()
        # `prob` jumps where an activation is within rounding of zero.
        assert float(difference[1:].max()) < 2e-4, (group, layer)
        assert float((difference[0] > 1e-4).double().mean()) < 0.01


def test_scores_equal_plain_hugging_face(mistral_model):
    """Attention and activations of the Hugging Face model itself, outside the exchange."""
    hf = mistral_model.hf
    sample = next(s for s in tiny.samples() if s.images)
    got = importance.collect(mistral_model, [sample], by="id", batching=Batching(progress=False))
    batch = mistral_model.prepare(sample)
    before = hf.config._attn_implementation
    hf.set_attn_implementation("eager")
    try:
        with activations(hf) as acts, torch.no_grad():
            out = hf(**batch.inputs, output_attentions=True)
    finally:
        hf.set_attn_implementation(before)
    for g, group in enumerate(got.groups):
        here = batch.groups.mask(group)[0].nonzero()[:, 0]
        for layer in range(mistral_model.cfg.n_layers):
            a = out.attentions[layer][0].double().mean(0)[here][:, here]
            x = acts[layer][0].double()[here]
            score = importance.token_set_scores(x, a, "causal")
            assert (got.sums[0, :, g, layer] - score).abs().max() < 2e-4


@pytest.mark.parametrize("name", NAMES)
def test_scores_do_not_depend_on_batching_or_order(name):
    model, samples = spliced(name), family(name).samples()
    one, other = (
        importance.collect(
            model, chosen, by="id", batching=Batching(max_batch=size, progress=False)
        )
        for chosen, size in ((samples, len(samples)), (samples[::-1], 1))
    )
    assert torch.equal(one.samples, other.samples)
    assert (one.sums - other.sums)[:, 1:].abs().max() < 2e-3
    assert ((one.sums - other.sums).abs() > 1e-3).double().mean() < 0.01
    assert float(one.sums.max()) == 1 and not one.sums.isnan().any()


def test_groups_may_overlap_and_scores_may_be_few(mistral_model, samples):
    few = importance.collect(
        mistral_model,
        samples,
        groups=("prompt", "special_text", "text"),
        scores=("max", "mean"),
        batching=Batching(progress=False),
    )
    full = importance.collect(
        mistral_model, samples, groups=("text", "prompt"), batching=Batching(progress=False)
    )
    assert few.attention_mode is None and full.attention_mode == "causal"
    assert torch.equal(few.sums[:, 0, 2], full.sums[:, 2, 0])
    assert torch.allclose(few.sums[:, 1, 0], full.sums[:, 1, 1], atol=1e-5)


def test_a_killed_collection_goes_on_and_ends_with_the_same_bits(mistral_model, samples, tmp_path):
    plan = make_plan(
        mistral_model,
        samples,
        ("language",),
        ("text", "image"),
        "domain",
        batching=Batching(max_batch=2),
    )
    chosen = ChosenScores(importance.SCORES, "causal")

    def stream(path):
        return ImportanceStream(mistral_model, plan, chosen, Batching(progress=False), path)

    whole = stream(None).run("")
    assert len(plan.batches) > 2
    cut = stream(tmp_path / "i.safetensors")
    with torch.no_grad(), cut.recording():
        for positions in plan.batches[:2]:
            cut.step(mistral_model.prepare([plan.samples[i] for i in positions]))
    cut.save()
    again = stream(tmp_path / "i.safetensors")
    assert again.done == 2
    rest = again.run("")
    assert torch.equal(rest.sums, whole.sums) and torch.equal(rest.samples, whole.samples)
    with pytest.raises(RunFolderError, match="other settings"):
        ImportanceStream(
            mistral_model,
            plan,
            ChosenScores(importance.SCORES, "paper"),
            Batching(),
            tmp_path / "i.safetensors",
        )


def test_shares_of_ranks_merge_to_the_whole(mistral_model, samples, monkeypatch):
    """Each process's part, without a launcher: rank r takes every n-th sample."""
    whole = importance.collect(
        mistral_model, samples, batching=Batching(max_batch=1, progress=False)
    )
    parts = []
    for rank in range(2):
        monkeypatch.setattr(Share, "of_launcher", classmethod(lambda cls, rank=rank: cls(rank, 2)))
        monkeypatch.setattr(Share, "merged", lambda self, part: part)
        parts.append(
            importance.collect(
                mistral_model, samples, batching=Batching(max_batch=1, progress=False)
            )
        )
    merged = parts[0] + parts[1]
    assert torch.equal(merged.samples, whole.samples)
    assert torch.allclose(merged.sums, whole.sums, rtol=0, atol=1e-9)


def test_parts_that_double_add_up_to_the_whole(mistral_model, samples):
    keyed = [replace(s, domain=f"d{i % 2}") for i, s in enumerate(samples)]
    halves = split(keyed, levels=2)
    parts = collect_parts(
        mistral_model,
        halves,
        collector=importance.collect,
        batching=Batching(max_batch=1, progress=False),
    )
    whole = importance.collect(mistral_model, keyed, batching=Batching(max_batch=1, progress=False))
    merged = sum_of(parts)
    assert torch.equal(merged.samples, whole.samples)
    assert torch.allclose(merged.sums, whole.sums, atol=1e-9)
    table = importance.convergence(parts, whole.present(), ratio=0.3)
    assert set(table.comparison) == {"full", "halves"} and table.jaccard.between(0, 1).all()
    last = table[(table.comparison == "full") & (table.part == table.part.max())]
    assert (last.n_samples < int(whole.samples.sum(0).max())).all()


def test_nothing_of_size_tokens_by_tokens_is_kept(mistral_model, samples, monkeypatch):
    """With small blocks, no product of the listener's has more than a block's elements."""
    from mmlens.importance import attention_weights as attention

    shapes = []
    plain = attention._mean_over_heads

    def watched(scores):
        shapes.append(scores.numel())
        return plain(scores)

    monkeypatch.setattr(attention, "_mean_over_heads", watched)
    monkeypatch.setattr(attention, "_BLOCK", {"cpu": 500})
    sample = max(samples, key=lambda s: len(s.images))
    small = importance.collect(mistral_model, [sample], batching=Batching(progress=False))
    assert max(shapes) <= 500 and len(shapes) > 3 * mistral_model.cfg.n_layers
    monkeypatch.setattr(attention, "_BLOCK", {"cpu": 1 << 22})
    assert torch.allclose(
        small.sums,
        importance.collect(mistral_model, [sample], batching=Batching(progress=False)).sums,
        atol=1e-4,
    )


def test_bad_input_is_refused_in_a_sentence(mistral_model, samples):
    with pytest.raises(SampleError, match="no samples"):
        importance.collect(mistral_model, [])
    with pytest.raises(SampleError, match="There is no token group 'smell'"):
        importance.collect(
            mistral_model, samples, groups=("smell",), batching=Batching(progress=False)
        )
    with pytest.raises(SampleError, match="some of prob"):
        importance.collect(mistral_model, samples, scores=("median",))
    for groups, said in (((), "none"), (("text", "text"), "text, text")):
        with pytest.raises(SampleError, match=f"at least one, each once; given: {said}"):
            importance.collect(
                mistral_model, samples, groups=groups, batching=Batching(progress=False)
            )


def test_a_sample_without_any_of_the_groups_counts_for_none(mistral_model, samples):
    """Alone, where nothing at all is to be reduced, and beside others."""
    without = [sample for sample in samples if not sample.images]
    assert without and len(without) < len(samples)
    options = {"groups": ("image",)}
    none = importance.collect(mistral_model, without, **options)
    assert not none.samples.any() and not none.sums.any() and none.present() == ()
    both = importance.collect(
        mistral_model, samples, batching=Batching(max_batch=len(samples)), **options
    )
    pictured = [sample for sample in samples if sample.images]
    alone = importance.collect(mistral_model, pictured, **options)
    assert int(both.samples.sum()) == len(pictured)
    assert (both.sums.sum(0) - alone.sums.sum(0)).abs().max() < 2e-2


def test_a_layer_without_attention_is_named(monkeypatch, mistral_model, samples):
    monkeypatch.setattr(
        mistral_model,
        "why_silent",
        lambda name: "it computes by itself." if name.startswith("blocks.1.attn") else None,
    )
    with pytest.raises(
        UnsupportedModelError, match=r"layer 1.*prob, mean and max need no attention"
    ):
        importance.collect(mistral_model, samples, batching=Batching(progress=False))
    without = importance.collect(
        mistral_model,
        samples[:1],
        scores=("prob", "mean", "max"),
        batching=Batching(progress=False),
    )
    assert without.sums.any()


def test_scores_of_another_model_are_refused(mistral_model, samples):
    found = importance.collect(
        mistral_model, samples[:1], scores=("mean",), batching=Batching(progress=False)
    )
    found.check_model(mistral_model.weight_hash)
    with pytest.raises(StatisticsError, match="another model"):
        found.check_model("else")
