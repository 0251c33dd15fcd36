"""A batch several times, one behind another: every family, raw media and encoded ones."""

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmlens.errors import SampleError
from tests.adapters.test_families import VARIANTS
from tests.helpers.models import spliced
from tests.tiny import NAMES, family

TIMES = 3


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
@pytest.mark.parametrize("encoded", [False, True])
def test_a_repeated_batch_gives_the_batch_repeated(name, variant, encoded):
    model, samples = spliced(name, variant), family(name).samples()
    batch = model.prepare(samples)
    if encoded:
        batch = model.encode_media(batch)
    many = batch.repeated(TIMES, model.adapter)
    assert (len(many), many.samples) == (TIMES * len(batch), batch.samples * TIMES)
    real = batch.groups.attention
    logits = model(batch)
    for turn, one in enumerate(model(many).split(len(batch))):
        assert (one - logits)[real].abs().max() <= 1e-5, turn
    for group in (*batch.groups.base, "prompt", "last"):
        assert torch.equal(many.groups.mask(group), batch.groups.mask(group).repeat(TIMES, 1))
    alone, together = model.generate(batch, 4), model.generate(many, 4)
    assert torch.equal(together.tokens, alone.tokens.repeat(TIMES, 1))
    # Rows are told apart, or the above would hold for any order of them.
    assert len({tuple(row.tolist()) for row in logits[:, -1].topk(5).indices}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_media_of_a_repeated_batch_belong_to_their_rows(name):
    model = spliced(name)
    batch = model.prepare(family(name).samples())
    many = batch.repeated(2, model.adapter)
    for kind, rows in model.media_rows(batch).items():
        assert model.media_rows(many)[kind] == [*rows, *(len(batch) + row for row in rows)]


def test_what_is_not_of_rows_stays():
    model = spliced("qwen2_vl")
    layers = (None, torch.arange(2.0)[:, None])
    encoded = BaseModelOutputWithPooling(
        pooler_output=(torch.zeros(2, 4), torch.ones(3, 4)), hidden_states=layers
    )
    inputs = {"n": torch.tensor(3), "flag": True, "names": ["a", "b"], "media": {"image": encoded}}
    found = model.adapter.repeated(inputs, 2)
    assert (int(found["n"]), found["flag"], found["names"]) == (3, True, ["a", "b"] * 2)
    again = found["media"]["image"]
    assert isinstance(again, BaseModelOutputWithPooling)
    assert [len(one) for one in again.pooler_output] == [2, 3, 2, 3]
    assert again.hidden_states[0] is None
    assert again.hidden_states[1][:, 0].tolist() == [0, 1, 0, 1]


def test_how_often():
    model = spliced("llava")
    batch = model.prepare(family("llava").samples())
    assert batch.repeated(1, model.adapter) is batch
    with pytest.raises(SampleError, match="once or more often; 0"):
        batch.repeated(0, model.adapter)


@pytest.mark.parametrize("name", ["qwen2_audio", "voxtral"])
def test_sounds_are_encoded_once(name, monkeypatch):
    model, samples = spliced(name), family(name).samples()
    for side in ("left", "right"):
        batch = model.prepare(samples, padding_side=side)
        logits, tokens = model(batch), model.generate(batch, 4).tokens
        encoded = model.encode_media(batch)
        assert "input_features" not in encoded.inputs
        with monkeypatch.context() as patch:
            patch.setattr(model.hf.model.audio_tower, "forward", lambda *a, **k: pytest.fail("ran"))
            real = batch.groups.attention
            assert (model(encoded) - logits)[real].abs().max() <= 1e-5
            assert torch.equal(model.generate(encoded, 4).tokens, tokens)
            assert model.media_rows(encoded) == model.media_rows(batch)
    text = model.prepare([s for s in samples if not s.audios])
    assert "inputs_embeds" not in model.encode_media(text).inputs
