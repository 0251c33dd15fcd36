"""Log-probabilities against scipy and plain Hugging Face, tables and weights by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax

from mmlens import plots
from mmlens.ablation.conditions import Condition
from mmlens.ablation.effects import effects_table
from mmlens.ablation.likelihood import evaluate_texts, likelihood_table, log_probabilities
from mmlens.ablation.masks import Mask
from mmlens.ablation.paired import paired_effect
from mmlens.ablation.plan import domain_conditions
from mmlens.ablation.questions import Questions
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.neurons import NeuronSet
from mmlens.selection.recipe import Recipe
from mmlens.streaming.batching import Batching
from tests.helpers.reference import zeroed_columns

TEXTS = [
    Sample("a", "w1 w2 w3 cat dog", domain="en"),
    Sample("b", "one w9", domain="fr"),
    Sample("c", "what is a red cat ? w30 w31", domain="fr"),
]
NEURONS = NeuronSet([(0, 3), (1, 8), (1, 9), (2, 40)], "language", (3, 48))
EVERY = frozenset("abc")


def test_log_probabilities_are_scipys_and_padding_is_none():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 6, 9)) * 5
    tokens = rng.integers(0, 9, size=(3, 6))
    real = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=bool)
    logits[~real] = np.nan
    sums, counts = log_probabilities(*(torch.tensor(x) for x in (logits, tokens, real)))
    for row in range(3):
        there = np.flatnonzero(real[row])
        expected = [log_softmax(logits[row, t])[tokens[row, t + 1]] for t in there[:-1]]
        assert int(counts[row]) == len(expected)
        assert float(sums[row]) == pytest.approx(sum(expected), abs=1e-4)


def test_texts_under_masks_are_those_of_hugging_face(mistral_model):
    settings = [Condition("none", (), EVERY), Condition("masked", (NEURONS,), frozenset("ab"))]
    results = evaluate_texts(mistral_model, TEXTS, settings)
    assert list(zip(results.setting, results.id, strict=True)) == [
        *(("none", i) for i in "abc"),
        *(("masked", i) for i in "ab"),
    ]
    by_id = {t.id: t for t in TEXTS}
    for row in results.itertuples():
        ids = mistral_model.tokenizer(by_id[row.id].text, return_tensors="pt")["input_ids"]
        none = NeuronSet([], "language", (3, 48))
        with (
            torch.no_grad(),
            zeroed_columns(mistral_model.hf, NEURONS if row.setting == "masked" else none),
        ):
            # Hugging Face's own loss is the mean negative log-probability.
            loss = float(mistral_model.hf(input_ids=ids, labels=ids).loss)
        assert row.tokens == ids.shape[1] - 1
        assert row.score == pytest.approx(-loss, rel=1e-4)
        assert row.log_prob == pytest.approx(-loss * row.tokens, rel=1e-4)
    assert results.score[0] != pytest.approx(results.score[3], abs=1e-3)  # the mask does something


def test_a_second_call_runs_only_what_is_missing(mistral_model, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    settings = [Condition("none", (), EVERY), Condition("masked", (NEURONS,), EVERY)]
    whole = evaluate_texts(
        mistral_model, TEXTS, settings, rows=path, batching=Batching(max_batch=1)
    )
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:20])
    runs = []
    forward = type(mistral_model).forward
    monkeypatch.setattr(
        type(mistral_model), "forward", lambda *a, **k: runs.append(1) or forward(*a, **k)
    )
    again = evaluate_texts(
        mistral_model, TEXTS, settings, rows=path, batching=Batching(max_batch=1)
    )
    pd.testing.assert_frame_equal(again, whole)
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("texts", "settings", "match"),
    [
        (TEXTS, [Condition("x", (), frozenset("z"))], "unknown sample 'z'"),
        (TEXTS, [Condition("x", (), EVERY)] * 2, "same name"),
        ([*TEXTS, TEXTS[0]], [Condition("x", (), EVERY)], "same id"),
        ([Sample("a", "dog")], [Condition("x", (), frozenset("a"))], "single token"),
    ],
)
def test_what_is_refused(mistral_model, texts, settings, match):
    with pytest.raises(SampleError, match=match):
        evaluate_texts(mistral_model, texts, settings)


def mask(label, kind, seed):
    recipe = Recipe.of_domains(0.01)
    return Mask(label, (NEURONS,), recipe, kind=kind, seed=seed, measure=0.2)


def study():
    """Made-up results of a mask and one control of each kind, for two languages."""
    masks = [mask("en", kind, seed) for kind, seed in KINDS]
    texts = [Sample(f"{lang}{i}", "?", domain=lang) for lang in ("en", "fr") for i in range(3)]
    questions = Questions.choose(texts, ["en", "fr"], 3, 3, 0)
    rng = np.random.default_rng(0)
    rows = []
    for setting in domain_conditions(masks, questions, full=True):
        for name in sorted(setting.ids):
            tokens = 1 + 7 * int(name[-1])
            total = -tokens * float(rng.uniform(1, 3))
            score = {"log_prob": total, "tokens": tokens, "score": total / tokens}
            rows.append({"setting": setting.name, "id": name, **score})
    return masks, questions, pd.DataFrame(rows)


KINDS = [("mask", -1), ("random", 0), ("random", 1), ("matched", 0)]


def mean(results, setting, language):
    """Nats per token over all tokens of a language."""
    rows = [r for r in results.itertuples() if r.setting == setting and r.id.startswith(language)]
    return sum(r.log_prob for r in rows) / sum(r.tokens for r in rows)


def test_perplexity_is_over_all_tokens():
    masks, questions, results = study()
    table = likelihood_table(results, masks, questions.samples)
    assert len(table) == 5 * 2
    for row in table.itertuples():
        name = "none" if row.kind == "none" else mask("en", row.kind, row.seed).name
        expected = mean(results, name, row.evaluated)
        assert row.log_prob == pytest.approx(expected)
        assert row.perplexity == pytest.approx(math.exp(-expected))
        assert (row.n_texts, row.tokens) == (3, 24)


def test_effects_weigh_texts_by_their_tokens():
    masks, questions, results = study()
    weights = dict(zip(results.id, map(float, results.tokens), strict=True))
    effects = effects_table(results, masks, questions, full=True, weights=weights)
    for row in effects.itertuples():
        if row.evaluated not in ("en", "fr"):
            continue
        names = {kind: [m.name for m in masks if m.kind == kind] for kind, _ in KINDS}
        base, masked = (mean(results, n, row.evaluated) for n in ("none", *names["mask"]))
        control = np.mean([mean(results, n, row.evaluated) for n in names[row.control]])
        assert row.drop == pytest.approx(base - masked)
        assert row.difference == pytest.approx(control - masked)
        assert row.low <= row.difference <= row.high
    figure = plots.effect_matrix(
        effects, "random", domains=["en", "fr"], unit=plots.NATS, asked_of="texts"
    )
    cell = effects[(effects.control == "random") & (effects.evaluated == "fr")].iloc[0]
    assert figure.data[0].z[0][1] == pytest.approx(cell.difference)
    assert figure.data[0].text[0][1].startswith(f"{cell.difference:+.3f}")
    assert figure.data[0].colorbar.title.text == "nats per token"
    assert figure.layout.xaxis.title.text == "texts of"
    assert plots.NATS.text(-0.0001) == plots.NATS.text(0.0001) == "0.000"
    assert plots.POINTS.text(math.nan) == "n/a"


def test_weights_are_copies_of_questions():
    rng = np.random.default_rng(1)
    baseline, masked = rng.uniform(size=(2, 6))
    controls = rng.uniform(size=(3, 6))
    copies = np.array([1, 2, 3, 1, 5, 2])
    clusters = list(range(6))
    weighted = paired_effect(baseline, masked, controls, clusters, weights=copies.astype(float))
    copied = paired_effect(
        baseline.repeat(copies),
        masked.repeat(copies),
        controls.repeat(copies, axis=1),
        list(np.repeat(clusters, copies)),
    )
    for name in ("baseline", "masked", "control_mean", "control_sd", "difference", "low", "high"):
        assert getattr(weighted, name) == pytest.approx(getattr(copied, name))
