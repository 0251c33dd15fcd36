"""The shipped audio demo: its folder, its data, and that it does what its card says."""

import io
from functools import partial

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.helpers import demos

DEMO, MODEL = "qwen2-audio", "Qwen2AudioForConditionalGeneration"
DOMAINS = {"speech", "music", "nature", "machine"}
QUESTIONS = {"kind", "content", "level", "length", "half", "tone", "check", "both"}
RATE = 16_000


def decode(audios) -> np.ndarray:
    sound, rate = soundfile.read(io.BytesIO(audios[0]["bytes"]), dtype="float32")
    assert rate == RATE
    assert sound.ndim == 1
    return sound


def sounds(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Each sound of a table, decoded once."""
    first = table.drop_duplicates("picture")
    return {row.picture: decode(row.audios) for row in first.itertuples()}


def prompt_of(processor, text: str) -> str:
    content = [{"type": "audio"}, {"type": "text", "text": text}]
    message = [{"role": "user", "content": content}]
    return processor.apply_chat_template(message, add_generation_prompt=True)


def ask(model, processor, texts, media) -> list[str]:
    """Greedy answers, through the chat template and one batched `generate`."""
    prompts = [prompt_of(processor, text) for text in texts]
    return demos.generated(model, processor, prompts, audio=list(media), sampling_rate=RATE)


def test_folder_is_small():
    demos.assert_folder_is_small(DEMO, data_mb=6.5)


def test_architecture(model, processor):
    text, audio = model.config.text_config, model.config.audio_config
    assert text.model_type == "qwen2"
    assert text.intermediate_size * text.num_hidden_layers >= 5000
    assert text.num_key_value_heads < text.num_attention_heads
    assert audio.model_type == "qwen2_audio_encoder"
    extractor = processor.feature_extractor
    assert audio.num_mel_bins == extractor.feature_size
    assert audio.max_source_positions * 2 == extractor.nb_max_frames
    assert {name for name, _ in model.model.multi_modal_projector.named_children()} == {"linear"}
    settings = model.generation_config
    assert not settings.do_sample
    assert settings.max_new_tokens == 8
    assert settings.eos_token_id == processor.tokenizer.eos_token_id
    assert settings.pad_token_id == processor.tokenizer.pad_token_id


@pytest.mark.parametrize(("seconds", "audio_tokens"), [(0.62, 15), (1.0, 25), (2.0, 50), (9, 50)])
def test_longer_sounds_have_more_tokens(processor, seconds, audio_tokens):
    prompt = prompt_of(processor, "Is it loud or soft?")
    assert prompt == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
        "Is it loud or soft?<|im_end|>\n<|im_start|>assistant\n"
    )
    sound = np.zeros(int(seconds * RATE), dtype=np.float32)
    inputs = processor(text=prompt, audio=sound, sampling_rate=RATE, return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    assert ids.count(processor.audio_token_id) == audio_tokens
    assert ids.count(processor.tokenizer.eos_token_id) == 2
    assert processor.tokenizer.unk_token_id not in ids


def test_every_word_of_the_data_is_in_the_vocabulary(processor, tables):
    demos.assert_words_are_known(processor.tokenizer, tables.values())


def test_rows(tables):
    demos.assert_rows_are_whole(tables, DOMAINS, "audios")
    assert all(set(table.question) == QUESTIONS for table in tables.values())
    test = tables["test"]
    assert test.groupby("domain").picture.nunique().min() >= 160
    assert test.groupby("domain").size().min() >= 1200


def test_splits_share_no_sound_and_no_source(tables):
    demos.assert_splits_share_nothing(tables, "audios")


def test_answers_are_balanced_within_each_domain(tables):
    for split in ("train", "test"):
        table = tables[split].assign(answer=lambda rows: rows.answers.str[0])
        measured = table[table.question.isin(["level", "length", "half", "tone", "check", "both"])]
        shares = measured.groupby(["question", "domain"]).answer.value_counts(normalize=True)
        assert shares.between(0.47, 0.53).all()
        named = table[table.question == "content"].groupby("domain").answer
        assert (named.value_counts().groupby(level=0).agg(np.ptp) <= 4).all()


def test_measured_answers_are_true(tables):
    """Checked without the code that wrote them."""
    table = tables["test"].groupby(["domain", "question"]).head(10)
    heard = sounds(table)
    for row in table.itertuples():
        sound, answer = heard[row.picture].astype(float), row.answers[0]
        middle, seconds = len(sound) // 2, len(sound) / RATE
        loud = np.sqrt((sound**2).mean()) > 10 ** (-25 / 20)
        power = np.abs(np.fft.rfft(sound)) ** 2
        high = power[np.fft.rfftfreq(len(sound), 1 / RATE) > 1000].sum() / power.sum() > 0.5
        later = (sound[middle:] ** 2).sum() > (sound[:middle] ** 2).sum()
        facts = {
            "level": "loud" if loud else "soft",
            "length": "long" if seconds > 1.2 else "short",
            "half": "end" if later else "start",
            "tone": "bright" if high else "dull",
        }
        if row.question in facts:
            assert answer == facts[row.question], row.id
        elif row.question in ("check", "both"):
            words = {word.strip("?") for word in row.text.split()}
            words &= {"loud", "soft", "long", "short", "bright", "dull"}
            assert len(words) == (2 if row.question == "both" else 1)
            assert answer == ("yes" if words <= set(facts.values()) else "no"), row.id


def test_neither_text_nor_length_tells_the_domain(tables):
    demos.assert_domain_is_not_told(
        tables, lambda row: round(4 * soundfile.info(io.BytesIO(row.audios[0]["bytes"])).duration)
    )


def test_card_says_what_is_asked_of_it(card, tables):
    assert card["split"] == "test"
    domains = card["results"]["domain"]
    assert set(domains) == DOMAINS
    test = tables["test"]
    for domain, figures in domains.items():
        demos.assert_figures_convince(figures, ["silence", "noise"])
        rows = test[test.domain == domain]
        assert figures["questions"] == len(rows)
        assert figures["pictures"] == rows.picture.nunique()
        assert figures["sources"] == rows.source.nunique()
    readme = (demos.folder(DEMO) / "README.md").read_text()
    for domain, figures in domains.items():
        assert f"| {domain} | **{figures['accuracy']:.3f}** |" in readme


def test_accuracy_is_that_of_the_card(model, processor, tables, card):
    demos.assert_answers_are_those_of_the_card(
        partial(ask, model, processor),
        tables["test"],
        card,
        lambda row: decode(row.audios),
        lambda sounds: [np.zeros_like(sound) for sound in sounds],
    )
