"""When positions hear: changing a moment of a sound changes exactly the positions that are told to read it."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens.data.samples import Sample
from mmlens.model.places import places_of
from mmlens.tokens.places import KINDS, Places, spans
from tests.model.test_places import inputs_of, spliced
from tests.tiny import family

RATE, HOP, WINDOW = 16000, 160, 400
#: Family -> modules that hear, with the spectrogram frames per position; frames that the encoder's
#: convolutions see at once.
FAMILIES = {
    "qwen2_audio": ({"language": 4, "audio": 2}, 100),
    "qwen2_5_omni": ({"language": 4, "audio": 2}, 20),
    "voxtral": ({"language": 8, "audio": 2, "projector": 8}, 32),
}
#: Samples by which a change may reach a position's edge and be lost: the Hann window begins at zero.
FAINT = 24


@pytest.fixture(params=FAMILIES)
def name(request):
    if request.param == "voxtral":
        pytest.importorskip("mistral_common", reason="Voxtral's processor needs mistral-common")
    return request.param


def noise(seconds, seed=0):
    """Noise whose loudest moment, by which spectrograms are scaled, no test touches."""
    rng = np.random.default_rng(seed)
    wave = 0.05 * rng.standard_normal((int(seconds * RATE),))
    loud = slice(round(0.48 * len(wave)), round(0.52 * len(wave)))
    wave[loud] += np.sin(np.arange(loud.stop - loud.start) * 0.6)
    return wave.astype(np.float32)


def asked(*waves):
    sounds = tuple((wave, RATE) for wave in waves)
    return Sample("s", "what is this ?", audios=sounds, answers=("a",), domain="red")


def changed(model, sample, other, modules):
    """Module -> which of its real positions of the row differ, and their places."""
    batch = model.prepare(sample)
    found = {}
    plain, new = (inputs_of(model, model.prepare(one), modules) for one in (sample, other))
    for module in modules:
        pairs = zip(new[module], plain[module], strict=True)
        differ = torch.cat([(a != b).any(-1) for a, b in pairs])
        if module == "audio":  # padded positions of Qwen2-Audio belong to no row
            (rows,) = model.adapter.tower_rows("audio", batch.inputs, model.media_rows(batch))
            differ = differ[rows.flatten() >= 0]
        found[module] = differ, places_of(model, batch, 0, module)
    return found


def reach(index, frames, chunk):
    """First and last sample that a position of a sound reads, written out from the encoder.

    ``index``: among the sound's positions; ``chunk``: frames that are convolved together.
    """
    inner = range(index * frames // 2, (index + 1) * frames // 2)  # behind the second convolution
    start = 2 * inner[0] // chunk * chunk
    heard = [
        f
        for j in inner
        for middle in (2 * j - 1, 2 * j, 2 * j + 1)  # second convolution: stride 2, padding 1
        for f in (middle - 1, middle, middle + 1)  # first convolution: stride 1, padding 1
        if start <= f
    ]
    # Pooled positions may lie in two chunks; behind the chunk of each nothing is read.
    ends = [2 * j // chunk * chunk + chunk for j in inner]
    heard = [f for f in heard if f < max(ends)]
    return min(heard) * HOP - WINDOW // 2, max(heard) * HOP + WINDOW // 2


def test_a_changed_moment_changes_what_reads_it(name):
    model, (modules, chunk) = spliced(name), FAMILIES[name]
    wave = noise(0.9)
    rng = np.random.default_rng(1)
    some = dict.fromkeys(modules, 0)
    for _ in range(6):
        at, long = int(rng.integers(600, 6000)), int(rng.integers(100, 800))
        at += 7200 * int(rng.integers(2))
        other = wave.copy()
        other[at : at + long] += 0.05 * rng.standard_normal(len(other[at : at + long]))
        for module, (differ, places) in changed(
            model, asked(wave), asked(other), tuple(modules)
        ).items():
            heard = (places.kind == KINDS.index("audio")).nonzero()[:, 0].tolist()
            assert not differ[~(places.kind == KINDS.index("audio"))].any()
            for index, position in enumerate(heard):
                if places.are("padding")[position]:
                    assert index * modules[module] * HOP > len(wave)
                    continue
                first, last = reach(index, modules[module], chunk)
                overlap = min(last, at + long) - max(first, at)
                if overlap > FAINT:
                    assert differ[position], (module, index)
                    some[module] += 1
                elif overlap < 0:
                    assert not differ[position], (module, index)
                # What a position stands for lies in the middle of what it reads.
                start, end = (places.seconds[position].double() * RATE).tolist()
                if index and end < len(wave) and chunk == 100:
                    assert (first + last) / 2 == pytest.approx((start + end) / 2, abs=0.5)
                    assert start - first == pytest.approx(360, abs=0.5)
    assert all(some.values()), some


def test_spans_follow_one_another_through_the_sound(name):
    model, (modules, _) = spliced(name), FAMILIES[name]
    wave = noise(0.53)
    batch = model.prepare(asked(wave))
    for module, frames in modules.items():
        places = places_of(model, batch, 0, module)
        seconds = places.seconds[places.are("span")]
        assert seconds[0, 0] == 0
        assert torch.equal(seconds[1:, 0], seconds[:-1, 1])
        # What is left over at the end is too short for another position.
        left = len(wave) / RATE - float(seconds[-1, 1])
        assert 0 <= left < (frames + 1) * HOP / RATE
        inner = seconds[1:-1, 1] - seconds[1:-1, 0]
        assert torch.allclose(inner, torch.tensor(frames * HOP / RATE), atol=1e-6)
        assert places.boxes.isnan().all()
        beyond = places.are("padding")
        assert places.seconds[beyond].isnan().all()
        assert bool(beyond.any()) == (name == "voxtral")


def test_two_sounds_of_a_prompt_are_told_apart(name):
    model, (modules, _) = spliced(name), FAMILIES[name]
    waves = [noise(0.4, 1), noise(0.7, 2)]
    other = waves[1].copy()
    other[1600:3200] *= 0.5
    for module, (differ, places) in changed(
        model, asked(*waves), asked(waves[0], other), tuple(modules)
    ).items():
        touched = places.seconds[differ]
        assert (places.medium[differ] == 1).all(), module
        assert (touched[:, 0] < 0.2 + 0.0225).all() and (touched[:, 1] > 0.1 - 0.0225).all()
        for medium in (0, 1):
            assert (places.are("span") & (places.medium == medium)).any()


def test_rows_of_a_batch_have_the_times_they_have_alone(name):
    model, (modules, _) = spliced(name), FAMILIES[name]
    samples = family(name).samples()
    batch = model.prepare(samples)
    for row, sample in enumerate(samples):
        alone = model.prepare(sample)
        for module in modules:
            one, other = places_of(model, alone, 0, module), places_of(model, batch, row, module)
            if module == "language":
                other = other[batch.groups.attention[row]]
            for field in fields(Places):
                a, b = getattr(one, field.name), getattr(other, field.name)
                assert torch.equal(a.nan_to_num(-1.0), b.nan_to_num(-1.0)), (row, module)
            if sample.audios and module != "language":
                assert one.are("span").any()


def test_a_sound_longer_than_the_spectrogram_ends_with_it():
    model = spliced("qwen2_audio")
    places = places_of(model, model.prepare(asked(noise(1.7))), 0)
    assert float(places.seconds[places.are("span")].max()) == pytest.approx(0.99)


def test_pictures_alone_have_no_sounds():
    model = spliced("qwen2_5_omni")
    pictures = next(s for s in family("qwen2_5_omni").samples() if s.images and not s.audios)
    assert len(places_of(model, model.prepare(pictures), 0, "audio")) == 0


@given(st.integers(1, 40), st.sampled_from([2, 4, 8]), st.floats(0.001, 0.1), st.floats(0, 60))
def test_spans_are_counted_in_frames(number, frames, hop, first):
    found = spans(number, frames, hop, first).double().numpy()
    for i, (start, end) in enumerate(found):
        middle = np.mean([frames * i + f for f in range(0, frames, 2)])
        assert (start + end) / 2 == pytest.approx(first + middle * hop, rel=1e-5, abs=1e-6)
        assert end - start == pytest.approx(frames * hop, rel=1e-3, abs=1e-5)


def test_behind_the_end_is_padding():
    places = Places.of_spans(spans(4, 2, 0.01), 0.03, medium=1)
    assert places.are("span").tolist() == [True, True, False, False]
    assert places.seconds[:2].tolist() == [pytest.approx([0, 0.01]), pytest.approx([0.01, 0.03])]
    assert places.seconds[2:].isnan().all()
    assert (places.medium == 1).all()
    assert torch.equal(replace(places, medium=places.medium)[slice(0, 2)].role, places.role[:2])
