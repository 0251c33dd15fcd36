"""Streamed statistics against brute force on Hugging Face's own activations; resume; ranks."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mmlens
from mmlens.errors import RunFolderError, SampleError, StatisticsError, TooManyFailuresError
from mmlens.hooks import count
from mmlens.streaming.batching import Batching
from tests.helpers.reference import activations
from tests.tiny import llava_next as tiny

MODULES = ("language", "vision", "projector")
GROUPS = ("prompt", "image", "text", "special", "last")


def with_pictures(samples):
    return [s for s in samples if s.images]


def equal(a, b, exact=("positive", "maximum", "minimum", "tokens"), tolerance=1e-6):
    assert a.keys == b.keys
    assert torch.equal(a.samples, b.samples)
    for name, one in a.modules.items():
        for field, value in one.tensors().items():
            other = b.modules[name].tensors()[field]
            if field in exact:
                assert torch.equal(value, other), (name, field)
            else:
                scale = other.abs().max()
                assert (value - other).abs().max() <= tolerance * scale, (name, field)


def brute_force(model, samples, key):
    """Counts by running samples one by one on plain Hugging Face, and plain loops over tokens."""
    rows = {}
    for sample in samples:
        batch = model.prepare(sample)
        with activations(model.hf) as recorded, torch.no_grad():
            model.hf(**batch.inputs)
        for group in GROUPS:
            mask = batch.groups.mask(group)[0].numpy()
            values = np.stack([recorded[layer][0].numpy()[mask] for layer in range(3)])
            rows.setdefault((sample.get(key), group), []).append(values.astype(np.float64))
    return {cell: np.concatenate(parts, axis=1) for cell, parts in rows.items()}


def test_counts_equal_brute_force_on_hugging_face(tiny_model, samples):
    statistics = mmlens.collect(
        tiny_model, samples, groups=GROUPS, batching=Batching(token_budget=90)
    )
    one = statistics.modules["language"]
    flips = 0
    for (domain, group), values in brute_force(tiny_model, samples, "domain").items():
        k, g = statistics.keys.index(domain), GROUPS.index(group)
        assert one.tokens[k, g] == values.shape[1]
        # Two implementations and two batchings may differ where the value is within rounding of 0.
        close = np.abs(values) <= 1e-5 * np.sqrt((values**2).mean(-1, keepdims=True))
        difference = np.abs(one.positive[k, g].numpy() - (values > 0).sum(1))
        assert (difference <= close.sum(1)).all()
        flips += int(difference.sum())
        assert np.allclose(one.total[k, g], values.sum(1), rtol=1e-4, atol=1e-3)
        assert np.allclose(one.squares[k, g], (values**2).sum(1), rtol=1e-4, atol=1e-3)
        assert np.allclose(one.maximum[k, g], values.max(1), atol=1e-4)
        assert np.allclose(one.minimum[k, g], values.min(1), atol=1e-4)
    assert flips <= 3
    assert statistics.samples.sum() == len(samples)


def test_equal_to_brute_force_given_the_same_activations(tiny_model, samples):
    """From the hook's own tensors the numbers are exact, not only close."""
    some = samples[:4]
    batch = tiny_model.prepare(some)
    statistics = mmlens.collect(tiny_model, some, groups=("prompt", "image"), by="id")
    for layer in range(3):
        order = sorted(range(4), key=lambda i: -int(batch.groups.attention[i].sum()))
        same_batch = tiny_model.prepare([some[i] for i in order])  # as the plan runs them
        with torch.no_grad():
            _, cache = tiny_model.run_with_cache(same_batch, f"blocks.{layer}.mlp.hook_pre")
        act = torch.nn.functional.silu(cache[f"blocks.{layer}.mlp.hook_pre"])
        for row, i in enumerate(order):
            for g, group in enumerate(("prompt", "image")):
                values = act[row][same_batch.groups.mask(group)[row]]
                k = statistics.keys.index(some[i].id)
                one = statistics.modules["language"]
                assert torch.equal(one.positive[k, g, layer], (values > 0).sum(0))
                assert torch.equal(one.maximum[k, g, layer], values.amax(0))
                assert torch.equal(one.minimum[k, g, layer], values.amin(0))
                assert torch.allclose(one.total[k, g, layer], values.double().sum(0), atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"token_budget": 1}, {"token_budget": 60}, {"max_batch": 3}, {"template": "chat"}]
)
def test_any_batching_gives_the_same(tiny_model, samples, options):
    base = mmlens.collect(tiny_model, with_pictures(samples), modules=MODULES, groups=GROUPS)
    other = mmlens.collect(
        tiny_model,
        with_pictures(samples),
        modules=MODULES,
        groups=GROUPS,
        batching=Batching(**options),
    )
    equal(base, other, exact=("positive", "tokens"), tolerance=1e-5)


