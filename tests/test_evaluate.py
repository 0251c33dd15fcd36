"""Answers under settings: recorded, resumed, the same however they are batched."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

import mmlens
from experiments.tiny import llava_next as tiny
from mmlens.errors import SampleError, TooManyFailuresError
from mmlens.evaluate import Setting, evaluate
from mmlens.files import read_jsonl


@pytest.fixture(scope="module")
def questions():
    return [replace(s, answers=("one",)) for s in tiny.samples()]


def settings(questions):
    shape = (3, 48)
    ids = [s.id for s in questions]
    early = mmlens.NeuronSet([(0, i) for i in range(30)], "language", shape)
    vision = mmlens.NeuronSet([(0, i) for i in range(20)], "vision", (3, 40))
    return [
        Setting("none", (), frozenset(ids)),
        Setting("early", (early,), frozenset(ids[:6])),
        Setting("towers", (early, vision), frozenset(ids[3:9])),
    ]


def test_predictions_equal_generation_one_by_one(mistral_model, questions):
    pictured = [s for s in questions if s.images]
    chosen = settings(pictured)
    out = evaluate(mistral_model, pictured, chosen, max_new_tokens=4, progress=False)
    rows = {(r.setting, r.id): r for r in out.frame.itertuples()}
    assert len(rows) == sum(len(s.ids) for s in chosen)
    by_id = {s.id: s for s in pictured}
    for setting in chosen:
        for name in setting.ids:
            with mistral_model.hooks(fwd_hooks=mmlens.hooks.zero(setting.neurons)):
                alone = mistral_model.generate(mistral_model.prepare(by_id[name]), 4)
            assert rows[setting.name, name].prediction == alone.texts[0]
    baseline = out.frame[out.frame.setting == "none"].set_index("id").prediction
    masked = out.frame[out.frame.setting == "early"].set_index("id").prediction
    assert (baseline.loc[masked.index] != masked).any()


def test_every_answer_is_on_disk_and_asked_once(mistral_model, questions, tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    pictured = [s for s in questions if s.images]
    options = {"max_new_tokens": 3, "progress": False, "answers": path, "max_batch": 3}
    whole = evaluate(mistral_model, pictured, settings(pictured), **options)
    lines = path.read_text().splitlines()
    assert len(lines) == len(whole.frame)
    # cut as a kill would, in the middle of a line
    path.write_text("\n".join(lines[:7]) + "\n" + lines[7][:15])
    again = evaluate(mistral_model, pictured, settings(pictured), **options)
    pd.testing.assert_frame_equal(again.frame, whole.frame)
    assert len({(r["setting"], r["id"]) for r in read_jsonl(path)}) == len(whole.frame)
    monkeypatch.setattr(type(mistral_model), "generate", lambda *a, **k: pytest.fail("asked again"))
    finished = evaluate(mistral_model, pictured, settings(pictured), **options)
    pd.testing.assert_frame_equal(finished.frame, whole.frame)
    assert finished.tokens == 0


def test_batching_changes_no_answer(mistral_model, questions):
    few = evaluate(
        mistral_model,
        questions,
        settings(questions)[:2],
        max_batch=1,
        max_new_tokens=3,
        progress=False,
    )
    many = evaluate(
        mistral_model, questions, settings(questions)[:2], max_new_tokens=3, progress=False
    )
    pd.testing.assert_frame_equal(few.frame, many.frame)


def test_bad_questions(mistral_model, questions, tmp_path, monkeypatch):
    with pytest.raises(SampleError, match="unknown sample 'nobody'"):
        evaluate(mistral_model, questions, [Setting("x", (), frozenset({"nobody"}))])
    unanswered = [replace(questions[0], answers=())]
    with pytest.raises(SampleError, match="no accepted answer"):
        evaluate(mistral_model, unanswered, [Setting("x", (), frozenset({"s0"}))])
    twice = [Setting("x", (), frozenset({"s0"}))] * 2
    with pytest.raises(SampleError, match="same name"):
        evaluate(mistral_model, questions, twice)
    with pytest.raises(SampleError, match="exact_match"):
        evaluate(mistral_model, questions, twice[:1], metric_name="cider")
    with monkeypatch.context() as patch:
        patch.setattr(type(mistral_model), "generate", lambda *a, **k: pytest.fail("asked"))
        with pytest.raises(SampleError, match="'s0': VQA accuracy needs the answers of all 10"):
            evaluate(mistral_model, questions, twice[:1], metric_name="vqa_accuracy")
    broken = [*questions, replace(questions[0], id="bad", images=(str(tmp_path / "no.png"),))]
    asked = [Setting("x", (), frozenset({"s0", "bad"}))]
    out = evaluate(mistral_model, broken, asked, max_failures=0.5, progress=False, max_new_tokens=2)
    assert set(out.skipped) == {"bad"}
    assert set(out.frame.id) == {"s0"}
    with pytest.raises(TooManyFailuresError, match="does not exist"):
        evaluate(mistral_model, broken, asked, max_failures=0.0, progress=False)


def test_hooks_are_gone_afterwards(mistral_model, questions):
    evaluate(mistral_model, questions, settings(questions)[:2], max_new_tokens=1, progress=False)
    assert not any(point.has_hooks() for point in mistral_model.hook_dict.values())
    with torch.no_grad():
        batch = mistral_model.prepare(questions)
        plain = mistral_model.hf(**batch.inputs).logits
        assert (mistral_model(batch) - plain).abs().max() < 1e-4
