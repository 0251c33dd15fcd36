"""What is special to PaliGemma; the checks that all families share are in test_families.py."""

import pytest
import torch

import mmlens
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.paligemma import PaliGemmaAdapter
from tests.tiny import paligemma as tiny
from tests.tiny.common import picture


def spliced(decoder="gemma", processor=None):
    hf = tiny.model(decoder)
    return HookedMLLM(hf, processor or tiny.processor(), PaliGemmaAdapter(hf))


def ask(*pictures, text="what is this ?"):
    return mmlens.Sample("x", text, pictures)


@pytest.fixture(scope="module")
def model():
    return spliced()


def test_features_and_lengths(model):
    for size in [(5, 250), (24, 24), (33, 7), (101, 100)]:
        samples = [ask(picture(*size)), ask(picture(9, 9), picture(*size), text="w1 w2")]
        batch = model.prepare(samples)
        features = model.hf.get_image_features(batch.inputs["pixel_values"]).pooler_output
        counts = model.adapter.feature_counts(batch.inputs)["image"].tolist()
        assert counts == [len(one) for one in features] == [9, 9, 9]
        assert model.media_rows(batch) == {"image": [0, 1, 1]}
        assert model.preparer.lengths(samples, "plain") == batch.groups.attention.sum(-1).tolist()
        sizes = model.preparer.sizes(samples[1])
        assert model.adapter.media_tokens(model.processor, sizes) == 18


def test_the_prompt_is_pictures_start_token_and_question(model):
    batch = model.prepare(ask(picture(24, 24), picture(9, 9), text="one dog"))
    words = [tiny.WORDS[token] for token in batch.input_ids[0]]
    assert words == [*["<image>"] * 18, "<bos>", "one", "dog"]  # this tokenizer has no line breaks
    assert batch.groups.mask("special")[0].nonzero()[:, 0].tolist() == [18]
    assert batch.groups.mask("text")[0].nonzero()[:, 0].tolist() == [19, 20]


@torch.no_grad()
def test_the_prefix_attends_in_both_directions(model):
    batch = model.prepare(ask(picture(24, 24), text="w1 w2 w3"))
    assert "labels" not in batch.inputs
    other = batch.inputs["input_ids"].clone()
    other[0, -1] = tiny.WORDS.index("w4")
    difference = model({**batch.inputs, "input_ids": other}) - model(batch)
    assert difference[0, 0].abs().max() > 1e-3  # the first position sees the last
    causal = {**batch.inputs, "token_type_ids": torch.ones_like(other)}
    difference = model({**causal, "input_ids": other}) - model(causal)
    assert (difference[0, :-1] == 0).all()


@pytest.mark.parametrize("decoder", ["gemma", "gemma2"])
@torch.no_grad()
def test_every_layer_can_be_felt(decoder):
    model = spliced(decoder)
    batch = model.prepare(ask(picture(24, 24)))
    plain = model(batch)
    for layer in range(3):
        name = f"vision.blocks.{layer}.mlp.hook_post"
        zeroed = model.run_with_hooks(batch, [(name, lambda x, hook: torch.zeros_like(x))])
        assert not torch.allclose(zeroed, plain)


def test_the_projector_has_no_neurons(model):
    with pytest.raises(SampleError, match="'projector' has no neurons here: PaliGemma's projector"):
        model.module("projector")


def test_a_question_without_a_picture(model):
    with pytest.raises(SampleError, match="'x' has no picture"):
        model.prepare([ask(picture(9, 9)), ask()])


def test_a_processor_of_another_number_of_features():
    processor = tiny.processor()
    processor.image_seq_length = 4
    model = spliced(processor=processor)
    with pytest.raises(UnsupportedModelError, match="4 image placeholder tokens.*9 features"):
        model(model.prepare(ask(picture(24, 24))))
