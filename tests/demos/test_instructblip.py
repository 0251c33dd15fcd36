"""The shipped demo model: its folder, where its data are, and that it does what its card says."""

from functools import partial

import pytest
import torch
from PIL import Image
from transformers import InstructBlipProcessor

from mmlens.data.demos import demo_data
from mmlens.data.samples import load_samples
from mmlens.errors import UnsupportedModelError
from tests.helpers import demos

DEMO, MODEL = "instructblip", "InstructBlipForConditionalGeneration"
FOLDER = demos.folder(DEMO)
QUERIES = 16


def picture_of(row) -> Image.Image:
    return demos.picture(row.images[0])


def ask(model, processor, texts, images) -> list[str]:
    """Greedy answers to the bare questions, in one batched `generate`."""
    return demos.generated(model, processor, texts, images=list(images))


def test_data_are_those_of_llava_next(tables):
    assert demo_data("demo/instructblip") == demo_data("demo/llava-next")
    assert not (FOLDER / "data").exists()
    samples = load_samples("demo/instructblip", "test")
    assert [sample.id for sample in samples] == list(tables["test"].id)
    assert set(tables["test"].domain) == demos.PICTURES


def test_data_of_other_names():
    assert demo_data("demo/llava-next") == demos.folder("llava-next") / "data"
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
    demos.assert_folder_is_small(DEMO)


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


def test_every_word_of_the_data_is_in_both_vocabularies(processor, tables):
    for tokenizer in (processor.tokenizer, processor.qformer_tokenizer):
        demos.assert_words_are_known(tokenizer, [tables["test"]])


def test_queries_depend_on_question_and_picture(model, processor, tables):
    row = tables["test"].iloc[0]
    pictures = [picture_of(row), picture_of(row), Image.new("RGB", (32, 32), (90, 90, 90))]
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
    assert set(domains) == demos.PICTURES
    for figures in domains.values():
        demos.assert_figures_convince(figures, ["blank", "black"])


def test_accuracy_is_that_of_the_card(model, processor, tables, card):
    demos.assert_answers_are_those_of_the_card(
        partial(ask, model, processor), tables["test"], card, picture_of, demos.grey
    )
