"""LingoQA's metric: a classifier that judges whether an answer is true to the reference.

Lingo-Judge (Marcu et al., arXiv 2312.14115) reads question, reference and answer in one text and
gives one logit; an answer is right where its sigmoid is above 0.5 for any of the references.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.errors import SampleError

#: The hub id of the published judge.
PUBLISHED = "wayveai/Lingo-Judge"

#: Tokens of question, reference and answer together; the rest is cut off, as the judge was trained.
MAX_TOKENS = 128


@dataclass(frozen=True, eq=False)
class LingoJudge:
    """A judge that is loaded: a sequence classifier with one output, and its tokenizer."""

    model: Any
    tokenizer: Any

    def probability(self, question: str, references: Sequence[str], prediction: str) -> float:
        """How sure the judge is that an answer is right by the best of the references, in [0, 1].

        Raises:
            SampleError: there is no reference, or the model is no judge.
        """
        return float(judge_logits(self, question, references, prediction).max().sigmoid())

    def score(self, question: str, references: Sequence[str], prediction: str) -> float:
        """1 if :meth:`probability` is above 0.5, else 0; errors as there."""
        return float(self.probability(question, references, prediction) > 0.5)


def judge_logits(
    judge: LingoJudge, question: str, references: Sequence[str], prediction: str
) -> Float[Tensor, " reference"]:
    """The judge's logit for each reference; errors as in :meth:`LingoJudge.probability`."""
    if not references:
        raise SampleError("Lingo-Judge needs at least one reference answer; none was given.")
    start = judge.tokenizer.cls_token  # which the judge expects spelt out
    texts = [
        f"{start}\nQuestion: {question}\nAnswer: {one}\nStudent: {prediction}" for one in references
    ]
    encoded = judge.tokenizer(
        texts, return_tensors="pt", padding=True, truncation=True, max_length=MAX_TOKENS
    )
    device = next(judge.model.parameters()).device
    with torch.inference_mode():
        logits = judge.model(**{k: v.to(device) for k, v in encoded.items()}).logits
    if logits.shape != (len(references), 1):
        raise SampleError(
            f"The judge gives {logits.shape[-1]} numbers for a text; Lingo-Judge gives one. Load "
            f"{PUBLISHED}, or a classifier with num_labels=1."
        )
    return logits[:, 0].float()


def load_lingo_judge(name: str = PUBLISHED, *, device: str | None = None) -> LingoJudge:
    """Load the judge: a hub id, or a folder.

    Args:
        name: where it is.
        device: default: CUDA where there is one.

    Raises:
        SampleError: it is not on this machine and cannot be fetched.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForSequenceClassification.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        raise SampleError(
            f"The metric 'lingo_judge' needs the model {name}, which is not on this machine and could "
            f"not be fetched; run 'hf download {PUBLISHED}' where there is a network, or choose "
            "another metric, such as 'exact_match'."
        ) from error
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return LingoJudge(model.to(device).eval(), tokenizer)


def any_row_right(scores: Sequence[float], questions: Sequence[Hashable]) -> float:
    """Share of distinct questions of which any row is right (MMNeuron's code for LingoQA).

    LingoQA has a row for each reference of a question. Where a row was asked for each, a question
    counts as right if any of its rows does; the denominator counts questions, not rows.

    Args:
        scores: above 0.5 is right, one for each row.
        questions: what question each row belongs to.

    Raises:
        SampleError: no rows, or not as many questions as scores.

    >>> any_row_right([0.0, 1.0, 0.0], ["q1", "q1", "q2"])
    0.5
    """
    if not scores or len(scores) != len(questions):
        raise SampleError(
            f"{len(scores)} scores with {len(questions)} questions were given; give one question for "
            "each score, and at least one."
        )
    right = {q for score, q in zip(scores, questions, strict=True) if score > 0.5}
    return len(right) / len(set(questions))