def test_any_order_and_merged_parts_give_the_same(tiny_model, samples):
    whole = mmlens.collect(tiny_model, samples)
    equal(whole, mmlens.collect(tiny_model, samples[::-1]), ("positive", "tokens"), 1e-5)
    parts = [mmlens.collect(tiny_model, samples[a:b]) for a, b in ((0, 1), (1, 5), (5, 10))]
    merged = parts[2] + parts[0] + parts[1]
    equal(whole, merged, ("positive", "tokens"), 1e-5)


def test_partition_of_groups_adds_up(tiny_model, samples):
    one = mmlens.collect(tiny_model, samples, groups=("text", "special", "image", "prompt"))
    language = one.modules["language"]
    for field in ("positive", "tokens"):
        value = language.tensors()[field]
        assert torch.equal(value[:, :3].sum(1), value[:, 3])
    assert torch.equal(language.maximum[:, :3].amax(1), language.maximum[:, 3])


def test_towers_count_real_positions_of_their_pictures(mistral_model, samples):
    pictures = with_pictures(samples)
    statistics = mmlens.collect(mistral_model, pictures, modules=("vision", "projector"), by="id")
    for sample in pictures:
        batch = mistral_model.prepare(sample)
        names = ["vision.blocks.1.mlp.hook_post", "projector.blocks.0.mlp.hook_post"]
        with torch.no_grad():
            _, cache = mistral_model.run_with_cache(batch, names)
        k = statistics.keys.index(sample.id)
        for module, layer, name in (("vision", 1, names[0]), ("projector", 0, names[1])):
            one, values = statistics.modules[module], cache[name].flatten(0, 1)
            assert one.tokens[k, 0] == len(values)
            assert (one.positive[k, 0, layer] - (values > 0).sum(0)).abs().max() <= 1
            assert torch.allclose(one.maximum[k, 0, layer], values.amax(0), atol=1e-5)


def test_text_alone_reaches_no_tower(mistral_model, samples):
    """Samples without a picture count in the language module, and in no other."""
    everything = mmlens.collect(
        mistral_model, samples, modules=MODULES, batching=Batching(token_budget=1)
    )
    pictured = mmlens.collect(mistral_model, with_pictures(samples), modules=MODULES)
    for module in ("vision", "projector"):
        one, other = everything.modules[module], pictured.modules[module]
        assert torch.equal(one.tokens, other.tokens)
        assert (one.positive - other.positive).abs().max() <= 1
    language = everything.modules["language"].tokens - pictured.modules["language"].tokens
    assert language.sum() == mistral_model.prepare(samples[-1]).shape[1]


def test_the_counter_hook_agrees(tiny_model, samples):
    batch = tiny_model.prepare(samples)
    counter = count(range(3), batch.groups.stack(("prompt", "image")))
    with torch.no_grad():
        tiny_model.run_with_hooks(batch, counter)
    statistics = mmlens.collect(
        tiny_model, [replace(s, domain="one") for s in samples], groups=("prompt", "image")
    )
    ours = statistics.modules["language"].positive[0].transpose(0, 1)
    assert (ours - counter.counts()).abs().max() <= 1


# -- resume ---------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
from tests.tiny import llava_next as tiny
import torch, mmlens
torch.set_num_threads({threads})
model = mmlens.splice(tiny.model("mistral"), tiny.processor())
model.hf.register_forward_hook(lambda *_: time.sleep(0.3))
mmlens.collect(model, tiny.samples(), groups=("prompt", "image"), checkpoint=sys.argv[1],
               checkpoint_every=0.0, batching=mmlens.Batching(token_budget=1, progress=False))
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_gives_the_same_bits(
    mistral_model, samples, tmp_path
):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    root = str(Path(__file__).parents[2])
    script = SCRIPT.format(root=root, threads=torch.get_num_threads())
    process = subprocess.Popen([sys.executable, "-c", script, str(cut)], stderr=subprocess.PIPE)

    def collect(path):
        batching = mmlens.Batching(token_budget=1, progress=False)
        options = {"groups": ("prompt", "image"), "checkpoint_every": 0.0, "batching": batching}
        mmlens.collect(mistral_model, samples, checkpoint=path, **options)

    collect(whole)
    deadline = time.monotonic() + 120
    while not cut.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.4)
    os.kill(process.pid, signal.SIGKILL)
    _, said = process.communicate()
    assert cut.exists(), said.decode()
    unfinished = mmlens.NeuronStatistics.load(cut)
    assert 0 < unfinished.samples.sum() < 10  # it was in the middle
    collect(cut)
    assert cut.read_bytes() == whole.read_bytes()


