"""What is special to Qwen2-VL; the checks that all families share are in test_families.py."""

import pytest
from transformers import Qwen2VLProcessor

import mmlens
from mmlens.errors import MediaError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.qwen2_vl import Qwen2VLAdapter
from tests.helpers.qwen import moves_logits, rows_reached, tokens_of
from tests.tiny import qwen2_vl
from tests.tiny.common import picture, video

SIZES = [(w, h) for w in (8, 12, 29, 64, 211) for h in (3, 8, 20, 33, 150)]


def spliced(processor=None, **settings):
    hf = qwen2_vl.model(**settings)
    return HookedMLLM(hf, processor or qwen2_vl.processor(), Qwen2VLAdapter(hf))


def ask(*images, text="what is this ?", videos=()):
    return mmlens.Sample("x", text, images, videos)


def other_processor(**visual):
    """A processor of other patches."""
    own = qwen2_vl.visual_processors()
    parts = {name: type(one)(**{**one.to_dict(), **visual}) for name, one in own.items()}
    return Qwen2VLProcessor(
        **parts, tokenizer=qwen2_vl.qwen_tokenizer(), chat_template=qwen2_vl.CHAT
    )


@pytest.fixture(scope="module")
def model():
    return spliced()


@pytest.fixture(scope="module")
def mixed(model):
    """A still, nothing, two stills and a clip, a clip."""
    rows = [
        ask(picture(15, 37)),
        ask(),
        ask(picture(16, 16, 1), picture(33, 9, 2), videos=(video(3, 24, 16, 3),)),
        ask(videos=(video(2, 16, 16, 4),)),
    ]
    return model.prepare(rows)


def test_features_are_what_the_projector_gives(model):
    for width, height in SIZES:
        batch = model.prepare(
            [ask(picture(width, height)), ask(videos=(video(3, width, height), video(2, 9, 9)))]
        )
        inputs = batch.inputs
        images = model.hf.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        videos = model.hf.get_video_features(
            inputs["pixel_values_videos"], inputs["video_grid_thw"]
        )
        counts = model.adapter.feature_counts(inputs)
        assert counts["image"].tolist() == [len(one) for one in images.pooler_output]
        assert counts["video"].tolist() == [len(one) for one in videos.pooler_output]
        assert model.media_rows(batch) == {"image": [0], "video": [1, 1]}


def test_lengths_from_sizes_alone(model):
    for width, height in SIZES:
        still = picture(width, height)
        samples = [
            ask(still),
            ask(still, picture(8, 8)),
            ask(videos=(video(1, width, height),)),
            ask(still, videos=(video(2, width, height), video(5, height, width))),
            ask(),
        ]
        real = model.prepare(samples).groups.attention.sum(-1).tolist()
        assert model.preparer.lengths(samples, "chat") == real


def test_lengths_that_sizes_do_not_tell():
    """A budget of pixels shared among frames is left out of the processor's own count."""
    processor = qwen2_vl.processor()
    processor.video_processor.cap_pixels_per_frame = True
    processor.video_processor.max_video_tokens = 20
    model = spliced(processor)
    clip = ask(videos=(video(8, 40, 40),))
    assert tokens_of(model, processor, videos=((8, 40, 40),)) is None
    assert tokens_of(model, processor, images=((40, 40),)) == 25 - 9  # at most 24 patches
    assert model.preparer.lengths([clip], "chat") == [model.prepare(clip).shape[1]]


def test_groups_of_one_prompt(model):
    batch = model.prepare(ask(picture(16, 24), videos=(video(4, 8, 16),)))
    words = [qwen2_vl.WORDS[token] for token in batch.input_ids[0]]
    assert words == [
        *("<|im_start|>", "<unk>", "answer", "<|im_end|>", "<|im_start|>", "user"),
        *("<|vision_start|>", *["<|image_pad|>"] * 6, "<|vision_end|>"),
        *("<|vision_start|>", *["<|video_pad|>"] * 4, "<|vision_end|>"),
        *("what", "is", "this", "?", "<|im_end|>", "<|im_start|>", "assistant"),
    ]
    special = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
    for group, expected in {
        "image": [w == "<|image_pad|>" for w in words],
        "video": [w == "<|video_pad|>" for w in words],
        "special": [w in special for w in words],
        "text": [not w.startswith("<|") for w in words],
    }.items():
        assert batch.groups.mask(group)[0].tolist() == expected, group
    question = [not t for t in (batch.groups.mask("template") | ~batch.groups.mask("text"))[0]]
    assert [w for w, own in zip(words, question, strict=True) if own] == words[20:24]


