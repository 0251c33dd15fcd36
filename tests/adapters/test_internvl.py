"""What is special to InternVL; the checks that all families share are in test_families.py."""

import pytest
import torch

import mmlens
from mmlens.data.media.videos import open_video
from mmlens.errors import MediaError, SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.expansion import expanded
from mmlens_adapters.internvl import InternVLAdapter
from tests.tiny import internvl as tiny
from tests.tiny.common import picture, video

SIZES = [(h, w) for h in (5, 24, 47, 101) for w in (5, 24, 33, 250)]


def spliced(processor=None, **settings):
    hf = tiny.model(**settings)
    return HookedMLLM(hf, processor or tiny.processor(), InternVLAdapter(hf))


def ask(images=(), videos=(), text="what is this ?"):
    return mmlens.Sample("x", text, tuple(images), tuple(videos))


@pytest.fixture(scope="module")
def model():
    return spliced()


def test_inputs_are_the_processor_s_own(model):
    """Where the processor takes the batch, with equally many frames in its videos."""
    samples = [
        ask([picture(24, 24)]),
        ask([picture(60, 20), picture(5, 9)], [video(2, 9, 9)]),
        ask(),
        ask([], [video(2, 30, 20), video(2, 7, 9, 1)]),
    ]
    batch = model.prepare(samples, padding_side="right")
    prompts = [model.adapter.prompt(one, model.processor, "chat") for one in samples]
    clips = [open_video(clip).frames for one in samples for clip in one.videos]
    theirs = model.processor(
        text=prompts,
        images=[one for sample in samples for one in sample.images],
        videos=clips,
        padding=True,
        padding_side="right",
        return_tensors="pt",
        input_data_format="channels_last",
    )
    assert set(theirs) == set(batch.inputs)
    for name, value in theirs.items():
        assert torch.equal(value, batch.inputs[name]), name


def test_features_are_what_the_projector_gives(model):
    for size in SIZES[::3]:
        one = picture(*size)
        batch = model.prepare([ask([one]), ask([picture(9, 9), one], [video(3, 9, 9)]), ask()])
        features = model.hf.get_image_features(batch.inputs["pixel_values"]).pooler_output
        counts = model.adapter.feature_counts(batch.inputs)["image"].tolist()
        assert counts == [len(tile) for tile in features] == [9] * len(counts)
        tiles = len(counts) - 1 - 3  # one tile for the small picture, three for the frames
        assert model.media_rows(batch) == {"image": [0] * (tiles // 2) + [1] * (tiles // 2 + 4)}


def test_lengths_from_sizes_alone(model):
    for size in SIZES:
        one = picture(*size)
        clips = [video(frames, 9, 12) for frames in (3, 1)]
        samples = [ask([one]), ask([one] * 2), ask([one], clips[:1]), ask([], clips), ask()]
        batch = model.prepare(samples)
        real = batch.groups.attention.sum(-1).tolist()
        assert model.preparer.lengths(samples, "chat") == real
        images = batch.groups.mask("image").sum(-1).tolist()
        for sample, count in zip(samples, images, strict=True):
            sizes = model.preparer.sizes(sample)
            assert model.adapter.media_tokens(model.processor, sizes) == count


def test_groups_of_one_prompt(model):
    batch = model.prepare(ask([picture(48, 24)], [video(2, 20, 20)], "one dog"))
    words = [tiny.WORDS[token] for token in batch.input_ids[0]]
    frame = ["<unk>", "<img>", *["<IMG_CONTEXT>"] * 9, "</img>"]  # Frame1:
    assert words == [
        *["<|im_start|>", "user", "<img>", *["<IMG_CONTEXT>"] * 27, "</img>", *frame, *frame],
        *["one", "dog", "<|im_end|>", "<|im_start|>", "assistant"],
    ]
    assert batch.groups.mask("image").sum() == 27 + 18
    assert batch.groups.mask("video").sum() == 0  # a frame is a tile like any other
    special = batch.groups.mask("special")[0].nonzero()[:, 0].tolist()
    assert special == [0, 2, 30, 32, 42, 44, 54, 57, 58]


@pytest.mark.parametrize(("read", "felt"), [(-1, [1, 1, 1]), (-2, [1, 1, 0]), (1, [1, 0, 0])])
@torch.no_grad()
def test_layers_after_the_last_one_read_cannot_be_felt(read, felt):
    model = spliced(read=read)
    batch = model.prepare([ask([picture(50, 20)]), ask([], [video(2, 20, 20)])])
    plain = model(batch)
    assert list(model.modules["vision"].on_path) == [bool(one) for one in felt]
    for layer, one in enumerate(felt):
        name = f"vision.blocks.{layer}.mlp.hook_post"
        zeroed = model.run_with_hooks(batch, [(name, lambda x, hook: torch.zeros_like(x))])
        assert torch.equal(zeroed, plain) is not bool(one)


def test_a_processor_of_another_number_of_features():
    processor = tiny.processor()
    processor.image_seq_length = 4
    model = spliced(processor)
    with pytest.raises(UnsupportedModelError, match="4 image placeholder tokens.*9 features"):
        model(model.prepare(ask([picture(24, 24)])))


def test_a_template_that_leaves_a_picture_out(model):
    processor = tiny.processor()
    processor.chat_template = "{{ messages[0]['content'][-1]['text'] }}"
    with pytest.raises(SampleError, match="0 places for a medium of kind 'image'.*1 were given"):
        spliced(processor).prepare(ask([picture(24, 24)]))


def test_a_video_without_frames(model):
    with pytest.raises(MediaError, match="'x'.*no frames"):
        model.prepare(ask([], [()]))


def test_another_tower_is_refused():
    hf = tiny.model()
    hf.config.vision_config.model_type = "siglip_vision_model"
    with pytest.raises(UnsupportedModelError, match="'siglip_vision_model'; its adapter knows"):
        InternVLAdapter(hf).towers()


def test_expanded():
    tokens = {"image": "<i>", "video": "<v.>"}
    texts = {"image": ["1<i>", "2"], "video": ["f\\1"]}
    written, orders = expanded(["<v.>", "a", "b<i> <i>"], tokens, texts)
    assert written == ["f\\1", "a", "b1<i> 2"]
    assert orders == [[("video", 0)], [], [("image", 0), ("image", 1)]]
    with pytest.raises(SampleError, match="1 places.*'video'.*but 0 were given"):
        expanded(["<v.>"], tokens, {"image": [], "video": []})
