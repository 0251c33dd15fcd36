"""Neuron cards: what the page shows is what was found, and it needs nothing beside it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

import mmlens
from mmlens.cards.card import Card, CardPage, Entry
from mmlens.cards.entries import EntryMaker, words_around
from mmlens.cards.neuron_cards import card_page, chosen_of, neuron_cards
from mmlens.cards.page import render
from mmlens.data.media.pictures import open_picture
from mmlens.data.media.thumbnails import data_uri
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.places import places_of
from mmlens.neurons import NeuronSet
from mmlens.statistics.top_activations import bin_edges
from mmlens.streaming.batching import Batching
from mmlens.streaming.top import top_activations
from mmlens.tokens.text import token_text
from mmlens_adapters.general import GeneralAdapter
from tests.helpers.models import spliced
from tests.tiny import family
from tests.tiny.common import picture, video


class Parsed(HTMLParser):
    """Ids, references and attributes of a page, and the text of its cards."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag, name):
        return [attrs[name] for one, attrs in self.tags if one == tag and name in attrs]


def sets_of(model, module):
    shape = model.module(module).shape
    return {
        "red": NeuronSet([(0, 1), (1, 2), (2 % shape[0], 5)], module, shape),
        "blue": NeuronSet([(0, 1), (1 % shape[0], 9)], module, shape),
    }


@pytest.mark.parametrize("module", ["language", "vision"])
def test_page_shows_what_was_found(mistral_model, samples, tmp_path, module):
    sets, out = sets_of(mistral_model, module), tmp_path / "cards.html"
    found = neuron_cards(
        mistral_model, samples, sets, out, top_k=3, batching=Batching(progress=False)
    )
    page = Parsed(out.read_text())
    cards = [attrs for tag, attrs in page.tags if tag == "article"]
    assert [(int(c["data-layer"]), int(c["data-index"])) for c in cards] == list(
        map(tuple, found.neurons.tolist())
    )
    for card, pair in zip(cards, found.neurons.tolist(), strict=True):
        wanted = [name for name, one in sets.items() if tuple(pair) in one]
        assert json.loads(card["data-labels"]) == wanted
    # Pictures are inside, each once, and everything referred to is there.
    images = page.all("image", "href")
    assert all(one.startswith("data:image/") for one in images)
    assert len(images) == len(set(images))
    ids = {f"#{one}" for one in page.all("image", "id")}
    assert set(page.all("use", "href")) <= ids
    assert not re.search(r"(src|href)=\"https?:", out.read_text())
    # Every activation that was found is written, with its probability.
    shown = re.findall(r'<p class="value">(\S+) ', out.read_text())
    values = found.values[found.values > -torch.inf]
    assert len(shown) == len(values)
    assert sorted(map(float, shown)) == pytest.approx(sorted(values.tolist()), rel=6e-3)
    percents = [float(x) for x in re.findall(r"<b>([\d.]+)%</b>", out.read_text())]
    assert percents == pytest.approx((100 * found.probabilities()).flatten().tolist(), abs=0.051)
    assert ("Promotes" in page.text) == (module == "language")


def test_entries_mark_the_patch_that_was_most_active(mistral_model, samples):
    """The box of each entry is that of the position; its crop is cut where the box says."""
    pictures = [s for s in samples if len(s.images) == 1]
    neurons = sets_of(mistral_model, "vision")["red"]
    found = top_activations(
        mistral_model, pictures, neurons, k=4, batching=Batching(progress=False)
    )["vision"]
    maker = EntryMaker(mistral_model, "vision", "auto")
    named = {s.id: s for s in pictures}
    entries = maker.entries(found, named)
    marked = 0
    for (n, j), listed in entries.items():
        assert [e.value for e in listed] == [v for v in found.values[n, j].tolist() if v > -np.inf]
        for rank, entry in enumerate(listed):
            sample = named[entry.sample]
            position = int(found.positions[n, j, rank])
            places = places_of(mistral_model, mistral_model.prepare(sample), 0, "vision")
            image = open_picture(sample.images[0])
            assert entry.picture is not None
            assert np.array_equal(maker.pictures[entry.picture], image)
            if not places.are("patch")[position]:
                assert entry.crop is None
                continue
            assert entry.box == tuple(places.boxes[position].tolist())
            name, inside = entry.crop
            left, top, right, bottom = (int(x) for x in name.split(":")[1].split(","))
            wanted = image.crop((left, top, right, bottom))
            assert np.array_equal(maker.crops[name], wanted)
            back = (
                (left + inside[0] * (right - left)) / image.width,
                (top + inside[1] * (bottom - top)) / image.height,
                (left + inside[2] * (right - left)) / image.width,
                (top + inside[3] * (bottom - top)) / image.height,
            )
            assert back == pytest.approx(entry.box, abs=1e-6)
            marked += 1
    assert marked


