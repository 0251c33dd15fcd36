"""The shipped demo model: its folder, its data, and that it does what its card says."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

import mmlens
from tests.helpers import demos

FOLDER = Path(mmlens.__file__).parent / "demo" / "llava-next"
SPLITS = ("train", "validation", "test")
DOMAINS = {"medical", "satellite", "document", "clothing", "handwriting"}


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {split: pd.read_parquet(FOLDER / "data" / f"{split}.parquet") for split in SPLITS}


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads((FOLDER / "card.json").read_text())


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return LlavaNextForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()


def decode(images) -> Image.Image:
    return Image.open(io.BytesIO(images[0]["bytes"])).convert("RGB")


def ask(model, processor, texts, images) -> list[str]:
    """Greedy answers, through the chat template and one batched `generate`."""
    prompts = []
    for text in texts:
        content = [{"type": "image"}, {"type": "text", "text": text}]
        message = [{"role": "user", "content": content}]
        prompts.append(processor.apply_chat_template(message, add_generation_prompt=True))
    inputs = processor(text=prompts, images=list(images), padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=4)
    new = tokens[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]


def test_folder_is_small():
    model_part = sum(file.stat().st_size for file in FOLDER.iterdir() if file.is_file())
    data_part = sum(file.stat().st_size for file in (FOLDER / "data").iterdir())
    assert model_part <= 8 * 2**20
    assert data_part <= 7 * 2**20


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
    demos.assert_rows_are_whole(tables, DOMAINS, "images")
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
        light = np.asarray(decode(row.images).convert("L"), dtype=float) / 255
        half = light.shape[1] // 2
        if row.question == "light":
            found = "bright" if light.mean() > 0.5 else "dark"
        else:
            found = "right" if light[:, half:].mean() > light[:, :half].mean() else "left"
        assert found == row.answers[0]


def test_neither_text_nor_geometry_tells_the_domain(tables):
    demos.assert_domain_is_not_told(tables, lambda row: decode(row.images).size)


def test_card_says_what_is_asked_of_it(card):
    domains = card["results"]["domain"]
    assert set(domains) == DOMAINS
    for figures in domains.values():
        demos.assert_figures_convince(figures, ["blank", "black"])


def test_accuracy_is_that_of_the_card(model, processor, tables, card):
    """Forty test questions a domain: close to the card, and far above a grey picture's."""
    test = tables["test"].groupby("domain").sample(40, random_state=0)
    wanted = test.answers.str[0].to_numpy()
    pictures = [decode(images) for images in test.images]
    blank = [Image.new("RGB", picture.size, (128, 128, 128)) for picture in pictures]
    right = pd.Series(ask(model, processor, test.text, pictures) == wanted, index=test.domain)
    control = np.mean(ask(model, processor, test.text, blank) == wanted)
    for domain, answered in right.groupby(level=0):
        demos.assert_as_expected(answered, card["results"]["domain"][domain]["accuracy"])
    assert right.mean() >= 0.85
    assert right.mean() >= control + 0.25


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (10_000, 10_000)])
@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
def test_pictures_of_extreme_sizes(width, height):
    buffer = io.BytesIO()
    Image.new("L", (width, height), 90).save(buffer, "PNG")
    hooked = mmlens.load("demo/llava-next", check=False)
    batch = hooked.prepare(mmlens.Sample("x", "Is it dark?", images=(buffer.getvalue(),)))
    assert hooked.generate(batch, max_new_tokens=2).texts[0]
    lens = mmlens.logit_lens(hooked, batch, layers=[-1])
    assert len(lens.plot_picture(hooked).to_json()) < 1_000_000  # not ten thousand pixels wide
