"""The shipped demo model: its folder, its data, and that it does what its card says."""

import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

import mmlens
from tests.helpers import demos

DEMO, MODEL = "llava-next", "LlavaNextForConditionalGeneration"


def picture_of(row) -> Image.Image:
    return demos.picture(row.images[0])


def ask(model, processor, texts, images) -> list[str]:
    """Greedy answers, through the chat template and one batched `generate`."""
    prompts = []
    for text in texts:
        content = [{"type": "image"}, {"type": "text", "text": text}]
        message = [{"role": "user", "content": content}]
        prompts.append(processor.apply_chat_template(message, add_generation_prompt=True))
    return demos.generated(model, processor, prompts, images=list(images))


def test_folder_is_small():
    demos.assert_folder_is_small(DEMO, data_mb=7)


def test_architecture(model):
    config = model.config
    text, vision = config.text_config, config.vision_config
    assert text.intermediate_size * text.num_hidden_layers >= 5000
    assert text.num_key_value_heads < text.num_attention_heads
    assert vision.model_type == "clip_vision_model"
    assert config.vision_feature_layer == -2
    assert config.vision_feature_select_strategy == "default"
    assert len(config.image_grid_pinpoints) >= 3
    assert model.model.image_newline.shape == (text.hidden_size,)
    projector = model.model.multi_modal_projector
    assert {"linear_1", "linear_2"} <= {name for name, _ in projector.named_children()}
    assert not model.generation_config.do_sample


@pytest.mark.parametrize(
    ("size", "image_tokens"), [((32, 32), 36), ((64, 32), 52), ((32, 64), 56), ((300, 300), 36)]
)
def test_layouts_have_their_own_tiles(processor, size, image_tokens):
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it dark?"}]}],
        add_generation_prompt=True,
    )
    assert prompt == "user: <image>\nIs it dark? assistant:"
    inputs = processor(
        text=prompt, images=Image.new("RGB", size, (9, 99, 200)), return_tensors="pt"
    )
    ids = inputs["input_ids"][0].tolist()
    assert ids.count(processor.image_token_id) == image_tokens
    assert ids[0] == processor.tokenizer.bos_token_id
    assert processor.tokenizer.bos_token_id not in ids[1:]


def test_every_word_of_the_data_is_in_the_vocabulary(processor, tables):
    demos.assert_words_are_known(processor.tokenizer, tables.values())


def test_rows(tables):
    demos.assert_rows_are_whole(tables, demos.PICTURES, "images")
    test = tables["test"]
    assert test.groupby("domain").picture.nunique().min() >= 300
    assert test.groupby("domain").size().min() >= 900


def test_splits_share_no_picture_and_no_source(tables):
    demos.assert_splits_share_nothing(tables, "images")


def test_answers_are_balanced_within_each_domain(tables):
    table = tables["test"].assign(answer=lambda rows: rows.answers.str[0])
    shared = table[table.question.isin(["light", "side", "half"])]
    shares = shared.groupby(["question", "domain"]).answer.value_counts(normalize=True)
    assert shares.between(0.4, 0.6).all()


def test_measured_answers_are_true(tables):
    table = tables["test"].query("question in ('light', 'side')").groupby("domain").head(60)
    for row in table.itertuples():
        light = np.asarray(picture_of(row).convert("L"), dtype=float) / 255
        half = light.shape[1] // 2
        if row.question == "light":
            found = "bright" if light.mean() > 0.5 else "dark"
        else:
            found = "right" if light[:, half:].mean() > light[:, :half].mean() else "left"
        assert found == row.answers[0]


def test_neither_text_nor_geometry_tells_the_domain(tables):
    demos.assert_domain_is_not_told(tables, lambda row: picture_of(row).size)


def test_card_says_what_is_asked_of_it(card):
    domains = card["results"]["domain"]
    assert set(domains) == demos.PICTURES
    for figures in domains.values():
        demos.assert_figures_convince(figures, ["blank", "black"])


def test_accuracy_is_that_of_the_card(model, processor, tables, card):
    demos.assert_answers_are_those_of_the_card(
        partial(ask, model, processor), tables["test"], card, picture_of, demos.grey
    )


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (10_000, 2_000)])
def test_pictures_of_extreme_sizes(width, height):
    buffer = io.BytesIO()
    Image.new("L", (width, height), 90).save(buffer, "PNG")
    hooked = mmlens.load("demo/llava-next", check=False)
    batch = hooked.prepare(mmlens.Sample("x", "Is it dark?", images=(buffer.getvalue(),)))
    assert hooked.generate(batch, max_new_tokens=2).texts[0]
    lens = mmlens.logit_lens(hooked, batch, layers=[-1])
    assert len(lens.plot_picture(hooked).to_json()) < 1_000_000  # not ten thousand pixels wide
