"""Where tokens lie in pictures: painting a part of one changes exactly what is told to lie there."""

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mmlens
from mmlens.data.samples import Sample
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.places import Places, places_of
from mmlens.tokens.places import ROLES, cells, window
from mmlens_adapters.general import GeneralAdapter
from tests.tiny import family
from tests.tiny.common import picture, video

#: Family -> modules whose positions have places, and pixels along a patch's side after resizing.
FAMILIES = {
    "llava": (("language", "vision", "projector"), 8),
    "llava_next": (("language", "vision", "projector"), 8),
    "llava_onevision": (("language", "vision", "projector"), 8),
    "qwen2_vl": (("language", "vision", "projector"), 4),
    "qwen2_5_vl": (("language", "vision", "projector"), 4),
    "qwen3_vl": (("language", "vision", "projector"), 4),
    "qwen2_5_omni": (("language", "vision", "projector"), 4),
    "idefics3": (("language", "vision"), 4),
    "smolvlm": (("language", "vision"), 4),
    "paligemma": (("language", "vision"), 8),
    "gemma3": (("language", "vision"), 4),
    "internvl": (("language", "vision", "projector"), 4),
    "instructblip": (("vision",), 8),
}
VIDEOS = ("llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl")
#: Wide, tall, square, and of sides that divide nothing.
SHAPES = [(240, 240), (400, 160), (151, 373), (611, 433)]
HOOKS = {"language": "blocks.0.hook_resid_pre"}


@cache
def spliced(name):
    """A tiny model whose processor takes the nearest pixel, so that paint does not run."""
    tiny = family(name)
    model = mmlens.splice(tiny.variants[next(iter(tiny.variants))](0), tiny.processor())
    for part in ("image_processor", "video_processor"):
        if hasattr(model.processor, part):
            getattr(model.processor, part).resample = 0
    return model


@contextmanager
def no_mixing(model):
    """Without attention outside the language model, where a position reads its own pixels alone."""
    decoder = set(model.adapter.decoder().model.modules())

    def silent(_module, _args, output):
        first = torch.zeros_like(output[0] if isinstance(output, tuple) else output)
        return (first, *output[1:]) if isinstance(output, tuple) else first

    with ExitStack() as stack:
        for module in model.hf.modules():
            if module not in decoder and type(module).__name__.endswith("Attention"):
                stack.callback(module.register_forward_hook(silent).remove)
        yield


def inputs_of(model, batch, modules):
    """What each module's positions read, in their order: module -> [pass][flat position, width]."""
    seen = {module: [] for module in modules}
    names = {m: HOOKS.get(m, f"{m}.blocks.0.mlp.hook_pre") for m in modules}

    def keep(module):
        return lambda tensor, hook: seen[module].append(tensor.detach().flatten(0, -2).clone())

    with torch.no_grad(), no_mixing(model):
        model.run_with_hooks(batch, [(name, keep(m)) for m, name in names.items()])
    return seen


def painted(image, box):
    """The picture with a rectangle of it inverted."""
    values = np.asarray(image).copy()
    left, top, right, bottom = box
    values[top:bottom, left:right] = 255 - values[top:bottom, left:right]
    return Image.fromarray(values)


def check(places, changed, region, size, patch, medium, kind=0, frame=0, scaled=False):
    """Every position that must have changed has, and no other than may have.

    Features that were scaled down read the four patches around their middle, no more and no less.
    """
    width, height = size
    region = np.array(region) / (width, height, width, height)
    assert len(places) == len(changed)
    some = 0
    for i in range(len(places)):
        role, box = ROLES[places.role[i]], places.boxes[i].numpy()
        here = places.kind[i] == kind and places.medium[i] == medium
        first, end = places.frames[i].tolist()
        if role != "patch" or not here or not first <= frame < end:
            assert not changed[i], (i, role)
            continue
        # Nearest pixels move an edge by less than two of the resized picture's; clipped boxes are
        # of patches as wide as the others of the tile.
        tile = places.boxes[(places.tile == places.tile[i]) & places.are("patch")]
        tile = tile[~tile.isnan().any(-1)].numpy()
        whole = (tile[:, 2:] - tile[:, :2]).max(0)
        inner, outer = (0.6 * whole, 0.4 * whole) if scaled else (1.6 / patch * whole,) * 2
        overlap = np.minimum(box[2:], region[2:]) - np.maximum(box[:2], region[:2])
        if (overlap > inner).all():
            assert changed[i], (i, box, region)
            some += 1
        elif (overlap < -outer).any():
            assert not changed[i], (i, box, region)
    return some


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_painted_pixels_change_what_lies_there(name, shape):
    model, (modules, patch) = spliced(name), FAMILIES[name]
    image = picture(*shape, seed=3)
    sample = Sample("s", "what is this ?", (image,), answers=("a",), domain="red")
    batch = model.prepare(sample)
    plain = inputs_of(model, batch, modules)
    found = dict.fromkeys(modules, 0)
    rng = np.random.default_rng(0)
    for _ in range(3):
        wide, tall = (int(n * rng.uniform(0.2, 0.6)) for n in shape)
        left, top = (int(rng.integers(0, n - m)) for n, m in zip(shape, (wide, tall), strict=True))
        region = (left, top, left + wide, top + tall)
        other = model.prepare(replace(sample, images=(painted(image, region),)))
        for module, passes in inputs_of(model, other, modules).items():
            differ = [(a != b).any(-1) for a, b in zip(passes, plain[module], strict=True)]
            places = places_of(model, batch, 0, module)
            scaled = (name, module) == ("llava_onevision", "language")
            found[module] += check(
                places, torch.cat(differ), region, shape, patch, 0, scaled=scaled
            )
    assert all(found.values()), found


