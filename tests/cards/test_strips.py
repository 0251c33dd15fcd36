"""Cards on sound and video: strips show the activations where and when they are, and sounds sound."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional

import mmlens
from mmlens.cards.entries import EntryMaker
from mmlens.cards.neuron_cards import card_page, neuron_cards
from mmlens.cards.page import render
from mmlens.cards.strip_svg import Strip, drawn_strip, encoded, extremes, shaded_tokens
from mmlens.cards.strips import contact_sheet
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.model.places import places_of
from mmlens.neurons import NeuronSet
from mmlens.streaming.activations import activations_of
from mmlens.streaming.batching import Batching
from mmlens.streaming.top import top_activations
from mmlens.streaming.top_groups import TOKEN_GROUP, top_by_group
from mmlens.tokens.text import prompt_tokens, spaced_texts
from tests.tiny import family
from tests.tiny.common import video


@pytest.fixture(scope="module")
def model():
    tiny = family("qwen2_audio")
    return mmlens.splice(tiny.variants["qwen2"](0), tiny.processor())


@pytest.fixture(scope="module")
def samples():
    return family("qwen2_audio").samples()


@pytest.fixture(scope="module")
def seeing():
    tiny = family("qwen2_vl")
    return mmlens.splice(next(iter(tiny.variants.values()))(0), tiny.processor())


def neurons_of(model, module, step=7):
    shape = model.module(module).shape
    pairs = [(layer, i) for layer in range(shape[0]) for i in range(layer, shape[1], step)]
    return NeuronSet(pairs, module, shape)


def sounds_of(page):
    """The sounds inside a page, as data URIs."""
    found = re.search(r'id="sounds">(\[.*?\])</script>', page)
    assert found is not None
    return json.loads(found[1])


def test_activations_are_those_of_the_model_itself(model, samples):
    two = next(s for s in samples if s.id == "two")
    batch = model.prepare(two)
    seen = {}

    def keep(name, transform):
        return lambda module, args, output: seen.__setitem__(name, transform(output).detach())

    handles = []
    for layer, block in enumerate(model.hf.model.language_model.layers):
        handles.append(
            block.mlp.gate_proj.register_forward_hook(keep(("language", layer), functional.silu))
        )
    for layer, block in enumerate(model.hf.model.audio_tower.layers):
        handles.append(block.fc1.register_forward_hook(keep(("audio", layer), functional.gelu)))
    with torch.no_grad():
        model.hf(**batch.inputs)
    for handle in handles:
        handle.remove()
    lengths = batch.inputs["feature_attention_mask"].sum(-1)
    real = (lengths - 1) // 2 + 1
    for module in ("language", "audio"):
        found = activations_of(model, batch, neurons_of(model, module))
        for (layer, index), values in found.items():
            own = seen[module, layer]
            if module == "audio":
                own = torch.cat([one[:n] for one, n in zip(own, real.tolist(), strict=True)])
            else:
                own = own[0]
            torch.testing.assert_close(values, own[:, index], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", ["language", "audio"])
def test_the_curve_is_the_activation_over_the_seconds(model, samples, module):
    neurons = neurons_of(model, module)
    found = top_activations(model, samples, neurons, k=5, batching=Batching(progress=False))[module]
    named = {s.id: s for s in samples}
    maker = EntryMaker(model, module, "auto")
    entries = maker.entries(found, named)
    inside = outside = 0
    for (n, j), listed in entries.items():
        for rank, entry in enumerate(listed):
            sample = named[entry.sample]
            if not sample.audios:
                assert entry.strip is None and entry.tokens is None
                continue
            batch = model.prepare(sample)
            places = places_of(model, batch, 0, module)
            position = int(found.positions[n, j, rank])
            strip = entry.strip
            assert strip is not None and strip.sound is not None
            medium = max(0, int(places.medium[position]))
            own = (places.are("span") & (places.medium == medium)).nonzero()[:, 0]
            times = [[a, b] for a, b, _ in strip.curve]
            np.testing.assert_allclose(times, places.seconds[own])
            assert strip.unit == "s"
            rate = 16000
            wave = mmlens.data.media.sounds.open_audio(sample.audios[medium], rate)
            assert strip.length == pytest.approx(len(wave) / rate)
            if position in own.tolist():
                assert strip.mark == tuple(places.seconds[position].tolist())
                at = own.tolist().index(position)
                assert strip.curve[at][2] == pytest.approx(entry.value, rel=1e-3, abs=1e-4)
                inside += 1
            else:
                assert strip.mark is None
                outside += 1
            if module == "language":
                assert entry.tokens is not None
                assert sum(marked for _, _, marked in entry.tokens) == (not strip.mark)
                values = [v for _, v, marked in entry.tokens if marked]
                assert values == pytest.approx([entry.value] * len(values), rel=1e-3, abs=1e-4)
            np.testing.assert_array_equal(maker.strips.sounds[strip.sound][0], wave)
    assert inside and (outside or module == "audio")


@pytest.mark.parametrize("module", ["language", "vision"])
def test_the_curve_of_a_video_is_the_largest_of_each_moment(seeing, module):
    clips = [
        Sample(f"v{i}", "w1 w2", videos=(video(6, 24, 16, i),), domain="red") for i in range(3)
    ]
    neurons = neurons_of(seeing, module)
    found = top_activations(seeing, clips, neurons, k=3, batching=Batching(progress=False))[module]
    maker = EntryMaker(seeing, module, "auto")
    entries = maker.entries(found, {s.id: s for s in clips})
    some = 0
    for (n, _), listed in entries.items():
        for entry in listed:
            sample = next(s for s in clips if s.id == entry.sample)
            batch = seeing.prepare(sample)
            places = places_of(seeing, batch, 0, module)
            pair = tuple(found.neurons[n].tolist())
            alone = NeuronSet([pair], module, found.shape)
            values = activations_of(seeing, batch, alone)[pair]
            assert entry.strip is not None
            assert [(a, b) for a, b, _ in entry.strip.curve] == [(0, 2), (2, 4), (4, 6)]
            for a, _, largest in entry.strip.curve:
                here = (places.kind == 1) & (places.frames[:, 0] == int(a))
                assert largest == pytest.approx(float(values[here].max()), rel=1e-4, abs=1e-5)
            if entry.strip.mark is not None:
                value = next(v for a, b, v in entry.strip.curve if (a, b) == entry.strip.mark)
                assert value == pytest.approx(entry.value, rel=1e-3, abs=1e-4)
                some += 1
            assert entry.strip.unit == "frames" and entry.strip.sound is None
            assert entry.strip.length == 6
    assert some
    assert len(maker.strips.pictures) == 3 and not maker.strips.sounds


def test_the_page_holds_every_sound_once_and_it_sounds_the_same(model, samples, tmp_path):
    out = tmp_path / "cards.html"
    neuron_cards(
        model,
        samples,
        neurons_of(model, "audio", 13),
        out,
        per_set=None,
        top_k=4,
        batching=Batching(progress=False),
    )
    text = out.read_text()
    uris = sounds_of(text)
    assert len(uris) == len(set(uris)) >= 4
    buttons = {int(n) for n in re.findall(r'data-sound="(\d+)"', text)}
    assert buttons == set(range(len(uris)))
    strips = set(re.findall(r'<use href="#(t\d+)"', text))
    assert strips == set(re.findall(r'<image id="(t\d+)"', text))
    assert "media-src data:" in text
    assert not re.search(r"(src|href)=\"https?:", text)
    lengths = [
        len(mmlens.data.media.sounds.open_audio(a, 16000)) for s in samples for a in s.audios
    ]
    for uri in uris:
        wave, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.split(",")[1])))
        assert rate == 16000
        assert min(abs(len(wave) - n) for n in lengths) <= 2400  # MP3 pads with blocks of silence


def test_a_sound_is_still_the_sound_at_any_rate():
    rate = 16000
    time = np.arange(rate) / rate
    wave = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    sizes = []
    for allowed in (16000, 8000):
        uri = encoded((wave, rate), allowed)
        heard, own = soundfile.read(io.BytesIO(base64.b64decode(uri.split(",")[1])))
        assert own == allowed
        spectrum = np.abs(np.fft.rfft(heard))
        assert spectrum.argmax() * own / len(heard) == pytest.approx(440, abs=3)
        sizes.append(len(uri))
    assert sizes[1] < sizes[0] < 12_000


def test_sounds_get_duller_until_the_page_is_small_enough(model, samples):
    heard = [replace(s, audios=s.audios[:1]) for s in samples if s.audios]
    neurons = neurons_of(model, "audio", 17)
    found = top_activations(model, heard, neurons, k=4, batching=Batching(progress=False))["audio"]
    page = card_page(model, heard, found, {"": neurons})
    rates = []
    for most in (20_000_000, 20_000):
        uris = sounds_of(render(page, most))
        data = (io.BytesIO(base64.b64decode(one.split(",")[1])) for one in uris)
        rates.append({soundfile.info(one).samplerate for one in data})
    assert rates == [{16000}, {8000}]


def test_a_strip_draws_its_curve_to_scale():
    curve = ((0.0, 0.5, 2.0), (0.5, 1.0, -1.0), (1.0, 2.0, 4.0))
    strip = Strip("p", "s", 2.0, curve, (1.0, 2.0), "a")
    assert extremes([strip]) == (-1.0, 4.0)
    text = drawn_strip(strip, "t3", (-1.0, 4.0), {"a": 7}, False)
    bars = [
        (kind, *map(float, found))
        for kind, *found in re.findall(
            r'class="(on|off)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', text
        )
    ]
    assert [one[0] for one in bars] == ["on", "off", "on"]
    assert [one[1] for one in bars] == [0, 75, 150] and [one[3] for one in bars] == [75, 75, 150]
    heights = [one[4] for one in bars]
    assert heights[2] == pytest.approx(2 * heights[0]) == pytest.approx(4 * heights[1])
    # Positive bars end where negative ones begin, at zero.
    zero = bars[1][2]
    assert [one[2] + one[4] for one in (bars[0], bars[2])] == pytest.approx([zero, zero])
    assert 'data-sound="7"' in text and 'href="#t3"' in text and "2.00 s" in text
    assert re.search(r'class="inner" x="150.00" y="0" width="150.00"', text)
    assert "data-sound" not in drawn_strip(replace(strip, sound=None), "t3", (-1.0, 4.0), {}, False)


def test_words_are_as_dark_as_the_neuron_is_active():
    text = shaded_tokens(
        [
            ("<b>", 4.0, False),
            ("x", 2.0, True),
            ("[audio]", float("nan"), False),
            ("y", -1.0, False),
        ],
        4.0,
    )
    shades = re.findall(r"<(\w+) style=\"background:rgba\(0,114,178,([\d.]+)\)\"", text)
    assert shades == [("span", "0.50"), ("mark", "0.25"), ("span", "0.00"), ("span", "0.00")]
    assert "&lt;b&gt;" in text and 'title="2"' in text and text.count("title=") == 3


@pytest.mark.parametrize("demo", ["qwen2-audio", "qwen2-vl", "llava-next"])
def test_tokens_are_put_together_as_the_tokenizer_does(demo):
    tokenizer = mmlens.load(f"demo/{demo}").tokenizer
    ids = tokenizer(
        "is this sound dull or bright? where does it come from?", add_special_tokens=False
    )["input_ids"]
    assert "".join(spaced_texts(tokenizer, ids)) == tokenizer.decode(ids)
    eos = tokenizer.all_special_ids[0]
    found = prompt_tokens(
        tokenizer, [eos, eos, *ids], torch.arange(len(ids) + 2.0), 4, {eos: "[audio]"}
    )
    assert [one[0] for one in found].count("[audio]") == 1
    assert [value for _, value, marked in found if marked] == [4.0]
    assert [v for _, v, _ in found[1:]] == [float(i) for i in range(2, len(ids) + 2)]


def test_frames_stand_where_their_time_is():
    shades = np.array([10, 60, 110, 160, 210])
    frames = np.broadcast_to(shades[:, None, None, None], (5, 20, 30, 3)).astype(np.uint8)
    sheet = np.asarray(contact_sheet(frames))[32, :, 0]
    for i, shade in enumerate(shades):
        assert sheet[int((i + 0.5) * len(sheet) / 5)] == shade
    many = np.broadcast_to(np.arange(100)[:, None, None, None], (100, 8, 8, 3)).astype(np.uint8)
    sheet = np.asarray(contact_sheet(many))[32, :, 0]
    middles = sheet[((np.arange(8) + 0.5) * len(sheet) / 8).astype(int)]
    np.testing.assert_allclose(middles, (np.arange(8) + 0.5) * 100 / 8, atol=1)


def test_cards_of_modalities_show_their_own_positions(model, samples, tmp_path):
    shape = model.module("language").shape
    sets = {
        "text": NeuronSet([(0, 1), (1, 2)], "language", shape),
        "audio": NeuronSet([(0, 1), (2, 3)], "language", shape),
    }
    groups = ("text", "special", "audio")
    out = tmp_path / "cards.html"
    found = neuron_cards(
        model,
        samples,
        sets,
        out,
        groups=groups,
        top_k=3,
        batching=Batching(progress=False),
        per_set=None,
    )
    assert set(found.keys) == set(groups) and found.by == TOKEN_GROUP
    everything = {s.id: model.prepare(s) for s in samples}
    union = NeuronSet(found.neurons, "language", shape)
    acts = {name: activations_of(model, batch, union) for name, batch in everything.items()}
    for n, pair in enumerate(found.neurons.tolist()):
        for group in groups:
            j = found.keys.index(group)
            best = [
                float(acts[name][tuple(pair)][batch.groups.mask(group)[0]].max())
                for name, batch in everything.items()
                if bool(batch.groups.mask(group).any())
            ]
            wanted = sorted(best, reverse=True)[:3]
            np.testing.assert_allclose(found.values[n, j], wanted, rtol=1e-3, atol=1e-4)
            active = torch.cat(
                [
                    acts[name][tuple(pair)][b.groups.mask(group)[0]] > 0
                    for name, b in everything.items()
                ]
            )
            assert float(found.probabilities()[n, j]) == pytest.approx(
                float(active.double().mean())
            )
    text = out.read_text()
    assert re.findall(r'<div class="key(?: own)?">(\w+)</div>', text)[:3] == list(groups)
    assert "per token group" in text
    # A neuron of both sets shows both groups first, and the third below.
    assert text.count("Largest activations elsewhere: special<") == 1
    assert text.count("Largest activations elsewhere: special, audio<") == 1


def test_sets_of_modalities_do_not_hide_examples_by_domain(model, samples, tmp_path):
    shape, out = model.module("language").shape, tmp_path / "cards.html"
    sets = {"text": NeuronSet([(0, 1)], "language", shape)}
    probabilities = torch.rand(*shape, 2, generator=torch.manual_seed(0))
    neuron_cards(
        model, samples, sets, out, probabilities=probabilities, keys=["text", "audio"],
        top_k=2, batching=Batching(progress=False),
    )  # fmt: skip
    shown = re.findall(r'<div class="key(?: own)?">(\w+)</div>', out.read_text())
    assert shown == ["blue", "red"]


def test_bad_groups_are_told(model, samples):
    tower = neurons_of(model, "audio")
    with pytest.raises(SampleError, match="only positions of the language module"):
        top_by_group(model, samples, tower, ("text",))
    with pytest.raises(SampleError, match="No token groups"):
        top_by_group(model, samples, neurons_of(model, "language"), ())
    with pytest.raises(SampleError, match="no token group 'smell'"):
        top_by_group(
            model,
            samples,
            neurons_of(model, "language"),
            ("smell",),
            batching=Batching(progress=False),
        )
