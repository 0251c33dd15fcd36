"""Metrics of captions, against values of the official COCO evaluation, nltk and numpy."""

import math
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmlens.ablation.conditions import Condition
from mmlens.ablation.evaluate import evaluate
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.metrics.caption_bleu import bleu, bleu_method1, corpus_bleu
from mmlens.metrics.caption_cider import cider, tfidf_cosine
from mmlens.metrics.scoring import check_scorable, metric, scorer
from mmlens.metrics.words import caption_words

# A caption and its references.
CAPTIONS = {
    "dog": (
        "A brown dog runs across the green grass.",
        [
            "A dog runs across the grass.",
            "A brown dog is running on green grass.",
            "The dog runs in a field.",
            "A dog running through a grassy field",
            "The brown dog runs across the green grass.",
        ],
    ),
    "cat": ("Two cats sleeping on a sofa", ["Two cats sleeping on a sofa"] * 2),
    "bus": (
        "A man's red bus doesn't stop, it drives down the street",
        [
            "A red double-decker bus drives down the street.",
            "A man's bus that doesn't stop on a city street",
            "The bus is red",
        ],
    ),
    "zebra": ("zebras", ["A herd of zebras grazing in the grass.", "Zebras in a field"]),
    "boat": (
        "the " * 17 + "boat",
        ["The boat on the water", "A small boat is on the water near the dock"],
    ),
    "none": ("nothing", ["A plate of food on a table", "Food on the table."]),
}
SAID, REFERENCES = zip(*CAPTIONS.values(), strict=True)

# pycocoevalcap 1.2: PTBTokenizer (Stanford's, in Java), then Cider().compute_score, and BLEU-4 of
# Bleu(4).compute_score, on CAPTIONS.
COCO_CIDER = {
    "dog": 3.7708665927258656,
    "cat": 10.0,
    "bus": 1.9273978388690118,
    "zebra": 1.1445596483465323,
    "boat": 0.1649971925358111,
    "none": 0.0,
}
COCO_BLEU = 0.4110957373463837

# nltk 3.10.4: sentence_bleu([reference.split()], caption.split(), method1), per reference.
NLTK = {
    "dog": [
        0.38260294162784475,
        0.17286039232097053,
        0.05873949094699214,
        0.03303164318013808,
        0.8408964152537145,
    ],
    "cat": [1.0, 1.0],
    "bus": [0.11094660471566163, 0.05012578715739066, 0.022416933501922302],
    "zebra": [0.00016215809237314185, 0.0],
    "boat": [0.01284618972676772, 0.014216645907653848],
    "none": [0.0, 0.0],
}
NLTK_PAIRS = [
    ("a cat", "a cat", 0.316227766016838),
    ("a cat sat down here", "a cat sat down", 0.668740304976422),
    ("a b c d", "x y", 0.0),
    ("the the the the the", "the cat the mat", 0.06389431042462725),
    ("a b c", "a b c d e f g", 0.14823156396438122),
    ("A cat sat.", "a cat sat.", 0.24028114141347542),
]

TEXT = st.lists(st.sampled_from(["a", "dog", "cat", "runs", "on", "red"]), max_size=9).map(" ".join)
FULL = TEXT.filter(bool)
REFS = st.lists(FULL, min_size=1, max_size=4)
METRICS = ("bleu", "bleu_method1", "bleu_method1_max", "bleu_method1_min") + (
    *("tfidf_cosine", "tfidf_cosine_max", "tfidf_cosine_min"),
)


# What a word is: PTBTokenizer of pycocoevalcap 1.2 on the same texts, but for the last two.
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man's dog doesn't run, it walks.", "a man 's dog does n't run it walks"),
        ("A black-and-white cat; 3.5 feet long!", "a black-and-white cat 3.5 feet long"),
        ('"STOP" sign at 10:30 o\'clock', "stop sign at 10:30 o'clock"),
        ("two men -- one old \u2013 on a bench\u2026", "two men one old on a bench"),
        ("it's the dogs' ball", "it 's the dogs ball"),
        ("mother/daughter 1,000 people.", "mother/daughter 1,000 people"),
        ("A caf\u00e9\u2019s sign", "a caf\u00e9 's sign"),
        ("a $5 (blurred) bill", "a 5 blurred bill"),
        ("U.S. flag", "u.s flag"),
    ],
)
def test_words_of_captions(text, words):
    assert caption_words(text) == words.split()


# CIDEr


def test_cider_of_the_official_evaluation():
    scores = cider(SAID, REFERENCES)
    assert scores == pytest.approx(list(COCO_CIDER.values()), abs=1e-12)


