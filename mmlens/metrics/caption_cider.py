"""CIDEr-D, a metric of a whole set of captions, and what MINER's code calls by its name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmlens.errors import SampleError
from mmlens.metrics.caption_bleu import Over, ngrams, over_references
from mmlens.metrics.words import caption_words, reference_words

_LENGTHS = (1, 2, 3, 4)

#: Standard deviation of the penalty on a difference of lengths, in words.
_SIGMA = 6.0

NGram = tuple[str, ...]


@dataclass(frozen=True)
class Cider:
    """How common word sequences are in the references of a set of pictures.

    Attributes:
        pictures: how many there are.
        frequency: of how many pictures' references each sequence of 1 to 4 words is part.
    """

    pictures: int
    frequency: Mapping[NGram, int]

    @classmethod
    def of(cls, references: Iterable[Sequence[str]]) -> Cider:
        """From the reference captions of every picture.

        Raises:
            SampleError: fewer than two pictures, or one whose references have no word.
        """
        frequency: Counter[NGram] = Counter()
        pictures = 0
        for captions in references:
            tokens = reference_words(captions, "cider")
            frequency.update(
                {gram for words in tokens for n in _LENGTHS for gram in ngrams(words, n)}
            )
            pictures += 1
        if pictures < 2:
            raise SampleError(
                f"CIDEr weighs words by how few pictures they describe, and the references of "
                f"{pictures} were given; give those of at least two."
            )
        return cls(pictures, dict(frequency))

    def score(self, prediction: str, references: Sequence[str]) -> float:
        """CIDEr-D of one caption, in [0, 10].

        For n = 1 to 4, with g the vector over n-grams of (count in a text) * ln(pictures / pictures
        whose references have the n-gram, at least 1), and l a text's number of words:

            10 * mean_n mean_refs exp(-(l_said - l_ref)^2 / 72) * min(g_said, g_ref) . g_ref
                                  / (|g_said| |g_ref|)

        Equation 4 of Vedantam et al. 2015 (arXiv 1411.5726) with plain counts, as the official code
        has it, on the words of :func:`mmlens.metrics.words.caption_words`. A caption like all its
        references scores 10 if it has four words or more and, at each n, one n-gram that is not in
        every picture's references. Papers print the mean x 100: a mean of 1.2 here is "CIDEr 120".

        Raises:
            SampleError: no reference has a word.
        """
        said = caption_words(prediction)
        scores = [self._pair(said, words) for words in reference_words(references, "cider")]
        return 10 * math.fsum(scores) / len(scores)

    def _pair(self, said: Sequence[str], reference: Sequence[str]) -> float:
        alike = [self._cosine(ngrams(said, n), ngrams(reference, n)) for n in _LENGTHS]
        apart = len(said) - len(reference)
        return math.exp(-(apart**2) / (2 * _SIGMA**2)) * math.fsum(alike) / len(alike)

    def _cosine(self, said: Counter[NGram], reference: Counter[NGram]) -> float:
        one, other = self._weighed(said), self._weighed(reference)
        clipped = math.fsum(
            min(one[gram], other[gram]) * other[gram] for gram in one.keys() & other
        )
        lengths = math.hypot(*one.values()) * math.hypot(*other.values())
        return clipped / lengths if lengths else 0.0

    def _weighed(self, counts: Counter[NGram]) -> dict[NGram, float]:
        return {
            gram: count * math.log(self.pictures / max(1, self.frequency.get(gram, 0)))
            for gram, count in counts.items()
        }


def cider(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of every caption of a set, in [0, 10]; the set's CIDEr is their mean.

    :class:`Cider` has the formula; the pictures are those given here.

    Args:
        predictions: a caption for each picture.
        references: the reference captions of each picture.

    Raises:
        SampleError: not one list of references for each prediction, fewer than two pictures, or
            references without a word.
    """
    if len(predictions) != len(references):
        raise SampleError(
            f"{len(predictions)} predictions with references for {len(references)} were given; give "
            "references for each prediction."
        )
    corpus = Cider.of(references)
    return [corpus.score(*pair) for pair in zip(predictions, references, strict=True)]


def tfidf_cosine(prediction: str, answers: Sequence[str], *, over: Over = "mean") -> float:
    """Cosine of TF-IDF vectors of the prediction and each reference, in [0, 1].

    This is what MINER's code calls CIDEr (methods 3.6). The vectors are fitted on the sentences of
    one picture alone (the prediction and its references, about six), so a word that all of them
    share counts least there, and what other pictures are described by plays no part: no
    :func:`cider`. scikit-learn's TfidfVectorizer as it is: lower case, words of two letters or more,
    smoothed document frequencies, single words. A text without such a word scores 0.

    Args:
        prediction: what the model said.
        answers: the references.
        over: how the scores against single references become one.

    Raises:
        SampleError: no reference has a word of two letters or more.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    maker = TfidfVectorizer()
    words = maker.build_analyzer()
    if not any(words(answer) for answer in answers):
        raise SampleError(
            "The metric 'tfidf_cosine' needs a reference with a word of two letters or more; given "
            f"were {', '.join(map(repr, answers)) or 'none'}."
        )
    vectors = maker.fit_transform([prediction, *answers])
    # Rows have length 1 (or 0), so their products are cosines; rounding may pass 1.
    cosines = (vectors[1:] @ vectors[0].T).toarray().ravel().clip(max=1.0)
    return over_references([float(c) for c in cosines], over)