def test_text_is_marked_in_its_sentence(mistral_model):
    samples = [
        Sample("a", "w1 w2 dog w3", answers=("a",), domain="red"),
        Sample("b", "w4 w5 w6 cat w7", (picture(16, 16),), answers=("b",), domain="red"),
    ]
    shape = mistral_model.module("language").shape
    neurons = NeuronSet([(0, i) for i in range(shape[1])], "language", shape)
    found = top_activations(
        mistral_model,
        samples,
        neurons,
        k=30,
        distinct="position",
        group="text",
        batching=Batching(progress=False),
    )["language"]
    entries = EntryMaker(mistral_model, "language", "auto").entries(
        found, {s.id: s for s in samples}
    )
    seen = set()
    for n in range(shape[1]):
        for rank, entry in enumerate(entries[n, 0]):
            sample = next(s for s in samples if s.id == entry.sample)
            ids = mistral_model.prepare(sample).input_ids[0].tolist()
            token = mistral_model.tokenizer.convert_ids_to_tokens(
                ids[int(found.positions[n, 0, rank])]
            )
            assert entry.words is not None
            assert entry.words[1].strip() == token
            assert token != "<image>"
            text = "".join(entry.words).replace("\u2026", " ").replace("[image]", " ")
            asked = mistral_model.tokenizer.decode(ids).replace("<image>", " ")
            assert " ".join(text.split()) in " ".join(asked.split())
            assert (entry.picture is None) == (not sample.images)
            seen.add(entry.words[1].strip())
    assert {"dog", "cat"} <= seen


def test_sentences_are_put_together_again():
    tokenizer = mmlens.load("demo/llava-next").tokenizer
    ids = tokenizer("is this picture dark or bright?")["input_ids"]
    image = tokenizer.convert_tokens_to_ids("<image>")
    for position in range(len(ids)):
        before, token, after = words_around(tokenizer, ids, position, {})
        assert before + token + after == tokenizer.decode(ids)
    long = [image] * 9 + ids * 6
    before, token, after = words_around(tokenizer, long, 20, {image: "[image]"})
    assert before.startswith("\u2026") and after.endswith("\u2026")
    assert words_around(tokenizer, [image, image, *ids], 3, {image: "[image]"})[0].startswith(
        "[image]"
    )
    assert "[image] [image]" not in words_around(tokenizer, long, 10, {image: "[image]"})[0]
    assert token_text(tokenizer, ids[-1]).strip("\u2423") == "?"


@pytest.mark.parametrize(
    ("name", "module", "wanted"),
    [
        ("qwen2_vl", "language", r"frame"),
        ("qwen2_vl", "vision", r"frame"),
        ("instructblip", "query", r"query \d+, reads the whole picture"),
        ("instructblip", "qformer", r"text"),
        ("qwen2_audio", "audio", r"^\d\.\d\d to \d\.\d\d s of the sound$"),
        ("qwen2_audio", "language", r"^\d\.\d\d to \d\.\d\d s of sound 2$"),
    ],
)
def test_every_kind_of_position_is_told(name, module, wanted, tmp_path):
    tiny = family(name)
    model = spliced(name)
    shape = model.module(module).shape
    neurons = NeuronSet([(0, i) for i in range(0, shape[1], 3)], module, shape)
    out = tmp_path / "cards.html"
    samples = tiny.samples()
    if name == "qwen2_vl":
        samples = [
            Sample(f"v{i}", "w1", videos=(video(4, 24, 16, i),), domain="red") for i in range(3)
        ]
    neuron_cards(
        model, samples, neurons, out, per_set=None, top_k=4, batching=Batching(progress=False)
    )
    said = re.findall(r'<span class="soft">([^<]*)</span></p>', out.read_text())
    assert any(re.search(wanted, one) for one in said), set(said)


