"""LAPE: golden vectors for the selector, published index lists, and a model of two made-up languages."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import mmlens
from experiments.lape import Config, main
from experiments.shared.config import LoadSettings
from mmlens.entropy import select
from mmlens.errors import MMLensError, RunFolderError, StatisticsError
from mmlens.neurons import NeuronSet, from_index_lists
from tests.tiny import llava_next as tiny

LANGUAGES = ["en", "fr", "zh"]
# Tokens per language, and [layer][neuron][language] counts above zero. The probabilities are
#   layer 0: .90 0 0 | .5 .5 .5 | .10 .05 .10 | 0 0 0 | .60 .60 0
#   layer 1: 0 .80 .02 | .02 .01 .02 | .70 .75 .80 | 0 0 .04 | .30 .20 .10
TOKENS = torch.tensor([100, 200, 50])
COUNTS = torch.tensor(
    [
        [[90, 0, 0], [50, 100, 25], [10, 10, 5], [0, 0, 0], [60, 120, 0]],
        [[0, 160, 1], [2, 2, 1], [70, 150, 40], [0, 0, 2], [30, 40, 5]],
    ]
)


def chosen(fraction):
    found = select(COUNTS, TOKENS, LANGUAGES, fraction=fraction, quantile=0.8)
    return found, {name: list(one) for name, one in found.sets.items()}


def test_golden_vectors():
    """All numbers by hand. tau is the 24th smallest of 30 probabilities: 0.60, which (0, 4) only equals."""
    found, sets = chosen(0.2)
    assert found.tau == 0.6
    assert found.passes.nonzero().tolist() == [[0, 0], [1, 0], [1, 2]]
    # Entropies: one language only; two, even; .80 and .02: -(40/41) ln(40/41) - (1/41) ln(1/41).
    assert found.entropy[0, 0] == 0
    assert found.entropy[0, 4] == pytest.approx(0.6931472, abs=1e-7)
    assert found.entropy[1, 0] == pytest.approx(0.1146650, abs=1e-6)
    assert found.entropy[0, 1] == pytest.approx(1.0986123, abs=1e-7)
    assert found.entropy[0, 3] == 0  # never active: no entropy, and it does not pass
    # 2 of 10 neurons: the two of lowest entropy; (1, 3) has entropy 0 but is too rare.
    assert sets == {"en": [(0, 0)], "fr": [(1, 0)], "zh": []}
    assert found.cut == found.entropy[1, 0]
    # 5 of 10 are asked for and 3 pass; the third is active in all three languages.
    _, sets = chosen(0.5)
    assert sets == {"en": [(0, 0), (1, 2)], "fr": [(1, 0), (1, 2)], "zh": [(1, 2)]}


def test_planted_neurons_are_found_as_numpy_finds_them():
    rng = np.random.default_rng(0)
    tokens = np.array([40000, 60000, 50000])
    p = rng.uniform(0.05, 0.3, size=(4, 100, 1)) * rng.uniform(0.9, 1.1, size=(4, 100, 3))
    planted = {}
    for i, name in enumerate(LANGUAGES):
        places = rng.choice(400, size=3, replace=False)
        planted[name] = {divmod(int(u), 100) for u in places}
        for layer, index in planted[name]:
            p[layer, index] = 0.01
            p[layer, index, i] = 0.7
    everywhere = (2, 50)
    p[everywhere] = 0.9
    counts = rng.binomial(tokens, p)
    found = select(torch.tensor(counts), torch.tensor(tokens), LANGUAGES, fraction=9 / 400)
    assert {name: set(one) for name, one in found.sets.items()} == planted
    # The same with numpy and scipy alone.
    q = counts / tokens
    tau = np.sort(q, axis=None)[round(0.95 * q.size) - 1]
    entropy = np.where((q > tau).any(-1), stats.entropy(q, axis=-1), np.inf)
    best = np.argsort(entropy, axis=None)[:9]
    assert {divmod(int(u), 100) for u in best} == set(found.union)
    assert found.tau == tau


# Published lists


def test_published_lists_become_the_same_sets(tmp_path):
    found, _ = chosen(0.2)
    # As the published code writes it: int64 tensors, and no list for a last language without neurons.
    lists = [[torch.tensor([0]), torch.tensor([]).long()], [torch.tensor([]), torch.tensor([0])]]
    path = tmp_path / "activation_mask"
    torch.save(lists, path)
    for source in (lists, path, str(path)):
        sets = from_index_lists(source, LANGUAGES, (2, 5))
        assert sets == dict(found.sets)
        assert sets["en"].module == "language"
    named = from_index_lists(lists, LANGUAGES, (2, 5), module="vision", model_hash="x")["fr"]
    assert (named.module, named.model_hash) == ("vision", "x")


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("code from a file was run",))


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ([[[0], []]] * 4, "4 lists for 3 names"),
        ({"en": []}, "dict for 3 names"),
        ([[[0]], [[0], []]], "'en' has 1 layers, but the module 2"),
        ([[[0], [5]]], "outside"),
        ([[[0], [-1]]], "outside"),
        ([[[0], torch.tensor([0.5])]], "whole numbers"),
        ([[[0], ["a"]]], "not a list of indices"),
        ([torch.tensor([1])], "Tensor layers"),
    ],
)
def test_other_lists_are_refused(tmp_path, source, match):
    path = tmp_path / "lists.pth"
    torch.save(source, path)
    with pytest.raises(StatisticsError, match=match):
        from_index_lists(path, LANGUAGES, (2, 5))


def test_nothing_else_is_unpickled(tmp_path):
    path = tmp_path / "lists.pth"
    for write in (
        lambda: torch.save([[Payload()]], path),
        lambda: path.write_bytes(pickle.dumps([[Payload()]])),
        lambda: path.write_bytes(b"no such file"),
        lambda: path.write_bytes(b""),
    ):
        write()
        with pytest.raises(StatisticsError, match=r"lists\.pth does not hold lists"):
            from_index_lists(path, LANGUAGES, (2, 5))
    with pytest.raises(FileNotFoundError):
        from_index_lists(tmp_path / "none.pth", LANGUAGES, (2, 5))


# The experiment, on two made-up languages: 20 words each, none in common, walked through in a circle
# by steps of 3 and of 7. The shipped demos know one language only.

STEPS = {"even": (0, 3), "odd": (20, 7)}


def sentence(rng, language, words=12):
    first, step = STEPS[language]
    at, said = int(rng.integers(20)), []
    for _ in range(words):
        said.append(f"w{first + at}")
        at = (at + (step if rng.random() < 0.85 else int(rng.integers(20)))) % 20
    return " ".join(said)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model that has learned both languages, and texts in both layouts."""
    base = tmp_path_factory.mktemp("lape")
    processor, hf = tiny.processor(), tiny.model("vicuna")
    rng = np.random.default_rng(0)
    optimiser = torch.optim.AdamW(hf.parameters(), lr=3e-3)
    for _ in range(150):
        texts = [sentence(rng, language) for language in STEPS for _ in range(16)]
        ids = processor.tokenizer(texts, return_tensors="pt")["input_ids"]
        hf(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    hf.eval().save_pretrained(base / "model")
    processor.save_pretrained(base / "model")
    data = base / "data"
    (data / "test").mkdir(parents=True)
    rows = [
        {"id": i, "text": sentence(rng, language), "language": language}
        for i, language in enumerate(list(STEPS) * 60)
    ]
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for language in STEPS:
        lines = [sentence(rng, language) for _ in range(40)]
        (data / "test" / f"{language}.txt").write_text("\n".join(lines))
    return base


def config(place, out, **changes):
    made = Config(
        load=LoadSettings(str(place / "model")),
        data=place / "data",
        out=out,
        chunk_tokens=12,
        fractions=(0.1, 0.2),
        evaluate_fractions=(0.2,),
        quantile=0.8,
        seeds=3,
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def finished(place):
    main(config(place, place / "run"))
    return place / "run"


def test_a_mask_costs_its_own_language(finished):
    effects = pd.read_csv(finished / "effects.csv")
    matched = effects[effects.control == "matched"].set_index(["mask", "evaluated"])
    for language in STEPS:
        other = next(one for one in STEPS if one != language)
        own, others = matched["drop"][language, language], matched["drop"][language, other]
        assert own > 0.03  # nats per token
        assert own > 3 * others


def test_the_run_folder_is_complete(finished):
    names = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    figures = ("entropy", "neurons_per_language", "layer_distribution", "overlap", "combinations")
    assert {
        "manifest.json",
        "statistics.safetensors",
        "neurons.csv",
        "neurons/language-0.2-even.json",
        "likelihoods.jsonl",
        "likelihoods.csv",
        "effects.csv",
        "figures/matrix_random.html",
        "figures/matrix_matched.html",
        *(f"figures/{name}.html" for name in figures),
    } <= names
    table = pd.read_csv(finished / "likelihoods.csv", keep_default_na=False)
    # Untouched; two languages and both together, each with its mask and 3 + 3 controls; on each.
    assert len(table) == (1 + 3 * 7) * 2
    assert set(table.n_texts) == {40}
    untouched = table[table["mask"] == "none"].perplexity.astype(float)
    assert untouched.max() < 5  # of 40 words: it has learned them
    statistics = mmlens.NeuronStatistics.load(finished / "statistics.safetensors")
    counts = statistics.counts("language", keys=list(STEPS))
    assert counts[1].tolist() == [60 * 12, 60 * 12]
    expected = select(*counts, list(STEPS), fraction=0.2, quantile=0.8).sets
    for language, neurons in expected.items():
        assert NeuronSet.load(finished / f"neurons/language-0.2-{language}.json") == neurons


def test_a_second_start_redoes_nothing(place, finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    main(config(place, finished))
    assert "nothing is left to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_an_interrupted_run_ends_the_same(place, finished, tmp_path, monkeypatch):
    import experiments.lape as experiment

    real = experiment.evaluate_texts

    def dying(model, texts, settings, **kwargs):
        real(model, texts, settings[:4], **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "evaluate_texts", dying)
    with pytest.raises(KeyboardInterrupt):
        main(config(place, tmp_path / "run"))
    monkeypatch.setattr(experiment, "evaluate_texts", real)
    main(config(place, tmp_path / "run"))
    for name in ("likelihoods.csv", "effects.csv", "neurons.csv"):
        assert (tmp_path / "run" / name).read_text() == (finished / name).read_text()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"languages": ("even", "latin")}, "latin.*even, odd"),
        ({"languages": ("even",)}, "Two languages or more"),
        ({"test_split": "validation"}, "validation"),
        ({"evaluate_fractions": (0.3,)}, "0.3 is to be silenced"),
        ({"chunk_tokens": 1}, "two tokens"),
    ],
)
def test_bad_settings_are_one_sentence(place, tmp_path, changes, match):
    with pytest.raises(MMLensError, match=match):
        main(config(place, tmp_path / "run", **changes))


def test_other_texts_are_refused(place, finished, tmp_path):
    with pytest.raises(RunFolderError, match="seeds"):
        main(config(place, finished, seeds=2))
