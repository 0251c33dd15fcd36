"""The shipped Qwen2-VL demo: its folder, its data, and that it does what its card says."""

import io
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageSequence

from tests.helpers import demos

DEMO, MODEL = "qwen2-vl", "Qwen2VLForConditionalGeneration"
DOMAINS = {"clothing", "document", "handwriting", "satellite"}
#: The processor cannot be built without its video processor, nor that without torchvision.
needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision")


def frames(part) -> np.ndarray:
    with Image.open(io.BytesIO(part["bytes"])) as file:
        return np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(file)])


def shape(row) -> str:
    """What can be told of a row's media without looking at them."""
    if len(row.videos):
        return f"video {frames(row.videos[0]).shape}"
    return " ".join(str(demos.picture(part).size) for part in row.images)


def prompt(processor, text: str, kind: str, count: int = 1) -> str:
    content = [{"type": kind}] * count + [{"type": "text", "text": text}]
    message = [{"role": "user", "content": content}]
    return processor.apply_chat_template(message, add_generation_prompt=True)


def ask(model, processor, rows: pd.DataFrame, blank: bool = False) -> pd.Series:
    """Greedy answers to some rows, all of one task."""
    kind = "video" if len(rows.videos.iloc[0]) else "image"
    count = 1 if kind == "video" else len(rows.images.iloc[0])
    prompts = [prompt(processor, text, kind, count) for text in rows.text]
    if kind == "video":
        shown = [frames(parts[0]) for parts in rows.videos]
        media = {"videos": [np.full_like(s, 128) if blank else s for s in shown]}
    else:
        pictures = [demos.picture(part) for parts in rows.images for part in parts]
        media = {"images": demos.grey(pictures) if blank else pictures}
    return pd.Series(demos.generated(model, processor, prompts, **media), index=rows.index)


def tasks(table: pd.DataFrame) -> pd.Series:
    moving = table.videos.str.len() > 0
    pair = table.images.str.len() == 2
    return pd.Series(np.select([moving, pair], ["video", "pair"], "picture"), index=table.index)


def test_folder_is_small():
    demos.assert_folder_is_small(DEMO, data_mb=6.5)


def test_architecture(model):
    config = model.config
    text, vision = config.text_config, config.vision_config
    assert text.intermediate_size * text.num_hidden_layers >= 5000
    assert text.num_key_value_heads < text.num_attention_heads
    assert sum(text.rope_parameters["mrope_section"]) * 2 * text.num_attention_heads == 128
    assert (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size) == (8, 2, 2)
    settings = model.generation_config
    assert not settings.do_sample
    assert settings.max_new_tokens == 8


@needs_torchvision
@pytest.mark.parametrize(
    ("size", "count"),
    [((32, 32), 4), ((48, 48), 9), ((64, 32), 8), ((32, 64), 8), ((300, 300), 16)],
)
def test_pictures_have_as_many_tokens_as_their_size_asks(processor, size, count):
    text = prompt(processor, "Is it dark?", "image")
    assert text == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Is it dark?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    inputs = processor(text=text, images=Image.new("RGB", size, (9, 99, 200)), return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    assert ids.count(processor.image_token_id) == count
    assert inputs["mm_token_type_ids"].sum() == count


@needs_torchvision
def test_a_clip_has_tokens_for_two_moments(processor, model):
    clip = np.zeros((4, 32, 48, 3), dtype=np.uint8)
    inputs = processor(
        text=prompt(processor, "Where does it move?", "video"), videos=[clip], return_tensors="pt"
    )
    assert inputs["video_grid_thw"].tolist() == [[2, 4, 6]]
    ids = inputs["input_ids"][0]
    moving = ids == processor.video_token_id
    assert moving.sum() == 12
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], video_grid_thw=inputs["video_grid_thw"]
    )
    axes = positions[:, 0, moving] - positions[0, 0, moving][0]
    assert [sorted(set(axis.tolist())) for axis in axes] == [[0, 1], [0, 1], [0, 1, 2]]


@needs_torchvision
def test_every_word_of_the_data_is_in_the_vocabulary(processor, tables):
    demos.assert_words_are_known(processor.tokenizer, tables.values())