@pytest.mark.parametrize("name", VIDEOS)
def test_painted_frames_change_what_lies_there(name):
    model, (modules, patch) = spliced(name), FAMILIES[name]
    size = (320, 192)
    clips = [video(4, *size, seed) for seed in (1, 2)]
    sample = Sample("s", "what is this ?", videos=tuple(clips), answers=("a",), domain="red")
    batch = model.prepare(sample)
    plain = inputs_of(model, batch, modules)
    some = dict.fromkeys(modules, 0)
    for medium, frame, region in ((0, 1, (10, 20, 200, 150)), (1, 3, (100, 60, 310, 180))):
        changed = [list(clip) for clip in clips]
        changed[medium][frame] = painted(changed[medium][frame], region)
        other = model.prepare(replace(sample, videos=tuple(changed)))
        for module, passes in inputs_of(model, other, modules).items():
            differ = [(a != b).any(-1) for a, b in zip(passes, plain[module], strict=True)]
            places = places_of(model, batch, 0, module)
            scaled = (name, module) == ("llava_onevision", "language")
            some[module] += check(
                places, torch.cat(differ), region, size, patch, medium, 1, frame, scaled
            )
    assert all(some.values()), some


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_a_batch_have_the_places_they_have_alone(name):
    model, (modules, _) = spliced(name), FAMILIES[name]
    samples = family(name).samples()
    batch = model.prepare(samples)
    for row, sample in enumerate(samples):
        alone = model.prepare(sample)
        for module in modules:
            one, other = places_of(model, alone, 0, module), places_of(model, batch, row, module)
            if module == "language":
                padding = ~batch.groups.attention[row]
                assert (other.role[padding] == 0).all()
                other = other[~padding]
                media = batch.groups.stack(("image", "video", "audio")).any(0)[row]
                assert torch.equal(media[~padding], other.role != 0)
            for field in ("boxes", "role", "kind", "medium", "tile", "frames", "seconds"):
                a, b = getattr(one, field), getattr(other, field)
                assert torch.equal(a.nan_to_num(-1.0), b.nan_to_num(-1.0)), (row, module, field)
            boxes = one.boxes[~one.boxes.isnan().any(-1)]
            assert ((boxes >= 0) & (boxes <= 1)).all()


def test_several_pictures_of_a_prompt_are_told_apart():
    model = spliced("llava_next")
    images = (picture(240, 240, 1), picture(500, 160, 2))
    sample = Sample("s", "w1", images, answers=("a",), domain="red")
    plain = inputs_of(model, model.prepare(sample), ("language", "vision"))
    region = (20, 10, 300, 120)
    other = replace(sample, images=(images[0], painted(images[1], region)))
    for module, passes in inputs_of(model, model.prepare(other), ("language", "vision")).items():
        differ = (passes[0] != plain[module][0]).any(-1)
        places = places_of(model, model.prepare(sample), 0, module)
        assert check(places, differ, region, (500, 160), 8, medium=1)


