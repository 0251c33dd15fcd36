"""What is special to LLaVA-OneVision; the checks that all families share are in test_families.py."""

import numpy as np
import pytest
import torch

import mmlens
from mmlens.errors import MediaError, SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.llava_onevision import LlavaOnevisionAdapter, evenly
from tests.tiny import llava_onevision as tiny
from tests.tiny.common import picture, video

SIZES = [(h, w) for h in (5, 16, 24, 47, 72, 101) for w in (5, 23, 24, 33, 80, 250)]


def spliced(processor=None, **settings):
    hf = tiny.model(**settings)
    return HookedMLLM(hf, processor or tiny.processor(), LlavaOnevisionAdapter(hf))


def ask(images=(), videos=(), text="what is this ?"):
    return mmlens.Sample("x", text, tuple(images), tuple(videos))


@pytest.fixture(scope="module")
def model():
    return spliced()


def test_features_are_what_the_projector_gives(model):
    """Alone a picture is cut into tiles, among others it is one; both in one batch."""
    for size in SIZES[::5]:
        one = picture(*size)
        batch = model.prepare([ask([one]), ask([one, picture(9, 9)]), ask(), ask([one])])
        given = {k: v for k, v in batch.inputs.items() if "mask" not in k and k != "input_ids"}
        features = model.hf.model.get_image_features(**given).pooler_output
        counts = model.adapter.feature_counts(batch.inputs)["image"].tolist()
        assert counts == [len(f) for f in features]
        assert counts[1:3] == [10, 10]  # 3 x 3 patches and a newline
        assert model.media_rows(batch)["image"] == [0, 1, 1, 3]


def test_many_features_are_scaled_down(model):
    """Four by four tiles of nine patches would give 144 and 12 newlines; two tiles' worth are left."""
    batch = model.prepare(ask([picture(96, 96)]))
    side = int(12 // np.sqrt(12 * 12 / (2 * 9)))
    assert model.adapter.feature_counts(batch.inputs)["image"].tolist() == [9 + side * (side + 1)]


def test_lengths_from_sizes_alone(model):
    for size in SIZES:
        one = picture(*size)
        clips = [video(frames, 9, 12) for frames in (2, 2)]
        samples = [ask([one]), ask([one] * 2), ask([one], clips[:1]), ask([], clips), ask()]
        real = model.prepare(samples).groups.attention.sum(-1).tolist()
        assert model.preparer.lengths(samples, "chat") == real


def test_features_of_videos(model):
    batch = model.prepare([ask([], [video(4, 30, 20)]), ask([], [video(4, 7, 9, 1)] * 2)])
    features = model.hf.model.get_video_features(batch.inputs["pixel_values_videos"]).pooler_output
    counts = model.adapter.feature_counts(batch.inputs)["video"].tolist()
    assert counts == [len(one) for one in features] == [4 * 2 * 2 + 1] * 3
    assert model.media_rows(batch) == {"image": [], "video": [0, 1, 1]}


def test_evenly_spaced_frames():
    assert evenly(8, 4) == [0, 2, 4, 6]
    assert evenly(3, None) == [0, 1, 2]
    assert evenly(2, 5) == [0, 0, 0, 1, 1]
    assert evenly(100, 1) == [0]


@torch.no_grad()
def test_videos_of_different_lengths():
    clips = [video(5, 30, 20), video(2, 7, 9, 1), video(3, 24, 24, 2)]
    model = spliced(tiny.processor(frames=3))
    samples = [ask([], [one]) for one in clips]
    batch = model.prepare(samples)
    assert model.adapter.feature_counts(batch.inputs)["video"].tolist() == [13] * 3
    assert model.preparer.lengths(samples, "chat") == batch.groups.attention.sum(-1).tolist()
    chosen = [[clips[0][i] for i in (0, 1, 3)], [clips[1][i] for i in (0, 0, 1)], clips[2]]
    same = spliced().prepare([ask([], [one]) for one in chosen])
    assert torch.equal(batch.inputs["pixel_values_videos"], same.inputs["pixel_values_videos"])
    with pytest.raises(SampleError, match="2 and 3 and 5 frames.*num_frames"):
        spliced().prepare(samples)


def test_groups_of_one_prompt(model):
    batch = model.prepare(ask([picture(24, 24)], [video(2, 20, 20)], "one dog"))
    words = [tiny.WORDS[token] for token in batch.input_ids[0]]
    # A base tile and one tile of the grid, whose three rows end with a newline each.
    assert words == [
        *["<|im_start|>", "user", *["<image>"] * (9 + 12), *["<video>"] * (2 * 4 + 1)],
        *["one", "dog", "<|im_end|>", "<|im_start|>", "assistant"],
    ]
    groups = batch.groups
    assert groups.mask("image")[0].nonzero()[:, 0].tolist() == list(range(2, 23))
    assert groups.mask("video")[0].nonzero()[:, 0].tolist() == list(range(23, 32))
    assert groups.mask("special")[0].nonzero()[:, 0].tolist() == [0, 34, 35]
    assert groups.mask("template")[0].nonzero()[:, 0].tolist() == [1, 36]


@pytest.mark.parametrize(("read", "felt"), [(-1, [1, 1, 1]), (-2, [1, 1, 0]), ([0, 1], [1, 0, 0])])
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


def test_tower_runs_on_pictures_then_on_videos(model):
    batch = model.prepare([ask([picture(48, 24)]), ask([picture(9, 9)] * 2, [video(3, 9, 9)])])
    rows = model.adapter.tower_rows("vision", batch.inputs, model.media_rows(batch))
    # The first picture: a base tile and two of the grid; the padding tiles of the others are gone.
    assert [one[:, 0].tolist() for one in rows] == [[0, 0, 0, 1, 1], [1, 1, 1]]
    assert [one.shape[1] for one in rows] == [9, 9]
    clips = model.prepare(ask([], [video(3, 9, 9)]))
    assert len(model.adapter.tower_rows("vision", clips.inputs, model.media_rows(clips))) == 1


def test_a_processor_of_another_size():
    processor = tiny.processor()
    processor.num_image_tokens = 16
    model = spliced(processor)
    with pytest.raises(UnsupportedModelError, match="image placeholder tokens.*patch size"):
        model(model.prepare(ask([picture(24, 24)])))


def test_a_video_of_more_frames_than_the_prompt_has_places_for(model):
    inputs = dict(model.prepare(ask([], [video(2, 9, 9)])).inputs)
    longer = model.prepare(ask([], [video(3, 9, 9)])).inputs["pixel_values_videos"]
    with pytest.raises(UnsupportedModelError, match="9 video placeholder tokens.*13 features"):
        model({**inputs, "pixel_values_videos": longer})


def test_a_video_without_frames(model):
    with pytest.raises(MediaError, match="'x'.*no frames"):
        model.prepare(ask([], [()]))