def test_rows(tables):
    demos.assert_rows_are_whole(tables, DOMAINS, "images", "videos")
    for table in tables.values():
        assert set(zip(table.images.str.len(), table.videos.str.len(), strict=True)) == {
            (1, 0),
            (2, 0),
            (0, 1),
        }
        for _, group in table.groupby("question"):  # every question in every domain
            assert set(group.domain) == DOMAINS
    media = tables["test"].assign(task=tasks).groupby(["task", "domain"]).picture.nunique()
    assert media.min() >= 100


def test_splits_share_no_picture_and_no_source(tables):
    demos.assert_splits_share_nothing(tables, "images", "videos")


def test_answers_are_balanced_within_each_domain(tables):
    table = tables["test"].assign(answer=lambda rows: rows.answers.str[0])
    two = table[~table.question.isin(["kind", "content", "first", "second", "color", "motion"])]
    shares = two.groupby(["question", "domain"]).answer.value_counts(normalize=True)
    assert shares.between(0.35, 0.65).all()
    shares = table[table.question == "motion"].groupby("domain").answer.value_counts(normalize=True)
    assert shares.between(0.15, 0.38).all()


def ground(frame: np.ndarray) -> float:
    """The shade behind what moves: the commonest one."""
    values, counts = np.unique(frame, return_counts=True)
    return float(values[counts.argmax()])


def center(frame: np.ndarray) -> np.ndarray:
    """Where the moving thing is: right and down."""
    rows, columns = np.nonzero(np.abs(frame - ground(frame)) > 12)
    return np.array([columns.mean(), rows.mean()])


def test_what_happens_in_a_clip_is_what_is_said(tables):
    """Darker or brighter, and the direction, found in the frames themselves."""
    table = tables["test"].query("question in ('fading', 'motion')").groupby("domain").head(60)
    right = {"fading": [], "motion": []}
    for row in table.itertuples():
        clip = frames(row.videos[0]).astype(float).mean(-1)
        assert len(clip) == 4
        if row.question == "fading":
            found = "brighter" if ground(clip[-1]) > ground(clip[0]) else "darker"
        else:
            x, y = center(clip[-1]) - center(clip[0])
            across, along = ("right" if x > 0 else "left"), ("down" if y > 0 else "up")
            found = across if abs(x) > abs(y) else along
        right[row.question].append(found == row.answers[0])
    assert np.mean(right["fading"]) >= 0.97
    assert np.mean(right["motion"]) >= 0.9


def test_measured_answers_are_true(tables):
    table = tables["test"].query("question in ('light', 'side', 'brighter')")
    for row in table.groupby(["domain", "question"]).head(20).itertuples():
        lights = [
            np.asarray(demos.picture(part).convert("L"), dtype=float) / 255 for part in row.images
        ]
        half = lights[0].shape[1] // 2
        if row.question == "light":
            found = "bright" if lights[0].mean() > 0.5 else "dark"
        elif row.question == "side":
            right = lights[0][:, half:].mean() > lights[0][:, :half].mean()
            found = "right" if right else "left"
        else:
            found = "first" if lights[0].mean() > lights[1].mean() else "second"
        assert found == row.answers[0]


def test_neither_text_nor_geometry_tells_the_domain(tables):
    demos.assert_domain_is_not_told(tables, shape, above_chance=0.05)


def test_card_says_what_is_asked_of_it(card):
    assert card["split"] == "test"
    results = card["results"]
    assert set(results["domain"]) == DOMAINS
    assert set(results["more"]["task"]) == {"picture", "pair", "video"}
    for figures in results["domain"].values():
        demos.assert_figures_convince(figures, ["blank", "black"])
    for figures in results["more"]["task"].values():
        assert figures["accuracy"] >= 0.85


def test_direction_is_read_from_the_order_of_frames(card):
    motion = card["results"]["more"]["question on clips"]["motion"]
    assert motion["accuracy"] >= 0.8
    assert motion["still"] <= 0.45
    assert motion["backward"] <= 0.2


@needs_torchvision
@pytest.mark.parametrize("task", ["picture", "pair", "video"])
def test_accuracy_is_that_of_the_card(model, processor, tables, card, task):
    """Eighty test questions: close to the card, and far above a grey medium's."""
    rows = tables["test"][tasks(tables["test"]) == task].sample(80, random_state=0)
    wanted = rows.answers.str[0]
    right = ask(model, processor, rows) == wanted
    control = (ask(model, processor, rows, blank=True) == wanted).mean()
    demos.assert_as_expected(right, card["results"]["more"]["task"][task]["accuracy"])
    assert right.mean() >= control + 0.2
