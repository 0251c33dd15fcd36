"""What is special to Gemma 3; the checks that all families share are in test_families.py."""

import pytest
import torch

import mmlens
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.gemma3 import Gemma3Adapter
from tests.tiny import gemma3 as tiny
from tests.tiny.common import picture


def spliced(processor=None, **text):
    hf = tiny.model(**text)
    return HookedMLLM(hf, processor or tiny.processor(), Gemma3Adapter(hf))


def ask(*pictures, text="what is this ?"):
    return mmlens.Sample("x", text, pictures)


@pytest.fixture(scope="module")
def model():
    return spliced()


def test_features_and_lengths(model):
    for size in [(5, 250), (24, 24), (33, 7), (101, 100)]:
        samples = [ask(picture(*size)), ask(), ask(picture(9, 9), picture(*size), text="w1 w2")]
        batch = model.prepare(samples)
        features = model.hf.get_image_features(batch.inputs["pixel_values"]).pooler_output
        counts = model.adapter.feature_counts(batch.inputs)["image"].tolist()
        assert counts == [len(one) for one in features] == [9, 9, 9]
        assert model.media_rows(batch) == {"image": [0, 2, 2]}
        for template in ("chat", "plain"):
            made = model.prepare(samples, template=template).groups.attention.sum(-1).tolist()
            assert model.preparer.lengths(samples, template) == made
        sizes = model.preparer.sizes(samples[2])
        assert model.adapter.media_tokens(model.processor, sizes) == 18


def test_groups_of_one_prompt(model):
    """The start token stands once, though the template and the tokenizer both write it."""
    batch = model.prepare(ask(picture(24, 24), text="one dog"))
    words = [tiny.WORDS[token] for token in batch.input_ids[0]]
    image = ["<start_of_image>", *["<image_soft_token>"] * 9, "<end_of_image>"]
    assert words == [
        *["<bos>", "<start_of_turn>", "user", *image, "one", "dog", "<end_of_turn>"],
        *["<start_of_turn>", "assistant"],
    ]
    assert batch.groups.mask("image")[0].nonzero()[:, 0].tolist() == list(range(4, 13))
    special = batch.groups.mask("special")[0].nonzero()[:, 0].tolist()
    assert special == [0, 1, 3, 13, 16, 17]


@torch.no_grad()
def test_a_picture_attends_in_both_directions(model):
    """Its first feature sees a change of its last; text before it does not."""
    batch = model.prepare(ask(picture(24, 24)))
    other = {**batch.inputs, "pixel_values": batch.inputs["pixel_values"].clone()}
    other["pixel_values"][..., 16:, 16:] = 0
    without = {k: v for k, v in batch.inputs.items() if k != "token_type_ids"}
    changed = (model(other) - model(batch))[0].abs().amax(-1)
    assert (changed[4:13] > 1e-4).all() and (changed[:4] == 0).all()
    assert not torch.allclose(model(without), model(batch))


@torch.no_grad()
def test_the_window_matters(model):
    batch = model.prepare(ask(picture(24, 24)))
    assert not torch.allclose(spliced(sliding_window=512)(batch), model(batch))


@torch.no_grad()
def test_every_layer_can_be_felt(model):
    batch = model.prepare(ask(picture(24, 24)))
    plain = model(batch)
    for layer in range(3):
        name = f"vision.blocks.{layer}.mlp.hook_post"
        zeroed = model.run_with_hooks(batch, [(name, lambda x, hook: torch.zeros_like(x))])
        assert not torch.allclose(zeroed, plain)


def test_pan_and_scan():
    processor = tiny.processor()
    processor.images_kwargs = {
        **processor.images_kwargs,
        "do_pan_and_scan": True,
        "pan_and_scan_min_crop_size": 8,
    }
    model = spliced(processor)
    samples = [ask(picture(80, 20)), ask(picture(20, 20))]
    batch = model.prepare(samples)
    assert model.media_rows(batch) == {"image": [0, 0, 0, 0, 0, 1]}
    assert model.preparer.lengths(samples, "chat") == batch.groups.attention.sum(-1).tolist()
    theirs = model.hf(**batch.inputs).logits
    assert (model(batch) - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_the_projector_has_no_neurons(model):
    with pytest.raises(SampleError, match="'projector' has no neurons here: Gemma 3's projector"):
        model.module("projector")


def test_a_processor_of_another_number_of_features():
    processor = tiny.processor()
    processor.full_image_sequence = "\n<start_of_image><image_soft_token><end_of_image>\n"
    model = spliced(processor)
    with pytest.raises(UnsupportedModelError, match="1 image placeholder tokens.*9 features"):
        model(model.prepare(ask(picture(24, 24))))
