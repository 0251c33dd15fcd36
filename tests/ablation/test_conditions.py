"""Conditions side by side in one batch: the answers of each are those that it has alone."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

import mmlens
from mmlens.ablation.answering import Answerer
from mmlens.ablation.conditions import Condition, ids_with
from mmlens.ablation.decoding import Decoding
from mmlens.ablation.donors import ConditionHooks, Donors
from mmlens.ablation.evaluate import evaluate
from mmlens.ablation.intervention import Intervention
from mmlens.data.demos import demo_data
from mmlens.data.samples import load_samples, take_per_value
from mmlens.errors import SampleError
from mmlens.streaming.batching import Batching
from mmlens.tokens.groups import TokenIds
from tests.helpers.models import spliced
from tests.tiny import family


def drawn(model, share, seed=0, module="language"):
    shape = model.module(module).shape
    chosen = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share
    return mmlens.NeuronSet(chosen.nonzero().tolist(), module, shape)


@pytest.fixture(scope="module")
def qwen():
    return spliced("qwen2_vl")


@pytest.fixture(scope="module")
def questions():
    return [replace(s, answers=("one",)) for s in family("qwen2_vl").samples()]


@pytest.mark.parametrize("name", ["demo/llava-next", "demo/qwen2-vl"])
def test_a_demo_answers_as_it_does_setting_by_setting(name, monkeypatch, tmp_path):
    model = mmlens.load(name)
    samples = take_per_value(load_samples(demo_data(name), split="test"), "domain", 2)
    ids = frozenset(s.id for s in samples)
    pictured = ids_with(model, samples, "image")
    few, many = drawn(model, 0.3), drawn(model, 0.97, seed=1)
    settings = [
        Condition("none", (), ids),
        Condition("zero", (many,), ids),
        Condition("few", (few,), ids),
        Condition("keep", (many,), ids, Intervention("keep_only")),
        Condition("minimum", (few,), ids, Intervention("layer_minimum")),
        Condition("set", (few,), ids, Intervention("set_to", 20.0)),
        Condition("pictures", (many,), pictured, Intervention(group="image")),
        Condition("text", (many,), ids, Intervention(group="text", new_tokens=True)),
    ]
    runs = []
    generate = type(model).generate

    def counted(self, batch, **options):
        runs.append(len(batch))
        return generate(self, batch, **options)

    monkeypatch.setattr(type(model), "generate", counted)
    batching = Batching(max_batch=32, token_budget=10**6)
    options = {"max_new_tokens": 6, "batching": batching}
    path = tmp_path / "answers.jsonl"
    together = evaluate(model, samples, settings, answers=path, **options)
    beside, runs[:] = list(runs), []
    alone = evaluate(model, samples, settings, together=False, **options)
    pd.testing.assert_frame_equal(together.frame, alone.frame)
    assert together.tokens == alone.tokens
    assert len(path.read_text().splitlines()) == len(together.frame) == sum(beside) == sum(runs)
    assert max(beside) <= 32
    assert len(beside) * 2 <= len(runs)
    texts = together.frame.groupby("setting").prediction.agg(tuple)
    assert len(set(texts)) >= 4  # they do different things
    assert (together.frame.prediction != "").mean() > 0.5


def test_how_many_run_side_by_side(qwen):
    language, vision = drawn(qwen, 0.1), drawn(qwen, 0.1, module="vision")
    ids = frozenset({"a"})
    settings = [
        Condition("none", (), ids),
        Condition("tower", (language, vision), ids),
        *(Condition(f"s{i}", (language,), ids) for i in range(4)),
        Condition("resample", (language,), ids, Intervention("resample")),
    ]
    hooks = ConditionHooks(qwen, Donors((), "auto"))
    answerer = Answerer(hooks, Decoding(1, 0.0, 0), Batching(token_budget=100, max_batch=8))

    def sizes(answerer, *shape):
        runs = answerer.runs(shape, settings)
        assert [one for run in runs for one in run if one.beside_others] == [
            one for one in settings if one.beside_others
        ]
        assert runs[-2:] == [[settings[1]], [settings[-1]]]
        return [len(run) for run in runs[:-2]]

    assert sizes(answerer, 1, 10) == [5]
    assert sizes(answerer, 2, 10) == [4, 1]  # 8 rows
    assert sizes(answerer, 2, 20) == [2, 2, 1]  # 80 tokens
    assert sizes(answerer, 1, 101) == [1] * 5  # one at least
    assert sizes(replace(answerer, together=False), 1, 10) == [1] * 5


def test_towers_donors_and_the_rest_in_one_evaluation(qwen, questions):
    ids = frozenset(s.id for s in questions)
    language, vision = drawn(qwen, 0.6), drawn(qwen, 0.9, module="vision")
    settings = [
        Condition("none", (), ids),
        Condition("tower", (vision,), ids_with(qwen, questions, "image")),
        Condition("zero", (language,), ids),
        Condition("resample", (language,), ids, Intervention("resample")),
        Condition("half", (drawn(qwen, 0.5, 1),), frozenset(sorted(ids)[::2])),
    ]
    options = {"max_new_tokens": 4}
    together = evaluate(qwen, questions, settings, **options)
    alone = evaluate(
        qwen, questions, settings, together=False, batching=Batching(max_batch=1), **options
    )
    pd.testing.assert_frame_equal(together.frame, alone.frame)
    assert together.frame.groupby("setting").prediction.agg(tuple).nunique() == len(settings)


def test_draws_belong_to_the_sample_beside_other_settings(qwen, questions):
    ids = frozenset(s.id for s in questions)
    same = [Condition(name, (), ids) for name in ("a", "b", "c")]
    other = Condition("other", (drawn(qwen, 0.6),), ids)
    options = {"max_new_tokens": 5, "temperature": 0.9, "seed": 3}
    out = evaluate(qwen, questions, [*same, other], **options)
    alone = evaluate(
        qwen, questions, [other, *same], together=False, batching=Batching(max_batch=2), **options
    )
    pd.testing.assert_frame_equal(out.frame, alone.frame)
    texts = out.frame.groupby("setting").prediction.agg(tuple)
    assert texts["a"] == texts["b"] == texts["c"] != texts["other"]


def test_a_stopped_run_goes_on_with_what_is_missing(qwen, questions, tmp_path, monkeypatch):
    ids = frozenset(s.id for s in questions)
    settings = [Condition(f"s{i}", (drawn(qwen, 0.5, i),), ids) for i in range(5)]
    path = tmp_path / "answers.jsonl"
    options = {"max_new_tokens": 3, "answers": path, "batching": Batching(max_batch=18)}
    generate = type(qwen).generate
    runs = []

    def fails_at_the_second(self, batch, **kwargs):
        runs.append(len(batch))
        if len(runs) == 2:
            raise RuntimeError("stopped")
        return generate(self, batch, **kwargs)

    monkeypatch.setattr(type(qwen), "generate", fails_at_the_second)
    with pytest.raises(RuntimeError, match="stopped"):
        evaluate(qwen, questions, settings, **options)
    assert len(path.read_text().splitlines()) == runs[0] == 2 * len(ids)
    again = evaluate(qwen, questions, settings, **options)
    assert sum(runs[2:]) == 3 * len(ids)
    pd.testing.assert_frame_equal(
        again.frame, evaluate(qwen, questions, settings, max_new_tokens=3).frame
    )


# Samples without the tokens that are to be changed


def test_a_sample_without_the_group_is_refused_before_anything_runs(qwen, questions, monkeypatch):
    ids = frozenset(s.id for s in questions)
    with_picture = ids_with(qwen, questions, "image")
    assert with_picture == {s.id for s in questions if s.images} != ids
    assert ids_with(qwen, questions, "text") == ids
    assert ids_with(qwen, questions, "audio") == frozenset()  # the model hears nothing
    neurons = (drawn(qwen, 0.5),)
    asked = [
        Condition("none", (), ids, Intervention(group="image")),  # nobody is masked: not refused
        Condition("pictures", neurons, with_picture, Intervention(group="image")),
    ]
    options = {"max_new_tokens": 2}
    assert len(evaluate(qwen, questions, asked, **options).frame) == len(ids) + len(with_picture)
    lacking = min(ids - with_picture)
    wrong = [Condition("all", neurons, ids, Intervention(group="image"))]
    with monkeypatch.context() as patch:
        patch.setattr(type(qwen), "generate", lambda *a, **k: pytest.fail("ran"))
        with pytest.raises(
            SampleError, match=f"'{lacking}' has no token of group 'image', .* 'all'"
        ):
            evaluate(qwen, questions, wrong, **options)
    kept = evaluate(qwen, questions, [asked[0], *wrong], keep_unaffected=True, **options).frame
    answers = kept.pivot(index="id", columns="setting", values="prediction")
    same = answers["none"] == answers["all"]
    assert same[sorted(ids - with_picture)].all()
    assert not same.all()


def test_a_prompt_without_the_tokens_is_refused_at_its_batch(qwen, questions, monkeypatch):
    """What media do not tell: here no prompt has a token that counts as special."""
    ids = frozenset(s.id for s in questions)
    monkeypatch.setattr(
        type(qwen.adapter), "token_ids", lambda self, _: TokenIds(self.placeholders(), frozenset())
    )
    options = {"max_new_tokens": 1}
    for group, refused in (("special_text", False), ("special", True)):
        setting = [Condition("s", (drawn(qwen, 0.5),), ids, Intervention(group=group))]
        if not refused:
            assert len(evaluate(qwen, questions, setting, **options).frame) == len(ids)
            continue
        with pytest.raises(SampleError, match=f"no token of group '{group}'"):
            evaluate(qwen, questions, setting, **options)
        kept = evaluate(qwen, questions, setting, keep_unaffected=True, **options)
        assert len(kept.frame) == len(ids)


def test_frames_at_the_placeholder_of_pictures_are_image_tokens():
    model = spliced("internvl")
    samples = family("internvl").samples()
    films = {s.id for s in samples if s.videos and not s.images}
    assert films
    assert films <= ids_with(model, samples, "image")
    assert ids_with(model, samples, "video") == frozenset()
    batch = model.prepare(samples)
    for group in ("image", "video"):
        has = batch.groups.mask(group).any(-1).tolist()
        assert ids_with(model, samples, group) == {
            s.id for s, one in zip(samples, has, strict=True) if one
        }
