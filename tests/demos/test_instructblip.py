"""The shipped demo model: its folder, where its data are, and that it does what its card says."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

import mmlens
from mmlens.data.demos import demo_data
from mmlens.data.samples import load_samples
from mmlens.errors import UnsupportedModelError
from tests.helpers import demos

DEMOS = Path(mmlens.__file__).parent / "demo"
FOLDER = DEMOS / "instructblip"
DOMAINS = {"medical", "satellite", "document", "clothing", "handwriting"}
QUERIES = 16


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    folder = demo_data("demo/instructblip")
    assert folder is not None
    return pd.read_parquet(folder / "test.parquet")


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads((FOLDER / "card.json").read_text())


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return InstructBlipForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()


def decode(images) -> Image.Image:
    return Image.open(io.BytesIO(images[0]["bytes"])).convert("RGB")


def ask(model, processor, texts, images) -> list[str]:
    """Greedy answers to the bare questions, in one batched `generate`."""
    inputs = processor(text=list(texts), images=list(images), padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=4)
    new = tokens[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]


def test_data_are_those_of_llava_next(table):
    assert demo_data("demo/instructblip") == demo_data("demo/llava-next")
    assert not (FOLDER / "data").exists()
    samples = load_samples("demo/instructblip", "test")
    assert [sample.id for sample in samples] == list(table.id)
    assert set(table.domain) == DOMAINS


def test_data_of_other_names():
    assert demo_data("demo/llava-next") == DEMOS / "llava-next" / "data"
    assert demo_data("Salesforce/instructblip-vicuna-7b") is None
    with pytest.raises(UnsupportedModelError, match="no demo 'demo/none'"):
        demo_data("demo/none")


def test_data_folder_named_by_another_demo(tmp_path, monkeypatch):
    monkeypatch.setattr("mmlens.data.demos._DEMOS", tmp_path)
    for name in ("own", "other", "bare"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "own" / "data").mkdir()
    (tmp_path / "other" / "data.json").write_text('{"demo": "own"}')
    assert demo_data("demo/own") == demo_data("demo/other") == tmp_path / "own" / "data"
    with pytest.raises(UnsupportedModelError, match="no data"):
        demo_data("demo/bare")


def test_folder_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 8 * 2**20


def test_architecture(model):
    config = model.config
    assert config.num_query_tokens == QUERIES
    assert config.text_config.model_type == "llama"
    assert config.qformer_config.cross_attention_frequency == 2
    assert config.qformer_config.num_hidden_layers >= 3
    assert config.use_decoder_only_language_model
    assert isinstance(model.language_projection, torch.nn.Linear)
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert embeddings.weight.data_ptr() != head.weight.data_ptr()
    assert sum(parameter.numel() for parameter in model.parameters()) < 4e6
    settings = model.generation_config
    assert not settings.do_sample
    assert settings.max_new_tokens == 8
    assert (settings.eos_token_id, settings.pad_token_id) == (2, 0)


@pytest.mark.parametrize("size", [(32, 32), (64, 32), (32, 64), (300, 200)])
def test_processor_puts_the_queries_before_the_prompt(processor, size):
    assert isinstance(processor, InstructBlipProcessor)
    image = Image.new("RGB", size, (9, 99, 200))
    inputs = processor(text="Is it dark?", images=image, return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    placeholder = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert ids[:QUERIES] == [placeholder] * QUERIES
    assert ids[QUERIES] == processor.tokenizer.bos_token_id
    assert placeholder not in ids[QUERIES:]
    assert inputs["qformer_input_ids"][0].tolist() == ids[QUERIES:]
    assert inputs["pixel_values"].shape == (1, 3, 48, 48)


def test_every_word_of_the_data_is_in_both_vocabularies(processor, table):
    for tokenizer in (processor.tokenizer, processor.qformer_tokenizer):
        demos.assert_words_are_known(tokenizer, [table])


def test_queries_depend_on_question_and_picture(model, processor, table):
    row = table.iloc[0]
    pictures = [decode(row.images), decode(row.images), Image.new("RGB", (32, 32), (90, 90, 90))]
    texts = ["what is shown?", "name the color.", "what is shown?"]
    inputs = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model.get_image_features(
            inputs["pixel_values"], inputs["qformer_input_ids"], inputs["qformer_attention_mask"]
        ).pooler_output
    assert found.shape == (3, QUERIES, model.config.text_config.hidden_size)
    # The question changes less than the picture does (see the card's limits).
    for other, least in ((1, 0.05), (2, 0.5)):
        assert (found[0] - found[other]).norm() > least * found[0].norm()


def test_card_says_what_is_asked_of_it(card):
    assert card["split"] == "test"
    domains = card["results"]["domain"]
    assert set(domains) == DOMAINS
    for figures in domains.values():
        demos.assert_figures_convince(figures, ["blank", "black"])


def test_accuracy_is_that_of_the_card(model, processor, table, card):
    """Forty test questions a domain: close to the card, and far above a grey picture's."""
    asked = table.groupby("domain").sample(40, random_state=0)
    wanted = asked.answers.str[0].to_numpy()
    pictures = [decode(images) for images in asked.images]
    blank = [Image.new("RGB", picture.size, (128, 128, 128)) for picture in pictures]
    right = pd.Series(ask(model, processor, asked.text, pictures) == wanted, index=asked.domain)
    control = np.mean(ask(model, processor, asked.text, blank) == wanted)
    for domain, answered in right.groupby(level=0):
        demos.assert_as_expected(answered, card["results"]["domain"][domain]["accuracy"])
    assert right.mean() >= 0.85
    assert right.mean() >= control + 0.25