def test_special_is_a_list_of_four_tokens(model):
    """The padding token ends texts too, but MINER counts it as text."""
    assert model.adapter.token_ids(model.tokenizer).special == {2, 3, 4, 5}
    assert model.adapter.token_ids(None).special == frozenset()
    assert model.adapter.token_ids(None).placeholders == {"image": 6, "video": 7}


def test_plain_prompts_keep_neighbours_apart(model):
    """M-RoPE needs to know where one picture ends and the next starts."""
    batch = model.prepare(ask(picture(16, 16), picture(16, 16)), template="plain")
    words = [qwen2_vl.WORDS[token] for token in batch.input_ids[0]]
    one = ["<|vision_start|>", *["<|image_pad|>"] * 4, "<|vision_end|>"]
    assert words == [*one, *one, "what", "is", "this", "?"]


@pytest.mark.parametrize("module", ["vision", "projector"])
def test_a_position_belongs_to_the_row_it_reaches(model, mixed, module):
    assert rows_reached(model, mixed, module) == [[0], [], [2], [3]]


def test_rows_of_towers(model, mixed):
    media = model.media_rows(mixed)
    assert media == {"image": [0, 2, 2], "video": [2, 3]}
    stills, clips = model.adapter.tower_rows("vision", mixed.inputs, media)
    grids, video_grids = mixed.inputs["image_grid_thw"], mixed.inputs["video_grid_thw"]
    assert stills.bincount().tolist() == [int(grids[0].prod()), 0, int(grids[1:].prod(-1).sum())]
    assert clips.bincount().tolist() == [0, 0, *video_grids.prod(-1).tolist()]
    assert (stills.diff() >= 0).all()
    merged = model.adapter.tower_rows("projector", mixed.inputs, media)
    assert [len(one) for one in merged] == [len(stills) // 4, len(clips) // 4]
    encoded = model.encode_media(mixed)
    assert model.adapter.tower_rows("vision", encoded.inputs, media) == []


def test_every_layer_is_on_the_path(model, mixed):
    for module in ("vision", "projector"):
        info = model.module(module)
        assert all(info.on_path)
        assert all(moves_logits(model, mixed, module, layer) for layer in range(info.layers))


def test_colours_lie_last_however_small_the_frames(model):
    """Three rows of pixels could be taken for three channels, and the columns for rows."""
    inputs = model.prepare(ask(videos=(video(2, 40, 3),))).inputs
    assert inputs["video_grid_thw"].tolist() == [[1, 2, 8]]


@pytest.mark.parametrize(
    ("visual", "message"),
    [
        ({"patch_size": 8}, "patches of 384 values, but the model reads 96"),
        ({"temporal_patch_size": 4}, "patches of 192 values"),
        ({"merge_size": 1}, "has 16 image placeholder tokens, but its media give 4"),
    ],
)
def test_a_processor_of_another_model(visual, message):
    model = spliced(other_processor(**visual))
    with pytest.raises(UnsupportedModelError, match=message):
        model(model.prepare(ask(picture(16, 16))))


def test_media_that_cannot_be_read(model):
    with pytest.raises(MediaError, match="no frames"):
        model.prepare(ask(videos=([],)))
    for long in (ask(picture(405, 2)), ask(videos=(video(2, 2, 405),))):
        with pytest.raises(MediaError, match="405 by 2 pixels"):
            model.prepare(long)
        assert "405 by 2 pixels" in model.preparer.lengths([long], "chat")[0]