def test_positions_without_places_are_counted(tmp_path):
    """Under the general adapter, which knows no places."""
    tiny = family("qwen2_audio")
    hf = tiny.variants["qwen2"](0)
    model = HookedMLLM(hf, tiny.processor(), GeneralAdapter(hf), "bridge")
    shape, out = model.module("language").shape, tmp_path / "cards.html"
    neurons = NeuronSet([(0, i) for i in range(0, shape[1], 3)], "language", shape)
    neuron_cards(
        model, tiny.samples()[:4], neurons, out, per_set=None, batching=Batching(progress=False)
    )
    said = re.findall(r'<span class="soft">([^<]*)</span></p>', out.read_text())
    assert any(re.search(r"audio token \d+ of \d+", one) for one in said), set(said)
    assert "data-sound" not in out.read_text()


def page_of(pictures, side):
    images = {str(i): picture(side, side, i) for i in range(pictures)}
    entry = Entry(1.5, "s", "<b>what?</b>", ("<i>",), "text", "0", (0.0, 0.0, 0.5, 0.5))
    counts = torch.zeros((1, len(bin_edges()) + 1), dtype=torch.long)
    card = Card("vision", 0, 1, ("a|b",), (float("nan"),), counts, {"a|b": (entry,)})
    return CardPage("<t>", ("about",), ("a|b",), "domain", (card,), images, {})


def test_pictures_shrink_until_the_page_is_small_enough():
    page = page_of(8, 220)
    whole = len(render(page))
    small = render(page, max_bytes=60_000)
    assert len(small) < 0.5 * whole
    assert small.count("data:image/jpeg") + small.count("data:image/png") == 8


def test_what_comes_from_data_is_escaped_and_missing_numbers_are_said():
    text = render(page_of(1, 20))
    assert "<b>what?" not in text and "&lt;b&gt;what?" in text
    assert "<title>&lt;t&gt;</title>" in text
    assert "<b>none</b>" in text
    assert json.loads(
        dict(Parsed(text).tags[[t for t, _ in Parsed(text).tags].index("article")][1])[
            "data-labels"
        ]
    ) == ["a|b"]


def test_tiny_pictures_lose_nothing():
    import base64
    import io

    image = picture(30, 20, 1)
    kind, data = data_uri(image).split(",")
    assert "png" in kind
    assert np.array_equal(Image.open(io.BytesIO(base64.b64decode(data))), image)


def test_neurons_of_a_large_set_are_chosen_as_said():
    shape = (3, 10)
    neurons = NeuronSet([(a, b) for a in range(3) for b in range(10)], "language", shape)
    probabilities = torch.rand(3, 10, 2, generator=torch.manual_seed(0))
    found = chosen_of(neurons, "blue", probabilities, ["red", "blue"], 4)
    wanted = sorted(neurons, key=lambda p: -float(probabilities[p[0], p[1], 1]))[:4]
    assert sorted(found) == sorted(wanted)
    spread = list(chosen_of(neurons, "all", probabilities, ["red", "blue"], 3))
    assert spread[0] == (0, 0) and spread[-1] == (2, 9)
    assert chosen_of(neurons, "blue", None, None, None) == neurons


def test_bad_input_is_told(mistral_model, samples, tmp_path):
    out, shape = tmp_path / "x.html", mistral_model.module("language").shape
    vision = NeuronSet([(0, 0)], "vision", mistral_model.module("vision").shape)
    language = NeuronSet([(0, 0)], "language", shape)
    with pytest.raises(SampleError, match="one module"):
        neuron_cards(mistral_model, samples, {"a": vision, "b": language}, out)
    with pytest.raises(SampleError, match="no cards"):
        neuron_cards(mistral_model, samples, NeuronSet([], "language", shape), out)
    found = top_activations(mistral_model, samples, language, batching=Batching(progress=False))[
        "language"
    ]
    with pytest.raises(SampleError, match="not among the samples"):
        card_page(mistral_model, samples[:1], replace(found), {"": language})
    assert not out.exists()
