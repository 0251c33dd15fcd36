"""Speech recognition: word errors against a transcript, as usual and as MINER's code counts them."""

from __future__ import annotations

from collections.abc import Sequence

from mmlens.errors import SampleError
from mmlens.metrics.libraries import library


def word_error_rate(
    predictions: Sequence[str], references: Sequence[str], *, as_written: bool = False
) -> float:
    """Word error rate (WER) of a data set: edits of all predictions over words of all references.

    ``(substitutions + deletions + insertions) / reference words``, with the fewest edits for each
    pair (the package jiwer). 0 is perfect; it passes 1 where more is inserted than was said. Long
    transcripts count more than short ones, as is usual in tables; the mean of
    :func:`word_accuracy` is another number.

    Args:
        predictions: what the model said.
        references: the transcript of each.
        as_written: only lower case; otherwise both are normalised first (:func:`spoken`).

    Raises:
        SampleError: not one transcript for each prediction, no word in the transcripts, or jiwer is
            not installed.

    >>> word_error_rate(["The cat sat.", "on mats"], ["the cat sat", "on the mat"])
    0.3333333333333333
    """
    jiwer = library("jiwer", "The word error rate")
    if len(predictions) != len(references):
        raise SampleError(
            f"{len(predictions)} predictions with {len(references)} transcripts were given; give one "
            "transcript for each prediction."
        )
    given, said = (
        [" ".join(text.lower().split()) if as_written else spoken(text) for text in texts]
        for texts in (references, predictions)
    )
    if not any(given):
        raise SampleError(
            "The transcripts have no words, so there is nothing to count errors against; give at "
            "least one that has."
        )
    return float(jiwer.process_words(given, said).wer)


def word_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """``max(0, 1 - WER)`` of one prediction after normalisation, in [0, 1].

    :func:`word_error_rate` says how errors are counted, :func:`spoken` what is normalised. 1 is
    perfect. The cut at 0 keeps a mean over questions from being ruled by a few endless outputs.

    Args:
        prediction: what the model said.
        answers: the transcript; the nearest where there are several.

    Raises:
        SampleError: a transcript has no words, or there is none, or jiwer is not installed.

    >>> word_accuracy("Mr. Brown, twenty one dogs!", ["MISTER BROWN TWENTY ONE DOGS"])
    1.0
    """
    return max(0.0, 1 - _lowest(prediction, answers, as_written=False))


def wrr(prediction: str, answers: Sequence[str]) -> float:
    """Word recognition rate of MINER's code: 1 - WER, at most 1, below 0 for long wrong outputs.

    Both texts are lower-cased and split at spaces; punctuation stays, so "sat." is not "sat". Where the
    transcript is part of the output, letter by letter, WER is 0 whatever else was said (methods
    3.6). One thing is not as there: its table of edits has 8 bits and wraps above 255 words; here
    the edits are counted right.

    Args:
        prediction: what the model said.
        answers: the transcript; the nearest where there are several.

    Raises:
        SampleError: a transcript has no words, or there is none, or jiwer is not installed.

    >>> wrr("He said: the cat sat", ["THE CAT SAT"]), wrr("a b c d", ["x y"])
    (1.0, -1.0)
    """
    rate = _lowest(prediction, answers, as_written=True)
    said = prediction.lower()
    return 1.0 if any(answer.lower() in said for answer in answers) else 1 - rate


def spoken(text: str) -> str:
    """A text as Whisper's English normaliser leaves it, for counting words.

    Lower case, punctuation and what stands in brackets gone, contractions and titles written out ("won't"
    as "will not", "Mr." as "mister"), numbers as digits, fillers ("uh") gone; see appendix C of the
    Whisper paper (arXiv 2212.04356). The class of transformers is used, without its table of British
    spellings, which is a file of a checkpoint: "colour" and "color" differ here. It leaves a full
    stop of "..." as a word; what has no letter or digit is not a word here.

    >>> spoken("Uh, it won't cost twenty-one dollars!")
    'it will not cost $21'
    """
    # A text rule, no model: importing it loads no model class.
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    words = EnglishTextNormalizer({})(text).split()
    return " ".join(word for word in words if any(map(str.isalnum, word)))


def _lowest(prediction: str, answers: Sequence[str], *, as_written: bool) -> float:
    if not answers:
        raise SampleError("A word error rate needs a transcript; none was given.")
    return min(word_error_rate([prediction], [one], as_written=as_written) for one in answers)
