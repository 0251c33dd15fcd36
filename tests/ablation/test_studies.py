"""Every study does what its masks say: with ``scale`` it differs from ``zero``, and equals plain hooks."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mmlens
from mmlens.ablation.conditions import Condition
from mmlens.ablation.deviation import deviation
from mmlens.ablation.evaluate import evaluate
from mmlens.ablation.intervention import Intervention
from mmlens.ablation.likelihood import evaluate_texts
from mmlens.ablation.masks import Mask
from mmlens.data.samples import Sample
from mmlens.errors import SampleError, StatisticsError
from mmlens.neurons import NeuronSet
from mmlens.selection.recipe import Recipe
from mmlens.states.conditions import mask_conditions
from mmlens.states.study import study_states
from mmlens.storage.atomic import read_jsonl
from mmlens.streaming.batching import Batching
from mmlens.streaming.sweep import Share
from tests.tiny import llava_next as tiny

SCALED = Intervention("scale", 0.5)
NEURONS = NeuronSet([(layer, i) for layer in range(3) for i in range(30)], "language", (3, 48))
QUIET = Batching(progress=False)
LAYERS = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]


def halved(model):
    """Hooks written here: half of each neuron's product, which is that of half its activation."""
    chosen = NEURONS.mask()

    def post(layer):
        def halve(value, hook):  # noqa: ARG001
            return torch.where(chosen[layer], value / 2, value)

        return halve

    return [(f"blocks.{layer}.mlp.hook_post", post(layer)) for layer in range(model.cfg.n_layers)]


@pytest.fixture(scope="module")
def questions():
    return [replace(s, answers=("one",)) for s in tiny.samples() if s.images]


def masks():
    recipe = Recipe.of_domains(0.1)
    return [Mask("all", (NEURONS,), recipe, one) for one in (Intervention(), SCALED)]


def conditions(samples):
    ids = frozenset(s.id for s in samples)
    return [Condition(one.name, one.neurons, ids, one.intervention) for one in masks()]


def states(model, batch, hooks):
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        _, cache = model.run_with_cache(batch, LAYERS)
    return [cache[name][0].double() for name in LAYERS]


def test_answers(mistral_model, questions):
    both = conditions(questions)
    out = evaluate(mistral_model, questions, both, max_new_tokens=6, batching=QUIET)
    said = out.frame.pivot(index="id", columns="setting", values="prediction")
    assert (said[both[0].name] != said[both[1].name]).any()
    for sample in questions:
        with mistral_model.hooks(fwd_hooks=halved(mistral_model)):
            alone = mistral_model.generate(mistral_model.prepare(sample), 6)
        assert said[both[1].name][sample.id] == alone.texts[0]


def test_log_probabilities(mistral_model):
    texts = [Sample("a", "w1 w2 w3 cat dog"), Sample("b", "what is a red cat ? w30 w31")]
    both = conditions(texts)
    found = evaluate_texts(mistral_model, texts, both, batching=QUIET)
    total = found.pivot(index="id", columns="setting", values="log_prob")
    for text in texts:
        batch = mistral_model.prepare(text, template="none")
        with torch.no_grad(), mistral_model.hooks(fwd_hooks=halved(mistral_model)):
            logits = mistral_model(batch)[0].log_softmax(-1)
        expected = sum(float(logits[i, t]) for i, t in enumerate(batch.input_ids[0, 1:]))
        assert total[both[1].name][text.id] == pytest.approx(expected, abs=1e-4)
    assert (total[both[0].name] - total[both[1].name]).abs().min() > 1e-3


def test_deviation(mistral_model, questions):
    zero, scaled = (
        deviation(mistral_model, questions, [one], groups=("last",), batching=QUIET)
        for one in masks()
    )
    assert (zero["mean"] - scaled["mean"]).abs().min() > 1e-6
    moved = []
    for sample in questions:
        batch = mistral_model.prepare(sample)
        before = states(mistral_model, batch, [])
        after = states(mistral_model, batch, halved(mistral_model))
        moved.append(
            [
                float((b[-1] - a[-1]).norm() / b[-1].norm())
                for b, a in zip(before, after, strict=True)
            ]
        )
    rows = scaled[scaled.metric == "relative_l2"].sort_values("layer")
    assert rows["mean"].tolist() == pytest.approx(np.mean(moved, 0).tolist(), rel=1e-4)


def test_states(mistral_model, questions, tmp_path):
    few = questions[:2]
    kept = {}
    for one in (Intervention(), SCALED):
        asked = mask_conditions(
            few, [NEURONS], avoid=[NeuronSet([], "language", (3, 48))], intervention=one
        )
        options = {"permutations": 1, "contributions": False, "pooled_tokens": 10**4}
        study = study_states(
            mistral_model, few, asked, tmp_path / one.name, batching=QUIET, **options
        )
        kept[one.kind] = study.kept("mask", 2)
    assert not torch.allclose(kept["zero"].states, kept["scale"].states)
    found = kept["scale"]
    for i, sample in enumerate(few):
        own = found.samples == i
        last = states(mistral_model, mistral_model.prepare(sample), halved(mistral_model))[2]
        expected = last[found.positions[own]].float()
        torch.testing.assert_close(found.states[own], expected, atol=2e-4, rtol=1e-3)


