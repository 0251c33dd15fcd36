"""BLEU: how many of a caption's word sequences stand in the references."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from mmlens.errors import SampleError
from mmlens.metrics.libraries import library
from mmlens.metrics.words import caption_words, reference_words

#: How scores against single references become one.
Over = Literal["mean", "max", "min"]

#: What smoothing method 1 counts instead of 0 matches.
_EPSILON = 0.1


def bleu(prediction: str, answers: Sequence[str]) -> float:
    """Sentence BLEU-4 against all references at once, a share in [0, 1] (tables print it x 100).

    BLEU of Papineni et al. 2002 by the package sacrebleu, on the words of
    :func:`mmlens.metrics.words.caption_words`: geometric mean of the clipped precisions of 1 to 4 words,
    times the brevity penalty against the nearest reference length. A precision of 0 is smoothed by
    sacrebleu's exponential decay (Chen and Cherry 2014, method 3), and lengths that a short
    prediction does not have are left out. The mean over a data set is not its BLEU: see
    :func:`corpus_bleu`.

    Raises:
        SampleError: no reference has a word, or sacrebleu is not installed.

    >>> bleu("A dog runs.", ["the cat sits", "a dog runs"])
    1.0
    """
    scores = _metric(smooth_method="exp", effective_order=True)
    references = [" ".join(words) for words in reference_words(answers, "bleu")]
    said = " ".join(caption_words(prediction))
    return min(1.0, scores.sentence_score(said, references).score / 100)


def corpus_bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of a data set, a share in [0, 1] (tables print it x 100).

    As :func:`bleu`, but matches and lengths are summed over all predictions before the precisions
    are taken, and nothing is smoothed: the definition of Papineni et al. 2002. It is 0 where no four
    words in a row match anywhere.

    Args:
        predictions: a caption each.
        references: the reference captions of each; not all need as many.

    Raises:
        SampleError: not one list of references for each prediction, none at all, references without
            a word, or sacrebleu is not installed.
    """
    scores = _metric(smooth_method="none")
    if not predictions or len(predictions) != len(references):
        raise SampleError(
            f"{len(predictions)} predictions with references for {len(references)} were given; give "
            "references for each, and at least one prediction."
        )
    tokens = [[" ".join(w) for w in reference_words(texts, "bleu")] for texts in references]
    most = max(map(len, tokens))
    columns = [[texts[i] if i < len(texts) else None for texts in tokens] for i in range(most)]
    said = [" ".join(caption_words(text)) for text in predictions]
    return min(1.0, scores.corpus_score(said, columns).score / 100)


def bleu_method1(prediction: str, answers: Sequence[str], *, over: Over = "mean") -> float:
    """BLEU-4 against each reference alone, then mean, highest or lowest of these, in [0, 1].

    What MINER's code computes for COCO captions (methods 3.6; it writes all three). In contrast to
    :func:`bleu`, a precision without a match counts 0.1 matches (Chen and Cherry 2014, method 1),
    and a text of fewer than four words keeps its missing lengths, with 0.1 of 1: identical short
    texts score below 1. No common word at all is 0. Methods does not say how that code splits words;
    here at spaces, case and punctuation kept.

    Args:
        prediction: what the model said.
        answers: the references.
        over: how the scores against single references become one.

    Raises:
        SampleError: no reference has a word.

    >>> round(bleu_method1("a cat sat down here", ["a cat sat down"]), 4)
    0.6687
    """
    reference_words(answers, "bleu_method1")
    scores = [_against_one(prediction.split(), answer.split()) for answer in answers]
    return over_references(scores, over)


def over_references(scores: Sequence[float], over: Over) -> float:
    """Mean, highest or lowest of the scores against single references."""
    return {"mean": math.fsum(scores) / len(scores), "max": max(scores), "min": min(scores)}[over]


def ngrams(words: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
    """How often each sequence of ``length`` words occurs."""
    return Counter(tuple(words[i : i + length]) for i in range(len(words) - length + 1))


def _against_one(said: Sequence[str], reference: Sequence[str]) -> float:
    logs = []
    for length in range(1, 5):
        grams = ngrams(said, length)
        matches = (grams & ngrams(reference, length)).total()
        if length == 1 and not matches:
            return 0.0
        logs.append(math.log((matches or _EPSILON) / max(1, grams.total())))
    brevity = min(0.0, 1 - len(reference) / len(said))
    return math.exp(brevity + math.fsum(logs) / 4)


def _metric(**options: Any) -> Any:
    # The words are split already; force keeps sacrebleu from warning of that.
    return library("sacrebleu", "BLEU").metrics.BLEU(tokenize="none", force=True, **options)