def plain_cider(said, references):
    """CIDEr-D as dense vectors over every n-gram that occurs."""

    def grams(text, n):
        words = text.split()
        return [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]

    scores = np.zeros(len(said))
    for n in range(1, 5):
        every = sorted({g for text in [*said, *sum(references, [])] for g in grams(text, n)})
        holds = np.array(
            [[any(g in grams(r, n) for r in own) for g in every] for own in references]
        )
        idf = np.log(len(said)) - np.log(np.maximum(1, holds.sum(0)))

        def vector(text, n=n, every=every, idf=idf):
            found = Counter(grams(text, n))
            return np.array([found[g] for g in every]) * idf

        for k, own in enumerate(references):
            one = vector(said[k])
            for text in own:
                other = vector(text)
                sizes = np.linalg.norm(one) * np.linalg.norm(other)
                if sizes > 0:
                    apart = len(said[k].split()) - len(text.split())
                    alike = np.minimum(one, other) @ other / sizes
                    scores[k] += np.exp(-(apart**2) / 72) * alike / len(own)
    return 10 * scores / 4


@settings(max_examples=40)
@given(st.lists(st.tuples(TEXT, REFS), min_size=2, max_size=4))
def test_cider_from_its_formula(pairs):
    said, references = map(list, zip(*pairs, strict=True))
    scores = cider(said, references)
    assert scores == pytest.approx(list(plain_cider(said, references)), abs=1e-9)
    assert all(0 <= score <= 10 + 1e-9 for score in scores)
    backwards = [own[::-1] for own in references][::-1]
    assert cider(said[::-1], backwards)[::-1] == pytest.approx(scores)
    assert cider([f"{text.upper()}!" for text in said], references) == scores


def test_cider_of_what_every_picture_has_is_nothing():
    assert cider(["a b c d", "a b c d"], [["a b c d"], ["a b c d"]]) == [0.0, 0.0]
    # Three words have no sequence of four: three of four cosines are 1.
    assert cider(["a b c", "x"], [["a b c"], ["y"]]) == pytest.approx([7.5, 0.0])


# BLEU


def test_corpus_bleu_of_the_official_evaluation():
    assert corpus_bleu(SAID, REFERENCES) == pytest.approx(COCO_BLEU, abs=1e-9)
    assert corpus_bleu(SAID[::-1], REFERENCES[::-1]) == pytest.approx(COCO_BLEU, abs=1e-9)


def test_corpus_bleu_is_not_smoothed():
    assert corpus_bleu(["a b c x d"], [["a b c d", "x"]]) == 0.0
    assert corpus_bleu(["A b c d.", "x"], [["a b c d"], ["x", "y"]]) == 1.0


@given(FULL, REFS)
def test_sentence_bleu_from_its_formula(said, answers):
    words = said.split()
    logs, smooth = [], 1.0
    for n in range(1, min(4, len(words)) + 1):
        own, *others = (
            Counter(zip(*(t.split()[i:] for i in range(n)), strict=False)) for t in (said, *answers)
        )
        best = {g: max(other[g] for other in others) for g in own}
        right = sum(min(count, best[g]) for g, count in own.items())
        if not right:
            if n == 1:
                assert bleu(said, answers) == 0.0
                return
            smooth *= 2
        logs.append(math.log((right or 1 / smooth) / own.total()))
    length = min((abs(len(a.split()) - len(words)), len(a.split())) for a in answers)[1]
    expected = math.exp(min(0, 1 - length / len(words)) + sum(logs) / len(logs))
    assert bleu(said, answers) == pytest.approx(expected)


@pytest.mark.parametrize("name", CAPTIONS)
def test_method1_of_nltk(name):
    said, answers = CAPTIONS[name]
    single = [bleu_method1(said, [answer]) for answer in answers]
    assert single == pytest.approx(NLTK[name], abs=1e-12)
    assert bleu_method1(said, answers) == pytest.approx(np.mean(NLTK[name]))
    assert metric("bleu_method1_max")(said, answers) == pytest.approx(max(NLTK[name]))
    assert metric("bleu_method1_min")(said, answers) == pytest.approx(min(NLTK[name]))


@pytest.mark.parametrize(("said", "reference", "score"), NLTK_PAIRS)
def test_method1_of_nltk_on_short_texts(said, reference, score):
    assert bleu_method1(said, [reference]) == pytest.approx(score, abs=1e-12)


# TF-IDF


@settings(max_examples=40)
@given(TEXT, st.lists(FULL, min_size=1, max_size=5))
def test_tfidf_cosine_from_its_formula(said, answers):
    texts = [[w for w in t.split() if len(w) > 1] for t in (said, *answers)]
    assume(any(texts[1:]))
    vocabulary = sorted(set(sum(texts, [])))
    counts = np.array([[t.count(w) for w in vocabulary] for t in texts], dtype=float)
    vectors = counts * (np.log((1 + len(texts)) / (1 + (counts > 0).sum(0))) + 1)
    norms = np.linalg.norm(vectors, axis=1)
    products = vectors[1:] @ vectors[0]
    cosines = np.divide(
        products, norms[1:] * norms[0], where=products > 0, out=np.zeros_like(products)
    )
    assert tfidf_cosine(said, answers) == pytest.approx(cosines.mean())
    assert metric("tfidf_cosine_max")(said, answers) == pytest.approx(cosines.max())
    assert metric("tfidf_cosine_min")(said, answers) == pytest.approx(cosines.min())


