"""What is special to Qwen2.5-VL; the checks that all families share are in test_families.py."""

import pytest
import torch
from transformers.vision_utils import get_vision_window_index

import mmlens
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.qwen2_5_vl import Qwen2_5VLAdapter
from tests.helpers.qwen import moves_logits, rows_reached, webp
from tests.tiny import qwen2_5_vl
from tests.tiny.common import picture, video
from tests.tiny.qwen2_vl import MERGE, PATCH

SIZES = [(w, h) for w in (8, 29, 64, 211) for h in (8, 33, 150)]


def ask(*images, text="what is this ?", videos=()):
    return mmlens.Sample("x", text, images, videos)


@pytest.fixture(scope="module")
def model():
    hf = qwen2_5_vl.model()
    return HookedMLLM(hf, qwen2_5_vl.processor(), Qwen2_5VLAdapter(hf))


@pytest.fixture(scope="module")
def mixed(model):
    """A still of several windows, nothing, a clip, a still and a clip."""
    rows = [
        ask(picture(40, 24)),
        ask(),
        ask(videos=(video(4, 40, 32, 3),)),
        ask(picture(24, 40, 1), videos=(video(2, 24, 24, 4),)),
    ]
    return model.prepare(rows)


def test_features_and_lengths(model):
    for width, height in SIZES:
        still, clip = picture(width, height), video(3, height, width)
        samples = [ask(still, videos=(clip,)), ask(), ask(still, picture(8, 8))]
        batch = model.prepare(samples)
        inputs = batch.inputs
        images = model.hf.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        videos = model.hf.get_video_features(
            inputs["pixel_values_videos"], inputs["video_grid_thw"]
        )
        counts = model.adapter.feature_counts(inputs)
        assert counts["image"].tolist() == [len(one) for one in images.pooler_output]
        assert counts["video"].tolist() == [len(one) for one in videos.pooler_output]
        assert model.preparer.lengths(samples, "chat") == batch.groups.attention.sum(-1).tolist()


def test_windows_move_patches_but_not_out_of_their_picture(model, mixed):
    """The tower works in the order of windows; the rows must be those of that order."""
    media = model.media_rows(mixed)
    found = model.adapter.tower_rows("projector", mixed.inputs, media)
    for rows, grid in zip(found, ("image_grid_thw", "video_grid_thw"), strict=True):
        order, _ = get_vision_window_index(
            mixed.inputs[grid], MERGE, qwen2_5_vl.vision_settings()["window_size"], PATCH
        )
        assert not torch.equal(order, torch.arange(len(order)))
        assert torch.equal(rows[order], rows)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_position_belongs_to_the_row_it_reaches(model, mixed, layer):
    assert rows_reached(model, mixed, "vision", layer) == [[0], [], [2], [3]]
    if layer == 0:
        assert rows_reached(model, mixed, "projector") == [[0], [], [2], [3]]


def test_every_layer_is_on_the_path(model, mixed):
    assert model.module("vision").gated and not model.module("projector").gated
    for module in ("vision", "projector"):
        info = model.module(module)
        assert all(info.on_path)
        assert all(moves_logits(model, mixed, module, layer) for layer in range(info.layers))


def test_the_rate_of_a_video_counts(model):
    frames = video(6, 16, 16)
    told = [model.prepare(ask(videos=(webp(frames, rate),))) for rate in (1, 4)]
    silent = model.prepare(ask(videos=(frames,)))
    seconds = [batch.inputs["second_per_grid_ts"].tolist() for batch in (*told, silent)]
    assert seconds == [[2.0], [0.5], [1.0]]
    assert torch.equal(told[0].inputs["pixel_values_videos"], silent.inputs["pixel_values_videos"])
    slow, fast = (model(batch) for batch in told)
    assert not torch.allclose(slow, fast)
