"""Stopping a domain after a number of tokens: which samples count, whatever the batches and processes."""

from dataclasses import replace

import pytest
import torch

import mmlens
from mmlens.errors import RunFolderError, SampleError
from mmlens.streaming.batching import Batching
from mmlens.streaming.distributed import Share
from mmlens.streaming.plan import make_plan
from mmlens.streaming.token_limit import within


def vision_positions(model, sample):
    """Positions that pass the vision tower, told by plain Hugging Face's own activations."""
    batch, seen = model.prepare(sample), []
    mlp = model.hf.model.vision_tower.encoder.layers[0].mlp
    handle = mlp.activation_fn.register_forward_hook(
        lambda _m, _i, out: seen.append(out.shape[0] * out.shape[1])
    )
    with torch.no_grad():
        model.hf(**batch.inputs)
    handle.remove()
    return sum(seen)


@pytest.fixture(scope="module")
def sizes(mistral_model, samples):
    """Tokens of each sample, by name."""
    out = {}
    for sample in samples:
        ids = mistral_model.prepare(sample).input_ids[0]
        out[sample.id] = {
            "language": len(ids),
            "image": int((ids == mistral_model.hf.config.image_token_id).sum()),
            "vision": vision_positions(mistral_model, sample) if sample.images else 0,
        }
    return out


def first_until(samples, sizes, limits):
    """Plainly: walk through each domain until everything asked for is there."""
    chosen = set()
    for domain in {s.domain for s in samples}:
        sums = dict.fromkeys(limits, 0)
        for sample in (s for s in samples if s.domain == domain):
            if all(sums[name] >= limit for name, limit in limits.items()):
                break
            chosen.add(sample.id)
            for name in sums:
                sums[name] += sizes[sample.id][name]
    return chosen


@pytest.mark.parametrize(
    "limits",
    [
        {"vision": 1},
        {"vision": 40},
        {"image": 25},
        {"language": 30},
        {"vision": 30, "language": 60},
        {"vision": 10**9},
    ],
)
def test_the_first_samples_of_each_domain_count(mistral_model, samples, sizes, limits):
    for order in (samples, samples[::-1]):
        kept = within(mistral_model, order, limits)
        assert {s.id for s in kept} == first_until(order, sizes, limits)
        assert [s.id for s in order if s in kept] == [s.id for s in kept]


def test_totals_are_in_the_statistics(mistral_model, samples, sizes):
    limits = {"vision": 40}
    pictured = [s for s in samples if s.images]
    kept = within(mistral_model, pictured, limits)
    assert 0 < len(kept) < len(pictured)
    options = {"modules": ("language", "vision")}
    statistics = mmlens.collect(mistral_model, pictured, stop_after=limits, **options)
    for module in ("language", "vision"):
        totals = dict.fromkeys(statistics.keys, 0)
        for sample in kept:
            totals[sample.domain] += sizes[sample.id][module]
        assert statistics.modules[module].tokens[:, 0].tolist() == list(totals.values())
    reached = statistics.modules["vision"].tokens[:, 0]
    assert (reached >= 40).any()
    assert int(statistics.samples.sum()) == len(kept)
    # the same as giving those samples, bit for bit; and another batching counts the same
    alone = mmlens.collect(mistral_model, kept, **options)
    small = mmlens.collect(
        mistral_model, pictured, stop_after=limits, batching=Batching(max_batch=1), **options
    )
    for module, one in statistics.modules.items():
        for field, value in one.tensors().items():
            assert torch.equal(value, alone.modules[module].tensors()[field])
        assert torch.equal(one.tokens, small.modules[module].tokens)
        assert int((one.positive - small.modules[module].positive).abs().sum()) <= 3


def test_processes_share_the_same_samples(mistral_model, samples):
    shared = (("language",), ("prompt",), "domain")
    limits = {"language": 40}
    whole = make_plan(mistral_model, samples, *shared, stop_after=limits)
    parts = [
        make_plan(mistral_model, samples, *shared, share=Share(rank, 3), stop_after=limits)
        for rank in range(3)
    ]
    ids = sorted(s.id for part in parts for s in part.samples)
    assert ids == sorted(s.id for s in whole.samples)
    assert len(ids) < len(samples)
    assert {part.keys for part in parts} == {whole.keys}


def test_interrupted_it_ends_with_the_same_bits(mistral_model, samples, tmp_path, monkeypatch):
    options = {"stop_after": {"language": 60}, "batching": Batching(max_batch=2, progress=False)}
    whole = mmlens.collect(mistral_model, samples, **options)
    path = tmp_path / "part.safetensors"
    step = mmlens.streaming.collect.Collection.step
    done = []

    def failing(self, batch):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(step(self, batch))

    monkeypatch.setattr(mmlens.streaming.collect.Collection, "step", failing)
    with pytest.raises(KeyboardInterrupt):
        mmlens.collect(mistral_model, samples, checkpoint=path, checkpoint_every=0.0, **options)
    monkeypatch.undo()
    again = mmlens.collect(mistral_model, samples, checkpoint=path, **options)
    for field, value in whole.modules["language"].tensors().items():
        assert torch.equal(value, again.modules["language"].tensors()[field])
    for changed in ({"stop_after": {"language": 20}}, {"site": "glu"}):
        with pytest.raises(RunFolderError, match="other settings"):
            mmlens.collect(mistral_model, samples, checkpoint=path, **{**options, **changed})


def test_unreadable_samples_are_reported_and_count_nothing(mistral_model, samples, tmp_path):
    broken = tmp_path / "half.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    pictured = [s for s in samples if s.images]
    bad = replace(pictured[0], id="bad", images=(str(broken),))
    kept = within(mistral_model, [bad, *pictured], {"vision": 1})
    domains = {s.domain for s in pictured}
    assert [s.id for s in kept][0] == "bad"
    assert len(kept) == 1 + len(domains)
    out = mmlens.collect(
        mistral_model,
        [bad, *pictured],
        stop_after={"vision": 1},
        batching=Batching(max_failures=0.5, progress=False),
    )
    assert set(out.skipped) == {"bad"}
    assert int(out.samples.sum()) == len(domains)


def test_bad_limits(mistral_model, samples):
    with pytest.raises(SampleError, match="at least one token; 0 was given for 'vision'"):
        within(mistral_model, samples, {"vision": 0})
    with pytest.raises(SampleError, match="Module 'visoin' has no neurons"):
        within(mistral_model, samples, {"visoin": 5})


def test_the_tokens_are_those_that_collect_counts(mistral_model, samples, sizes):
    statistics = mmlens.collect(
        mistral_model, samples, groups=("prompt", "image"), batching=Batching(progress=False)
    )
    total = [sum(one[name] for one in sizes.values()) for name in ("language", "image")]
    assert statistics.modules["language"].tokens.sum(0).tolist() == total