def test_tiles_newlines_and_class_tokens_of_llava_next():
    model = spliced("llava_next")
    sample = Sample("s", "w1", (picture(400, 160),), answers=("a",), domain="red")
    batch = model.prepare(sample)
    places = places_of(model, batch, 0)
    # A canvas of one row of two tiles: 4 patches of the whole, then 2 rows of 4 and a newline each.
    assert (places.tile == 0).sum() == 4
    newlines = places[places.are("newline")]
    assert len(newlines) == 2
    assert torch.equal(newlines.boxes[:, 0], newlines.boxes[:, 2])
    assert torch.allclose(newlines.boxes[:, 0], torch.ones(2))
    tower = places_of(model, batch, 0, "vision")
    assert tower.are("class").nonzero()[:, 0].tolist() == [0, 5, 10]
    # A class token stands for all of its tile.
    assert tower.boxes[0].tolist() == [0, 0, 1, 1]
    assert torch.allclose(tower.boxes[5], torch.tensor([0, 0, 0.5, 1.0]))
    # Each tile's patches cover the picture once.
    for tile in ((0,), (1, 2)):
        one = places[places.are("patch") & torch.isin(places.tile, torch.tensor(tile))].boxes
        assert ((one[:, 2:] - one[:, :2]).prod(-1).sum() - 1).abs() < 1e-5


def test_padding_of_a_tile_lies_nowhere():
    """A picture far from every canvas's shape leaves patches of border alone."""
    model = spliced("llava_next")
    batch = model.prepare(Sample("s", "w1", (picture(600, 90),), answers=("a",), domain="red"))
    tower = places_of(model, batch, 0, "vision")
    language = places_of(model, batch, 0)
    assert tower.boxes[tower.are("padding")].isnan().all()
    patches = tower.are("patch") & (tower.tile > 0)
    assert (tower.boxes[patches][:, 3] > tower.boxes[patches][:, 1]).all()
    assert not language.are("padding").any()


def test_scaled_down_grids_of_llava_onevision_cover_the_picture():
    model = spliced("llava_onevision")
    batch = model.prepare(Sample("s", "w1", (picture(620, 640),), answers=("a",), domain="red"))
    places = places_of(model, batch, 0)
    grid = places[places.are("patch") & (places.tile > 0)].boxes
    plain = places_of(model, batch, 0, "vision")
    assert len(grid) < (plain.tile > 0).sum()  # it was scaled
    assert ((grid[:, 2:] - grid[:, :2]).prod(-1).sum() - 1).abs() < 1e-5


def test_queries_read_the_whole_picture():
    model = spliced("instructblip")
    batch = model.prepare(family("instructblip").samples()[:3])
    for module in ("language", "query"):
        places = places_of(model, batch, 1, module)
        query = places[places.are("query")]
        assert len(query) == 5
        assert query.boxes.tolist() == [[0, 0, 1, 1]] * 5
    text = places_of(model, batch, 1, "qformer")
    assert (text.role == 0).all()
    assert text.boxes.isnan().all()


def test_bad_input_is_told():
    model = spliced("llava_next")
    batch = model.prepare(family("llava_next").samples()[:2])
    with pytest.raises(SampleError, match="no row 2"):
        places_of(model, batch, 2)
    with pytest.raises(SampleError, match=r"model\.prepare"):
        places_of(model, model.as_batch(batch.inputs), 0)
    with pytest.raises(SampleError, match="no neurons"):
        places_of(model, batch, 0, "nonsense")
    plain = GeneralAdapter(model.hf)  # knows a tower, but not where its positions lie
    model = HookedMLLM(model.hf, model.processor, plain, "bridge")
    with pytest.raises(UnsupportedModelError, match="places"):
        places_of(model, model.prepare(family("llava_next").samples()[:1]), 0)


@given(st.integers(1, 6), st.integers(1, 6), st.floats(-0.5, 0.4), st.floats(0.6, 1.5))
def test_cells_divide_a_box(rows, columns, low, high):
    found = cells(rows, columns, (low, 0.0, high, 1.0)).numpy()
    for number, (left, top, right, bottom) in enumerate(found):
        row, column = divmod(number, columns)
        assert np.isclose(left, low + (high - low) * column / columns, atol=1e-6)
        assert np.isclose(right, low + (high - low) * (column + 1) / columns, atol=1e-6)
        assert np.isclose((top, bottom), (row / rows, (row + 1) / rows), atol=1e-6).all()


def test_clipping_marks_padding_only_where_nothing_is_left():
    boxes = torch.tensor([window((10, 10), (-4, 0), (8, 10)), window((10, 10), (-8, 0), (8, 10))])
    places = Places.of(boxes).clipped()
    assert places.are("patch").tolist() == [True, False]
    assert places.boxes[0].tolist() == pytest.approx([0, 0, 1, 0.4])
    assert places.boxes[1].isnan().all()
    assert places.are("padding").tolist() == [False, True]