# All of them


@settings(max_examples=40)
@given(TEXT, REFS)
def test_bounds_and_what_does_not_count(said, answers):
    assume(any(len(word) > 1 for word in " ".join(answers).split()))
    for name in METRICS:
        score = metric(name)
        value = score(said, answers)
        assert 0 <= value <= 1
        assert score(said, answers[::-1]) == pytest.approx(value)
        if "method1" not in name:
            assert score(f"{said.upper()}.", [a.title() for a in answers]) == pytest.approx(value)


@given(FULL)
def test_the_same_text_scores_most(text):
    assert bleu(text, [text, "something else"]) == 1.0
    if len(text.split()) > 3:
        assert bleu_method1(text, [text] * 2) == pytest.approx(1.0)
    if any(len(word) > 1 for word in text.split()):
        assert tfidf_cosine(text, [text] * 2) == pytest.approx(1.0)
    if len(text.split()) > 3:
        assert cider([text, "x"], [[text] * 2, ["y"]])[0] == pytest.approx(10.0)


# By name, for samples


def captioned(name, *answers, domain=None):
    return Sample(name, "Describe.", answers=answers, domain=domain)


SAMPLES = [captioned(name, *answers, domain="coco") for name, (_, answers) in CAPTIONS.items()]


def test_a_scorer_is_made_of_all_samples():
    by_name = dict(zip(CAPTIONS, SAMPLES, strict=True))
    score = scorer("cider", SAMPLES)
    for name, (said, _) in CAPTIONS.items():
        assert score(said, by_name[name]) == pytest.approx(COCO_CIDER[name])
    # A sample without references describes nothing.
    same = scorer("cider", [*SAMPLES, captioned("empty")])
    assert same(SAID[0], SAMPLES[0]) == pytest.approx(COCO_CIDER["dog"])
    fewer = scorer("cider", SAMPLES[:2])
    assert fewer(SAID[0], SAMPLES[0]) != pytest.approx(COCO_CIDER["dog"])


def test_each_domain_has_its_own_pictures():
    other = captioned("q", "A brown dog", "yes", domain="vqa")
    score = scorer({"coco": "cider", "vqa": "exact_match"}, [*SAMPLES, other])
    assert score(SAID[0], SAMPLES[0]) == pytest.approx(COCO_CIDER["dog"])
    assert score("Yes.", other) == 1.0
    # A metric may be named for a domain that is not asked.
    score = scorer({"coco": "cider", "vqa": "exact_match"}, [other])
    assert score("Yes.", other) == 1.0
    with pytest.raises(SampleError, match="'dog' of domain 'coco' is not among those"):
        score(SAID[0], SAMPLES[0])


def test_evaluate_gives_the_samples(mistral_model):
    samples = [
        Sample(str(i), text, answers=(answer,))
        for i, (text, answer) in enumerate([("Go on", "a b c d"), ("And you", "e f g h")])
    ]
    setting = Condition("none", (), frozenset("01"))
    out = evaluate(mistral_model, samples, [setting], metric_name="cider", max_new_tokens=3)
    said = list(out.frame.sort_values("id")["prediction"])
    assert list(out.frame.sort_values("id")["score"]) == cider(said, [s.answers for s in samples])


def test_cider_without_samples_or_with_too_few():
    with pytest.raises(SampleError, match=r"depends on all samples.*scorer\('cider', samples\)"):
        scorer("cider")
    with pytest.raises(SampleError, match=r"use scorer\('cider', samples\)"):
        metric("cider")
    for few in ([], SAMPLES[:1]):
        with pytest.raises(SampleError, match=f"the references of {len(few)} were given"):
            scorer("cider", few)
    with pytest.raises(SampleError, match="2 predictions with references for 1"):
        cider(["a", "b"], [["a"]])


@pytest.mark.parametrize("name", [*METRICS, "cider"])
def test_references_without_words_are_told_before_asking(name):
    check_scorable(name, captioned("q", "...", "a dog"))
    with pytest.raises(SampleError, match=f"'q': The metric '{name[:4]}.*needs a reference with"):
        check_scorable(name, captioned("q", "...", "!"))


@pytest.mark.parametrize("references", [[], [["a"]], [["a"], ["?"]]])
def test_a_corpus_that_does_not_fit(references):
    with pytest.raises(SampleError, match="references for|needs a reference with"):
        corpus_bleu(["a", "b"], references)


def test_without_sacrebleu(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(
        SampleError, match=r"BLEU needs the package sacrebleu.*\"mmlens\[metrics\]\""
    ):
        check_scorable("bleu", captioned("q", "a dog"))
    check_scorable("bleu_method1", captioned("q", "a dog"))
