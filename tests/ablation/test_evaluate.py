"""Answers under settings: recorded, resumed, the same however they are batched."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from scipy.stats import chisquare

import mmlens
from mmlens.ablation.conditions import Condition
from mmlens.ablation.decoding import SeededSampling, seed_of
from mmlens.ablation.evaluate import evaluate
from mmlens.ablation.intervention import Intervention
from mmlens.errors import SampleError, StatisticsError, TooManyFailuresError
from mmlens.storage.atomic import read_jsonl
from mmlens.streaming.batching import Batching
from tests.tiny import llava_next as tiny


@pytest.fixture(scope="module")
def questions():
    return [replace(s, answers=("one",)) for s in tiny.samples()]


def settings(questions):
    shape = (3, 48)
    ids = [s.id for s in questions]
    early = mmlens.NeuronSet([(0, i) for i in range(30)], "language", shape)
    vision = mmlens.NeuronSet([(0, i) for i in range(20)], "vision", (3, 40))
    return [
        Condition("none", (), frozenset(ids)),
        Condition("early", (early,), frozenset(ids[:6])),
        Condition("towers", (early, vision), frozenset(ids[3:9])),
    ]


def test_predictions_equal_generation_one_by_one(mistral_model, questions):
    pictured = [s for s in questions if s.images]
    chosen = settings(pictured)
    out = evaluate(mistral_model, pictured, chosen, max_new_tokens=4)
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
    options = {"max_new_tokens": 3, "answers": path, "batching": Batching(max_batch=3)}
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
        batching=Batching(max_batch=1),
        max_new_tokens=3,
    )
    many = evaluate(mistral_model, questions, settings(questions)[:2], max_new_tokens=3)
    pd.testing.assert_frame_equal(few.frame, many.frame)


def test_bad_questions(mistral_model, questions, tmp_path, monkeypatch):
    with pytest.raises(SampleError, match="unknown sample 'nobody'"):
        evaluate(mistral_model, questions, [Condition("x", (), frozenset({"nobody"}))])
    unanswered = [replace(questions[0], answers=())]
    with pytest.raises(SampleError, match="no accepted answer"):
        evaluate(mistral_model, unanswered, [Condition("x", (), frozenset({"s0"}))])
    twice = [Condition("x", (), frozenset({"s0"}))] * 2
    with pytest.raises(SampleError, match="same name"):
        evaluate(mistral_model, questions, twice)
    with pytest.raises(SampleError, match="exact_match"):
        evaluate(mistral_model, questions, twice[:1], metric_name="rouge")
    with monkeypatch.context() as patch:
        patch.setattr(type(mistral_model), "generate", lambda *a, **k: pytest.fail("asked"))
        with pytest.raises(SampleError, match="'s0': VQA accuracy needs the answers of all 10"):
            evaluate(mistral_model, questions, twice[:1], metric_name="vqa_accuracy")
    broken = [*questions, replace(questions[0], id="bad", images=(str(tmp_path / "no.png"),))]
    asked = [Condition("x", (), frozenset({"s0", "bad"}))]
    out = evaluate(
        mistral_model, broken, asked, batching=Batching(max_failures=0.5), max_new_tokens=2
    )
    assert set(out.skipped) == {"bad"}
    assert set(out.frame.id) == {"s0"}
    with pytest.raises(TooManyFailuresError, match="does not exist"):
        evaluate(mistral_model, broken, asked, batching=Batching(max_failures=0.0))


def test_hooks_are_gone_afterwards(mistral_model, questions):
    evaluate(mistral_model, questions, settings(questions)[:2], max_new_tokens=1)
    assert not any(point.has_hooks() for point in mistral_model.hook_dict.values())
    with torch.no_grad():
        batch = mistral_model.prepare(questions)
        plain = mistral_model.hf(**batch.inputs).logits
        assert (mistral_model(batch) - plain).abs().max() < 1e-4


# Other interventions


def predictions(out, setting):
    return out.frame[out.frame.setting == setting].set_index("id").prediction


def test_interventions_equal_generation_one_by_one(mistral_model, questions):
    pictured = [s for s in questions if s.images]
    ids = frozenset(s.id for s in pictured)
    neurons = mmlens.NeuronSet([(x, i) for x in (0, 1) for i in range(40)], "language", (3, 48))
    statistics = mmlens.collect(mistral_model, pictured)
    interventions = [
        Intervention(),
        Intervention("scale", 3.0),
        Intervention("set_to", 0.8, group="image"),
        Intervention("mean"),
        Intervention("layer_minimum"),
        Intervention("keep_only"),
    ]
    asked = [Condition("none", (), ids)]
    asked += [Condition(one.name, (neurons,), ids, one) for one in interventions]
    options = {"max_new_tokens": 4, "statistics": statistics}
    out = evaluate(mistral_model, pictured, asked, **options)
    for one in interventions:
        for sample in pictured:
            batch = mistral_model.prepare(sample)
            hooks = one.hooks(neurons, mistral_model, batch, statistics)
            with mistral_model.hooks(fwd_hooks=hooks):
                alone = mistral_model.generate(batch, 4)
            assert predictions(out, one.name)[sample.id] == alone.texts[0], (one.name, sample.id)
    texts = [tuple(predictions(out, setting.name)) for setting in asked]
    assert len(set(texts)) >= 5  # they do different things


def test_resampling_does_not_depend_on_batching(mistral_model, questions, tmp_path):
    neurons = mmlens.NeuronSet([(x, i) for x in (0, 1) for i in range(40)], "language", (3, 48))
    ids = frozenset(s.id for s in questions)
    asked = [
        Condition("none", (), ids),
        Condition("resample", (neurons,), ids, Intervention("resample")),
    ]
    options = {"max_new_tokens": 3}
    many = evaluate(mistral_model, questions, asked, **options)
    few = evaluate(mistral_model, questions, asked, batching=Batching(max_batch=1), **options)
    pd.testing.assert_frame_equal(few.frame, many.frame)
    assert (predictions(many, "resample") != predictions(many, "none")).any()
    # a donor that cannot be read gives way to the next one
    broken = replace(questions[0], id="bad", images=(str(tmp_path / "no.png"),))
    more = [*questions, broken]
    asked = [Condition("r", (neurons,), ids | {"bad"}, Intervention("resample"))]
    out = evaluate(mistral_model, more, asked, batching=Batching(max_failures=0.5), **options)
    assert set(out.frame.id) == ids
    assert set(out.skipped) == {"bad"}
    with pytest.raises(SampleError, match="one alone was asked"):
        one = [Condition("r", (neurons,), frozenset({"s0"}), Intervention("resample"))]
        evaluate(mistral_model, questions, one, **options)


def test_interventions_are_checked_before_anything_runs(mistral_model, questions, monkeypatch):
    monkeypatch.setattr(type(mistral_model), "generate", lambda *a, **k: pytest.fail("ran"))
    neurons = mmlens.NeuronSet([(0, 1)], "language", (3, 48))
    asked = [Condition("m", (neurons,), frozenset({"s0"}), Intervention("mean"))]
    with pytest.raises(SampleError, match="'mean' needs statistics"):
        evaluate(mistral_model, questions, asked)
    statistics = mmlens.collect(mistral_model, questions)
    with pytest.raises(StatisticsError, match="another model"):
        evaluate(
            mistral_model, questions, asked, statistics=replace(statistics, model_hash="other")
        )
    for intervention, message in (
        (Intervention("mean", counted="image"), "Group 'image' was not collected"),
        (Intervention("minimum", keys=("nowhere",)), "'nowhere' was not collected"),
        (Intervention("soft_scale", keys=statistics.keys[:1]), "two at least, 1"),
    ):
        asked = [Condition("m", (neurons,), frozenset({"s0"}), intervention)]
        with pytest.raises(StatisticsError, match=message):
            evaluate(mistral_model, questions, asked, statistics=statistics)


# Sampling


def test_sampled_answers_belong_to_the_sample(mistral_model, questions):
    ids = frozenset(s.id for s in questions)
    early = mmlens.NeuronSet([(0, i) for i in range(30)], "language", (3, 48))
    nobody = mmlens.NeuronSet([], "language", (3, 48))
    asked = [
        Condition("none", (), ids),
        Condition("nobody", (nobody,), ids),
        Condition("early", (early,), ids),
    ]
    options = {"max_new_tokens": 5}
    state = torch.get_rng_state()
    warm = evaluate(mistral_model, questions, asked, temperature=0.9, seed=1, **options)
    assert torch.equal(torch.get_rng_state(), state)  # nobody's random numbers are touched
    one_by_one = evaluate(
        mistral_model,
        questions,
        asked[::-1],
        temperature=0.9,
        seed=1,
        batching=Batching(max_batch=1),
        **options,
    )
    pd.testing.assert_frame_equal(one_by_one.frame, warm.frame)
    assert predictions(warm, "none").equals(predictions(warm, "nobody"))  # the same draws
    assert not predictions(warm, "none").equals(predictions(warm, "early"))
    greedy = evaluate(mistral_model, questions, asked[:1], **options)
    again = evaluate(mistral_model, questions, asked[:1], temperature=0.9, seed=2, **options)
    cold = evaluate(mistral_model, questions, asked[:1], temperature=1e-4, seed=2, **options)
    assert not predictions(warm, "none").equals(predictions(greedy, "none"))
    assert not predictions(warm, "none").equals(predictions(again, "none"))
    assert predictions(cold, "none").equals(predictions(greedy, "none"))


@pytest.mark.parametrize("temperature", [0.5, 0.9, 2.0])
def test_draws_follow_the_softmax(temperature):
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -torch.inf])
    seeds = range(4000)
    noisy = SeededSampling(seeds, temperature)(
        torch.zeros((4000, 1), dtype=torch.int64), logits.expand(4000, -1)
    )
    counts = np.bincount(noisy.argmax(-1).numpy(), minlength=5)
    expected = softmax(logits.double().numpy() / temperature) * 4000
    assert counts[4] == 0
    assert chisquare(counts[:4], expected[:4]).pvalue > 0.001
    with pytest.raises(SampleError, match="above 0; 0"):
        SeededSampling([1], 0.0)
    with pytest.raises(SampleError, match="2 rows are decoded; it takes no beams"):
        SeededSampling([1], 1.0)(torch.zeros((2, 1), dtype=torch.int64), torch.zeros(2, 5))


def test_draws_of_later_tokens_are_new():
    sampling = SeededSampling([3, 4], 1.0)
    ids, scores = torch.zeros((2, 1), dtype=torch.int64), torch.zeros(2, 50)
    first, second = sampling(ids, scores), sampling(ids, scores)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(SeededSampling([4], 1.0)(ids[:1], scores[:1])[0], first[1])
    assert len({seed_of(0, "a"), seed_of(1, "a"), seed_of(0, "b")}) == 3
