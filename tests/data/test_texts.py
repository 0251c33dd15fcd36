"""Plain text through every family, text files by language, and chunks of tokens."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mmlens
from mmlens.data.samples import Sample
from mmlens.data.texts import chunked, load_texts
from mmlens.errors import SampleError
from mmlens.streaming.batching import Batching
from tests.helpers.models import spliced
from tests.tiny import NAMES
from tests.tiny import instructblip as blip
from tests.tiny import llava_next as tiny

TEXTS = [
    Sample("long", "what is a red cat ? w30 w31", domain="x"),
    Sample("short", "one w9", domain="y"),
]


# Text alone


@pytest.mark.parametrize("name", NAMES)
def test_every_family_reads_plain_text_from_left_to_right(name):
    model = spliced(name)
    batch = model.prepare(TEXTS, template="none")
    assert batch.groups.mask("text").sum(-1).tolist() == [8, 2]
    assert model.preparer.lengths(TEXTS, "none") == batch.groups.attention.sum(-1).tolist()
    with torch.no_grad():
        logits = model(batch)
        for row, text in zip(logits, TEXTS, strict=True):
            alone = model(model.prepare(text, template="none"))[0]
            assert torch.allclose(row[-len(alone) :], alone, atol=1e-4)
        # No token sees what comes after it: another last word changes nothing before.
        other = Sample("other", "what is a red cat ? w30 w9")
        before, after = (model(model.prepare(one, template="none"))[0] for one in (TEXTS[0], other))
    assert torch.equal(before[:-1], after[:-1])
    assert not torch.allclose(before[-1], after[-1])
    statistics = mmlens.collect(model, TEXTS, batching=Batching(template="none", progress=False))
    assert int(statistics.modules["language"].tokens.sum()) == int(batch.groups.attention.sum())


def test_instructblip_reads_text_with_its_language_model_alone():
    hf = blip.FAMILY.variants[next(iter(blip.FAMILY.variants))](0)
    model = mmlens.splice(hf, blip.FAMILY.processor())
    batch = model.prepare(TEXTS, template="none")
    with torch.no_grad():
        theirs = hf.language_model(**batch.inputs).logits
        ours = model(batch)
    real = batch.groups.attention
    assert torch.allclose(ours[real], theirs[real], atol=1e-4)


def test_plain_text_takes_no_media(mistral_model, samples):
    with pytest.raises(SampleError, match="has media, which template='none'"):
        mistral_model.prepare(samples[0], template="none")
    with pytest.raises(SampleError, match="'auto', 'chat', 'plain' and 'none'"):
        mistral_model.preparer.lengths(TEXTS, "bare")


# Files


def test_rows_have_a_language(tmp_path):
    rows = [{"id": i, "text": f"w{i}", "language": "en" if i % 2 else "fr"} for i in range(4)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    texts = load_texts(tmp_path, "train")
    assert [(t.id, t.text, t.domain) for t in texts] == [
        ("0", "w0", "fr"),
        ("1", "w1", "en"),
        ("2", "w2", "fr"),
        ("3", "w3", "en"),
    ]
    assert load_texts(tmp_path / "train.jsonl") == texts
    (tmp_path / "test.jsonl").write_text('{"id": 0, "text": "w0"}\n')
    with pytest.raises(SampleError, match="no language"):
        load_texts(tmp_path, "test")
    with pytest.raises(SampleError, match="validation"):
        load_texts(tmp_path, "validation")


def test_text_files_are_languages(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    line = "über w1 w2\n"
    (folder / "de.txt").write_text(line * 20000, encoding="utf-8")
    (folder / "en.txt").write_text("w3 w4", encoding="utf-8")
    texts = load_texts(tmp_path, "train")
    german = [t for t in texts if t.domain == "de"]
    assert "".join(t.text for t in german) == line * 20000
    assert len(german) > 1
    assert all(t.text.endswith("\n") for t in german)
    assert len({t.id for t in texts}) == len(texts)
    assert [t.text for t in texts if t.domain == "en"] == ["w3 w4"]
    (folder / "fr.txt").write_bytes(b"caf\xe9")
    with pytest.raises(SampleError, match=r"fr\.txt is not UTF-8"):
        load_texts(tmp_path, "train")
    (folder / "fr.txt").write_text(" \n")
    with pytest.raises(SampleError, match=r"fr\.txt holds no text"):
        load_texts(tmp_path, "train")


# Chunks

WORDS = tiny.processor().tokenizer


@given(st.lists(st.sampled_from(["w1", "w22", "cat"]), max_size=40), st.integers(2, 9))
def test_chunks_hold_so_many_tokens_and_lose_none(words, size):
    chunks = chunked([Sample("t", "  ".join(words), domain="x")], WORDS, size)
    found = [c.text.split() for c in chunks]
    kept = words if len(words) % size != 1 else words[:-1]  # one word alone predicts nothing
    assert [w for one in found for w in one] == kept
    assert [len(one) for one in found[:-1]] == [size] * max(len(found) - 1, 0)
    assert [c.id for c in chunks] == [f"t#{i}" for i in range(len(chunks))]
    assert {c.domain for c in chunks} <= {"x"}


def test_a_slow_tokenizer_may_not_cut():
    class Slow:
        is_fast = False

        def __call__(self, text, **_):
            return {"input_ids": text.split()}

    whole = Sample("t", "w1 w2 w3", domain="x")
    assert [c.text for c in chunked([whole], Slow(), 3)] == ["w1 w2 w3"]
    with pytest.raises(SampleError, match="'t' has 3 tokens, more than the 2"):
        chunked([whole], Slow(), 2)
    with pytest.raises(SampleError, match="at least two tokens"):
        chunked([whole], WORDS, 1)