def test_what_needs_statistics_or_donors_gets_them(mistral_model, questions, tmp_path):
    ids = frozenset(s.id for s in questions)
    statistics = mmlens.collect(mistral_model, questions)
    texts = [Sample("a", "w1 w2 w3 cat dog"), Sample("b", "what is a red cat ? w30 w31")]
    plain = deviation(mistral_model, questions, masks()[:1], batching=QUIET)
    for kind in ("mean", "resample"):
        one = replace(masks()[0], intervention=Intervention(kind))
        asked = [Condition(kind, (NEURONS,), ids, one.intervention)]
        given = {"statistics": statistics, "batching": QUIET}
        moved = deviation(mistral_model, questions, [one], **given)
        assert (moved["mean"] - plain["mean"]).abs().max() > 1e-6
        study = study_states(
            mistral_model, questions, asked, tmp_path / kind, permutations=1, **given
        )
        assert len(study.rows) == len(ids)
        read = replace(asked[0], ids=frozenset("ab"))
        assert len(evaluate_texts(mistral_model, texts, [read], **given)) == 2
    one = replace(masks()[0], intervention=Intervention("mean"))
    asked = [Condition("mean", (NEURONS,), ids, one.intervention)]
    with pytest.raises(SampleError, match="'mean' needs statistics"):
        deviation(mistral_model, questions, [one], batching=QUIET)
    with pytest.raises(SampleError, match="'mean' needs statistics"):
        study_states(mistral_model, questions, asked, tmp_path / "no", batching=QUIET)
    with pytest.raises(SampleError, match="'mean' needs statistics"):
        evaluate_texts(
            mistral_model, texts, [replace(asked[0], ids=frozenset("a"))], batching=QUIET
        )
    other = replace(statistics, model_hash="other")
    with pytest.raises(StatisticsError, match="another model"):
        deviation(mistral_model, questions, [one], statistics=other, batching=QUIET)


def test_a_deviation_is_resumed_with_the_same_bits(mistral_model, questions, tmp_path, monkeypatch):
    path = tmp_path / "deviation.jsonl"
    samples = [*questions, *(s for s in tiny.samples() if not s.images)]
    options = {
        "groups": ("image", "text", "last"),
        "batching": Batching(max_batch=2, progress=False),
    }
    whole = deviation(mistral_model, samples, masks(), **options)
    pd.testing.assert_frame_equal(
        deviation(mistral_model, samples, masks(), rows=path, **options), whole, check_exact=True
    )
    lines = path.read_text().splitlines()
    assert len(lines) == 2 * len(samples)
    path.write_text("\n".join(lines[:5]) + "\n" + lines[5][:40])  # a kill in the middle of a line
    again = deviation(mistral_model, samples, masks(), rows=path, **options)
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    monkeypatch.setattr(type(mistral_model), "forward", lambda *a, **k: pytest.fail("run again"))
    finished = deviation(mistral_model, samples, masks(), rows=path, **options)
    pd.testing.assert_frame_equal(finished, whole, check_exact=True)


@dataclass(frozen=True)
class Together(Share):
    """A share whose other processes have left their rows in a file."""

    others: Path | None = None

    def merged(self, part):
        if self.others is None or not part or not isinstance(part[0], dict):
            return part
        return [*part, *read_jsonl(self.others)]


def test_processes_that_share_a_pass_give_what_one_gives(mistral_model, questions, tmp_path):
    both = conditions(questions)
    few = Batching(max_batch=2, progress=False)
    options = {"max_new_tokens": 2, "batching": few}
    whole = evaluate(mistral_model, questions, both, **options)
    moved = deviation(mistral_model, questions, masks(), batching=few)
    tables = {}
    for rank, others in ((1, None), (0, "1-of-2")):
        given = {
            name: Together(rank, 2, others and tmp_path / f"{name}.{others}.jsonl")
            for name in ("answers", "moved")
        }
        path = tmp_path / "answers.jsonl"
        tables["answers"] = evaluate(
            mistral_model, questions, both, answers=path, share=given["answers"], **options
        ).frame
        path = tmp_path / "moved.jsonl"
        tables["moved"] = deviation(
            mistral_model, questions, masks(), rows=path, batching=few, share=given["moved"]
        )
        assert (len(tables["answers"]) < len(whole.frame)) == (rank == 1)
    pd.testing.assert_frame_equal(tables["answers"], whole.frame)
    pd.testing.assert_frame_equal(tables["moved"], moved, check_exact=True)
