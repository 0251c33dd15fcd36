"""What is special to Idefics3 and SmolVLM; the checks all families share are in test_families.py."""

import pytest
import torch

import mmlens
from mmlens.adapter import MediaSizes
from mmlens.data.media.videos import open_video
from mmlens.errors import MediaError, SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.idefics3 import Idefics3Adapter, SmolVLMAdapter
from tests.tiny import idefics3, smolvlm
from tests.tiny.common import picture, video

SIZES = [(h, w) for h in (5, 16, 33, 101) for w in (5, 17, 48, 250)]
KINDS = {"idefics3": (idefics3, Idefics3Adapter), "smolvlm": (smolvlm, SmolVLMAdapter)}


def spliced(kind, processor=None):
    tiny, adapter = KINDS[kind]
    hf = tiny.model()
    return HookedMLLM(hf, processor or tiny.processor(), adapter(hf))


def ask(images=(), videos=(), text="what is this ?"):
    return mmlens.Sample("x", text, tuple(images), tuple(videos))


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return spliced(request.param)


@pytest.fixture(scope="module")
def smol():
    return spliced("smolvlm")


def test_features_are_what_the_connector_gives(model):
    for size in SIZES[::3]:
        batch = model.prepare([ask([picture(*size)]), ask(), ask([picture(9, 9), picture(*size)])])
        given = {k: batch.inputs[k] for k in ("pixel_values", "pixel_attention_mask")}
        features = model.hf.model.get_image_features(**given).pooler_output
        counts = model.adapter.feature_counts(batch.inputs)["image"]
        rows = torch.tensor(model.media_rows(batch)["image"])
        assert (counts == idefics3.FEATURES).all()
        assert [int(counts[rows == row].sum()) for row in range(3)] == [len(f) for f in features]


def test_lengths_from_sizes_alone(model):
    for size in SIZES:
        one = picture(*size)
        samples = [ask([one]), ask([one, picture(20, 9)]), ask()]
        batch = model.prepare(samples)
        assert model.preparer.lengths(samples, "chat") == batch.groups.attention.sum(-1).tolist()
        for sample, count in zip(samples, batch.groups.mask("image").sum(-1).tolist(), strict=True):
            sizes = model.preparer.sizes(sample)
            assert model.adapter.media_tokens(model.processor, sizes) == count


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"longest_edge": 50}},  # no whole number of tiles
        {"size": {"longest_edge": 12}},
        {"size": {"longest_edge": 364}, "max_image_size": {"longest_edge": 91}},
        {"do_resize": False},
        {"do_image_splitting": False},
    ],
)
def test_tiles_of_every_shape(model, settings):
    """The grid is that of the cutting itself, which the processor's own count is not always."""
    images = model.processor.image_processor
    before = {name: getattr(images, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(images, name, value)
        for height, width in [*SIZES, (7, 40), (30, 91), (91, 30), (46, 45), (33, 34)]:
            done = images([picture(width, height)], return_row_col_info=True, return_tensors="pt")
            tiles = done["rows"][0][0] * done["cols"][0][0] + 1
            sizes = MediaSizes(images=((height, width),))
            assert model.adapter.media_tokens(model.processor, sizes) == tiles * idefics3.FEATURES
    finally:
        for name, value in before.items():
            setattr(images, name, value)


def test_groups_of_one_prompt(model):
    batch = model.prepare(ask([picture(48, 20)], text="one dog"))
    words = [idefics3.WORDS[token] for token in batch.input_ids[0]]
    tile = ["<image>"] * idefics3.FEATURES
    mark = "<fake_token_around_image>"
    places = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2, 3)]
    grid = [word for place in places for word in (mark, place, *tile)]
    assert words == [
        *["<|im_start|>", "user", ":", *grid, mark, "<global-img>", *tile, mark],
        *["one", "dog", "<end_of_utterance>", "assistant", ":"],
    ]
    assert batch.groups.mask("image").sum() == 7 * idefics3.FEATURES
    assert batch.groups.mask("special").sum() == 1 + 6 * 2 + 3 + 1
    assert batch.groups.mask("text").sum() == 6


def test_padding_is_no_position_of_the_tower(model):
    batch = model.prepare([ask([picture(48, 20)]), ask([picture(48, 9)]), ask()])
    media = model.media_rows(batch)
    assert media["image"] == [0] * 7 + [1] * 4
    (rows,) = model.adapter.tower_rows("vision", batch.inputs, media)
    assert rows.tolist() == [[row] * 16 for row in media["image"]]  # tiles of padding are gone
    inputs = dict(batch.inputs)
    mask = inputs["pixel_attention_mask"].clone()
    mask[0, 0, :, 5:] = 0  # of the first tile's four columns of patches two are seen, one in part
    inputs["pixel_attention_mask"] = mask
    (rows,) = model.adapter.tower_rows("vision", inputs, media)
    assert rows[0].view(4, 4).tolist() == [[0, 0, -1, -1]] * 4
    assert (rows[1:] >= 0).all()


def test_the_connector_has_no_neurons(model):
    with pytest.raises(
        SampleError, match="'projector' has no neurons here: the connector is a single"
    ):
        model.module("projector")


def test_a_processor_of_another_number_of_features(model):
    kind = model.hf.config.model_type
    processor = KINDS[kind][0].processor()
    processor.image_seq_len = 3
    wrong = spliced(kind, processor)
    with pytest.raises(UnsupportedModelError, match="image placeholder tokens.*features"):
        wrong(wrong.prepare(ask([picture(48, 20)])))


def test_videos_are_the_processor_s_own(smol):
    """Where the processor takes the batch: one video, no pictures."""
    batch = smol.prepare(ask([], [video(3, 32, 24)]))
    prompt = smol.adapter.prompt(ask([], [video(3, 32, 24)]), smol.processor, "chat")
    frames = open_video(video(3, 32, 24)).frames
    theirs = smol.processor(
        text=[prompt], videos=[frames], return_tensors="pt", input_data_format="channels_last"
    )
    assert set(theirs) == set(batch.inputs)
    for name, value in theirs.items():
        assert torch.equal(value, batch.inputs[name]), name


def test_pictures_beside_videos_are_as_without(smol):
    one, clip = picture(48, 9), video(2, 32, 24)
    beside = smol.prepare([ask([one]), ask([one], [clip]), ask()])
    alone = smol.prepare(ask([one]))
    pixels = beside.inputs["pixel_values"]
    assert torch.equal(pixels[0, :4], alone.inputs["pixel_values"][0])
    assert torch.equal(pixels[1, :4], pixels[0, :4])
    assert smol.media_rows(beside)["image"] == [0] * 4 + [1] * 6
    assert beside.groups.mask("image").sum(-1).tolist() == [16, 24, 0]
    ids = alone.input_ids[0].tolist()
    assert beside.input_ids[0][beside.groups.attention[0]].tolist() == ids


def test_a_video_without_frames(smol):
    with pytest.raises(MediaError, match="'x'.*no frames"):
        smol.prepare(ask([], [()]))


def test_idefics3_takes_no_video():
    with pytest.raises(SampleError, match="video media.*takes image only"):
        spliced("idefics3").prepare(ask([], [video(2, 9, 9)]))