def test_a_finished_collection_runs_nothing_again(mistral_model, samples, tmp_path, monkeypatch):
    path = tmp_path / "s.safetensors"
    first = mmlens.collect(mistral_model, samples, checkpoint=path)
    monkeypatch.setattr(type(mistral_model), "forward", lambda *a, **k: pytest.fail("ran again"))
    equal(first, mmlens.collect(mistral_model, samples, checkpoint=path), tolerance=0.0)


def test_a_checkpoint_of_other_settings_is_refused(mistral_model, samples, tmp_path):
    path = tmp_path / "s.safetensors"
    mmlens.collect(mistral_model, samples, checkpoint=path)
    before = path.read_bytes()
    for changed in (
        {"groups": ("image",)},
        {"by": "id"},
        {"batching": Batching(token_budget=1)},
    ):
        with pytest.raises(RunFolderError, match="other settings"):
            mmlens.collect(mistral_model, samples, checkpoint=path, **changed)
    reworded = [replace(samples[0], text="w9"), *samples[1:]]
    with pytest.raises(RunFolderError, match="other samples"):
        mmlens.collect(mistral_model, reworded, checkpoint=path)
    precise = mmlens.splice(tiny.model("mistral").double(), tiny.processor())
    assert precise.weight_hash == mistral_model.weight_hash
    with pytest.raises(RunFolderError, match="other settings"):
        mmlens.collect(precise, samples, checkpoint=path)
    other = mmlens.splice(tiny.model("mistral", seed=1), tiny.processor())
    with pytest.raises(RunFolderError, match="another model"):
        mmlens.collect(other, samples, checkpoint=path)
    assert path.read_bytes() == before
    with pytest.raises(StatisticsError, match="another model"):
        mmlens.NeuronStatistics.load(path).check_model(other.weight_hash)


# -- bad input ------------------------------------------------------------------------------------


def test_unreadable_pictures_are_skipped_with_their_reason(mistral_model, samples, tmp_path):
    good = tmp_path / "good.png"
    tiny.picture(33, 31).save(good)
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(good.read_bytes()[:400])
    bad = [
        replace(samples[0], id="cut", images=(str(truncated),)),
        replace(samples[1], id="gone", images=(str(tmp_path / "nowhere.png"),)),
    ]
    statistics = mmlens.collect(
        mistral_model, [*samples, *bad], batching=Batching(max_failures=0.2)
    )
    assert set(statistics.skipped) == {"cut", "gone"}
    assert "truncated" in statistics.skipped["cut"]
    assert "does not exist" in statistics.skipped["gone"]
    equal(statistics, mmlens.collect(mistral_model, samples), ("positive", "tokens"), 1e-5)
    with pytest.raises(TooManyFailuresError, match="2 of 12"):
        mmlens.collect(mistral_model, [*samples, *bad], batching=Batching(max_failures=0.1))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"modules": ("qformer",)}, "qformer.*language, vision, projector"),
        ({"groups": ("sound",)}, "sound"),
        ({"by": "colour"}, "colour"),
    ],
)
def test_bad_arguments_are_one_clear_sentence(mistral_model, samples, options, match):
    with pytest.raises(SampleError, match=match):
        mmlens.collect(mistral_model, samples, **options)


def test_an_unknown_template(mistral_model, samples):
    with pytest.raises(SampleError, match="haiku"):
        mistral_model.preparer.lengths(samples, "haiku")


def test_other_media_and_missing_pictures(mistral_model, samples):
    with pytest.raises(SampleError, match="takes image only"):
        mistral_model.prepare(replace(samples[0], audios=("x.wav",)))
    text_only = [replace(s, images=()) for s in samples]
    with pytest.raises(SampleError, match="reads media"):
        mmlens.collect(mistral_model, text_only, modules=("vision",))
    with pytest.raises(SampleError, match="no samples"):
        mmlens.collect(mistral_model, [])
    with pytest.raises(SampleError, match="same id"):
        mmlens.collect(mistral_model, [samples[0], samples[0]])
    with pytest.raises(SampleError, match="without a processor"):
        mmlens.splice(tiny.model("mistral")).prepare(samples)
