"""What is special to LLaVA-1.5; the checks that all families share are in test_families.py."""

import pytest
import torch
from transformers import LlavaProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import mmlens
from mmlens.adapter import MediaSizes
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.llava import LlavaAdapter, last_layer_read
from tests.tiny import llava
from tests.tiny.common import picture

SIZES = [(h, w) for h in (7, 16, 24, 40, 101) for w in (5, 24, 33, 250)]


def spliced(processor=None, **settings):
    hf = llava.model(**settings)
    return HookedMLLM(hf, processor or llava.processor(), LlavaAdapter(hf))


def ask(*pictures, text="what is this ?"):
    return mmlens.Sample("x", text, pictures)


@pytest.fixture(scope="module")
def model():
    return spliced()


@pytest.mark.parametrize("settings", [{}, {"tower": "siglip", "read": -1}, {"read": (0, 2)}])
def test_features_are_what_the_projector_gives(settings):
    model = spliced(**settings)
    for size in SIZES[::4]:
        batch = model.prepare([ask(picture(*size)), ask(), ask(picture(9, 9), picture(*size))])
        features = model.hf.get_image_features(batch.inputs["pixel_values"]).pooler_output
        counts = model.adapter.feature_counts(batch.inputs)["image"].tolist()
        assert counts == [len(one) for one in features] == [9, 9, 9]
        assert model.media_rows(batch) == {"image": [0, 2, 2]}


def test_lengths_from_sizes_alone(model):
    for size in SIZES:
        samples = [ask(picture(*size)), ask(picture(8, 8), picture(*size)), ask()]
        real = model.prepare(samples).groups.attention.sum(-1).tolist()
        assert model.preparer.lengths(samples, "chat") == real


@pytest.mark.parametrize("patch", [8, 4, 7])
def test_lengths_without_a_crop(patch):
    """SigLIP's processor stretches instead of cropping."""
    processor = LlavaProcessor(
        image_processor=SiglipImageProcessorPil(size={"height": 24, "width": 32}),
        tokenizer=llava.processor().tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="full",
    )
    made = processor(images=[picture(10, 50)], text=["<image>"])["input_ids"][0]
    adapter = LlavaAdapter(llava.model())
    assert adapter.media_tokens(processor, MediaSizes(images=((50, 10),))) == len(made)
    assert adapter.media_tokens(processor, MediaSizes()) == 0


def test_lengths_that_sizes_do_not_tell(model):
    processor = llava.processor()
    processor.image_processor.do_center_crop = False  # the short side is scaled, the long one free
    assert model.adapter.media_tokens(processor, MediaSizes(images=((50, 10),))) is None


def test_groups_of_one_prompt(model):
    batch = model.prepare(ask(picture(40, 16)))
    words = [llava.WORDS[token] for token in batch.input_ids[0]]
    assert words == [
        "<s>",
        "user",
        ":",
        *["<image>"] * 9,
        *["what", "is", "this", "?", "assistant", ":"],
    ]
    groups = batch.groups
    assert groups.mask("special").tolist() == [[True] + [False] * 17]
    assert groups.mask("image")[0].nonzero()[:, 0].tolist() == list(range(3, 12))
    assert groups.mask("text").sum() == 8
    assert groups.mask("template")[0].nonzero()[:, 0].tolist() == [1, 2, 16, 17]


@pytest.mark.parametrize(
    ("settings", "read"),
    [
        ({}, [True, True, False]),
        ({"read": -3}, [True, False, False]),
        ({"read": (1, -2)}, [True, True, False]),
        ({"read": (0, 1)}, [True, False, False]),
        ({"tower": "siglip", "read": -1}, [True, True, True]),
        ({"tower": "siglip", "read": 2}, [True, True, False]),
    ],
)
@torch.no_grad()
def test_layers_after_the_last_one_read_cannot_be_felt(settings, read):
    model = spliced(**settings)
    batch = model.prepare([ask(picture(24, 24)), ask(picture(15, 37))])
    plain = model(batch)
    assert list(model.modules["vision"].on_path) == read
    for layer, felt in enumerate(read):
        name = f"vision.blocks.{layer}.mlp.hook_post"
        zeroed = model.run_with_hooks(batch, [(name, lambda x, hook: torch.zeros_like(x))])
        assert torch.equal(zeroed, plain) is not felt


def test_last_layer_read():
    assert last_layer_read(-2, 24) == 23
    assert last_layer_read(-1, 24) == last_layer_read(24, 24) == 24
    assert last_layer_read(0, 24) == last_layer_read([0], 24) == 0
    assert last_layer_read([-2, -5, -8, 4], 24) == 23


def test_a_processor_of_another_patch_size():
    processor = llava.processor()
    processor.patch_size = 4
    model = spliced(processor)
    with pytest.raises(UnsupportedModelError, match="36 image placeholder tokens.*patch size"):
        model(model.prepare(ask(picture(24, 24))))


def test_a_video_is_refused(model):
    with pytest.raises(SampleError, match="video media.*takes image only"):
        model.prepare(mmlens.Sample("x", "w1", videos=((picture(8, 8),),)))


def test_another_tower_is_refused():
    hf = llava.model()
    hf.config.vision_config.model_type = "pixtral"
    with pytest.raises(UnsupportedModelError, match="'pixtral'; its adapter knows clip_vision"):
        LlavaAdapter(hf).towers()
