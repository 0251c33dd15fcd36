"""What is special to Qwen3-VL; the checks that all families share are in test_families.py."""

import pytest
import torch

import mmlens
from mmlens.errors import MediaError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.qwen3_vl import Qwen3VLAdapter
from tests.helpers.qwen import moves_logits, rows_reached, tokens_of, webp
from tests.tiny import qwen3_vl
from tests.tiny.common import picture, video
from tests.tiny.qwen2_vl import WORDS

SIZES = [(w, h) for w in (8, 29, 64, 211) for h in (8, 33, 150)]


def spliced(**settings):
    hf = qwen3_vl.model(**settings)
    return HookedMLLM(hf, qwen3_vl.processor(), Qwen3VLAdapter(hf))


def ask(*images, text="what is this ?", videos=()):
    return mmlens.Sample("x", text, images, videos)


@pytest.fixture(scope="module")
def model():
    return spliced()


@pytest.fixture(scope="module")
def mixed(model):
    """A still, nothing, a clip, a still and a clip."""
    rows = [
        ask(picture(40, 24)),
        ask(),
        ask(videos=(video(4, 40, 32, 3),)),
        ask(picture(24, 40, 1), videos=(video(2, 24, 24, 4),)),
    ]
    return model.prepare(rows)


def test_features_and_lengths(model):
    for width, height in SIZES:
        still, clip = picture(width, height), video(5, height, width)
        samples = [ask(still, videos=(clip,)), ask(), ask(still, picture(8, 8))]
        batch = model.prepare(samples)
        inputs = batch.inputs
        images = model.hf.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        videos = model.hf.model.get_video_features(
            inputs["pixel_values_videos"], inputs["video_grid_thw"]
        )
        counts = model.adapter.feature_counts(inputs)
        assert counts["image"].tolist() == [len(one) for one in images.pooler_output]
        assert counts["video"].tolist() == [len(one) for one in videos.pooler_output]
        assert model.preparer.lengths(samples, "chat") == batch.groups.attention.sum(-1).tolist()


def test_lengths_of_videos_are_not_told_by_sizes(model):
    """How many tokens a timestamp has depends on the rate."""
    assert tokens_of(model, model.processor, videos=((4, 16, 16),)) is None
    assert tokens_of(model, model.processor, images=((16, 16),)) == 4


def test_timestamps_are_text(model):
    """Every two frames have their time, the middle of both, and brackets of their own."""
    clip = webp(video(4, 8, 16), 4)
    batch = model.prepare(ask(videos=(clip,)))
    assert model.media_rows(batch) == {"video": [0], "image": []}
    words = [WORDS[token] for token in batch.input_ids[0]]
    frames = [*("<unk>", "<unk>", "<|vision_start|>"), *["<|video_pad|>"] * 2, "<|vision_end|>"]
    start = words.index("user") + 1
    # The pair around all of it is the chat template's.
    assert words[start : start + 14] == ["<|vision_start|>", *frames, *frames, "<|vision_end|>"]
    text = batch.groups.mask("text")[0][start : start + 14].tolist()
    assert text == [word == "<unk>" for word in words[start : start + 14]]
    assert int(batch.groups.mask("video").sum()) == 4


@pytest.mark.parametrize(
    ("rate", "expected"), [(4, ["<0.1 seconds>", "<0.6 seconds>"]), (None, ["<0.2", "<1.2"])]
)
def test_times_follow_the_rate(model, monkeypatch, rate, expected):
    written = []
    tokenizer = type(model.tokenizer)
    call = tokenizer.__call__

    def spy(self, text, *args, **kwargs):
        written.extend(text if isinstance(text, list) else [text])
        return call(self, text, *args, **kwargs)

    monkeypatch.setattr(tokenizer, "__call__", spy)
    frames = video(4, 8, 16)
    model.prepare(ask(videos=(webp(frames, rate) if rate else frames,)))
    assert any(all(time in text for time in expected) for text in written)


def test_a_single_frame_is_no_video(model):
    one = ask(videos=(video(1, 16, 16),))
    with pytest.raises(
        MediaError, match="1 frame, but the model's processor takes no fewer than 2"
    ):
        model.prepare(one)
    assert "1 frame" in model.preparer.lengths([one], "chat")[0]


@pytest.mark.parametrize("module", ["vision", "projector"])
def test_a_position_belongs_to_the_row_it_reaches(model, mixed, module):
    assert rows_reached(model, mixed, module) == [[0], [], [2], [3]]


@pytest.mark.parametrize("deepstack", [(0, 1), (1, 0), (0, 9)])
def test_layers_of_the_projector_are_where_the_decoder_reads_them(deepstack):
    model = spliced(deepstack=deepstack)
    batch = model.prepare(ask(picture(16, 24)))
    layers = model.module("projector").layers
    assert layers == 1 + sum(place < 3 for place in deepstack)
    names = [f"blocks.{i}.hook_resid_{w}" for i in range(3) for w in ("pre", "post")]
    _, plain = model.run_with_cache(batch, names)
    for layer in range(layers):
        silence = (f"projector.blocks.{layer}.mlp.hook_post", lambda tensor, hook: tensor * 0)
        with model.hooks(fwd_hooks=[silence]):
            _, cache = model.run_with_cache(batch, names)
        moved = [name for name in names if not torch.equal(cache[name], plain[name])]
        assert moved == names[names.index(f"blocks.{layer}.hook_resid_pre") :]


def test_every_layer_is_on_the_path(model, mixed):
    for module in ("vision", "projector"):
        info = model.module(module)
        assert all(info.on_path)
        assert all(moves_logits(model, mixed, module, layer) for layer in range(info.layers))


def test_deepstack_beyond_the_decoder_is_off_the_path():
    model = spliced(num_hidden_layers=1)
    batch = model.prepare([ask(picture(16, 24)), ask(videos=(video(2, 16, 16),))])
    assert model.module("projector").on_path == (True, True, False)
    assert [moves_logits(model, batch, "projector", layer) for layer in range(3)] == [
        *(True, True),
        False,
    ]
