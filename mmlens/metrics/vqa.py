"""VQAv2's metric: agreement with ten annotators, after the official clean-up of answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmlens.errors import SampleError

#: Every VQAv2 question was answered by this many people.
ANNOTATORS = 10

_ARTICLES = {"a", "an", "the"}
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_WORDS)}
_SIGNS = ';/[]"{}()=+\\_-><@`,?!'

# Which apostrophes the official script restores is a closed list; its misspellings are
# kept, or scores would differ from published ones. These are found without any apostrophe ...
_WITHOUT = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's isn't it'd it'll ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't
shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's something'd
something'll that's there'd there're there's they'd they'll they're they've 'twas wasn't we've weren't
what'll what're what's what've when's where'd where's where've who'd who'll who's who've why'll why're
why's won't would've wouldn't y'all you'd you'll you're you've
"""
# ... these with one of their apostrophes missing ...
_ONE_MISSING = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'd've y'all'll you'd've
'ow's'at
"""
# ... and one loses an apostrophe that was right.
_CONTRACTIONS = (
    {word.replace("'", ""): word for word in _WITHOUT.split()}
    | {
        word[:place] + word[place + 1 :]: word
        for word in _ONE_MISSING.split()
        for place, letter in enumerate(word)
        if letter == "'"
    }
    | {"somebody'd": "somebodyd"}
)


def vqa_answer(text: str) -> str:
    """An answer as the official VQA evaluation compares it.

    In this order: line breaks and tabs become spaces; a punctuation mark goes if it touches a space
    anywhere or a number has a thousands comma, and becomes a space otherwise; full stops go
    unless a digit follows; lower case; number words to ten become digits; articles go; missing
    apostrophes of contractions come back.

    >>> vqa_answer("The two dogs, dont run."), vqa_answer("blue-green"), vqa_answer("1,000")
    ("2 dogs don't run", 'blue green', '1000')
    """
    text = _one_line(text)
    comma = re.search(r"\d,\d", text) is not None
    cleaned = text
    for sign in _SIGNS:
        removed = comma or f"{sign} " in text or f" {sign}" in text
        cleaned = cleaned.replace(sign, "" if removed else " ")
    # The official script passes a flag where re.sub takes a count; it stops after 32.
    cleaned = re.sub(r"\.(?!\d)", "", cleaned, count=32)
    words = (_NUMBERS.get(word, word) for word in cleaned.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str], *, as_published: bool = False) -> float:
    """VQA accuracy (Antol et al. 2015; VQAv2): agreement with the ten annotators of a question.

    For each annotator ``min(1, matches among the other nine / 3)``, then the mean over the ten:
    with m matches in all, ``(m · min(1, (m - 1)/3) + (10 - m) · min(1, m/3)) / 10``, so 0, 0.3, 0.6,
    0.9 and 1 for 0, 1, 2, 3 and more. Answers are compared by :func:`vqa_answer`.

    "unanswerable" is an answer like any other.

    Args:
        prediction: what the model said.
        answers: all ten, repetitions kept.
        as_published: leave all texts as they are (but for spaces) where the ten agree, as the
            published script does. A "Yes." against ten "yes" scores 0 then; results in papers clean
            their predictions before, which is what happens here by default.

    Raises:
        SampleError: there are not ten answers.

    >>> vqa_accuracy("2", ["two"] * 3 + ["three"] * 7)
    0.9
    """
    if len(answers) != ANNOTATORS:
        raise SampleError(
            f"VQA accuracy needs the answers of all {ANNOTATORS} annotators, repetitions kept; "
            f"{len(answers)} were given. Use another metric for this data set."
        )
    plain = [_one_line(text) for text in (prediction, *answers)]
    if as_published and len(set(plain[1:])) == 1:
        said, *given = plain
    else:
        said, *given = map(vqa_answer, plain)
    matches = [answer == said for answer in given]
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / ANNOTATORS


def confident_member(
    prediction: str, answers: Sequence[str], confidence: Sequence[str] | None
) -> float:
    """1 if the lower-cased prediction is the answer of an annotator who was sure of it, else 0.

    This is what MMNeuron's code computes for VQAv2: one annotator who answered "yes" to whether they
    are sure is enough, and nothing is cleaned up. Mostly above :func:`vqa_accuracy`.

    Args:
        prediction: what the model said.
        answers: all ten.
        confidence: ``yes``, ``maybe`` or ``no`` for each of them.

    Raises:
        SampleError: the confidences are not there, or not as many as answers.

    >>> confident_member("Cat", ["dog", "cat"], ["yes", "yes"]), confident_member("cat", ["cat"], ["maybe"])
    (1.0, 0.0)
    """
    if confidence is None or len(confidence) != len(answers):
        raise SampleError(
            f"{len(answers)} answers with {'no' if confidence is None else len(confidence)} "
            "confidences were given; give one for each answer."
        )
    sure = [a.lower() for a, sureness in zip(answers, confidence, strict=True) if sureness == "yes"]
    return float(prediction.lower() in sure)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
