"""Stopping after a number of tokens: which samples of each domain count, decided before anything runs.

MMNeuron's selection reads a snapshot that its code writes when a domain's vision-token counter
first passes 100,000: a few dozen pictures (methods 2.5 and B3). Batches run longest sample first, so
stopping halfway would keep the longest samples only; here samples are taken in the order given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mmlens.data.samples import Sample
from mmlens.errors import MediaError, SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.tokens.groups import BASE_GROUPS, DERIVED_GROUPS


def within(
    model: HookedMLLM,
    samples: Sequence[Sample],
    stop_after: Mapping[str, int],
    by: str = "domain",
    template: str = "auto",
) -> list[Sample]:
    """The first samples of each key that have as many tokens as asked for.

    A key has enough as soon as each name has reached its number; the sample that reaches it counts
    whole, so a key ends up with at least that many tokens if it has them. Samples are processed to
    count their tokens, but not run. A sample whose media cannot be read has no token and stays, so
    that it is reported.

    Args:
        model: a hooked model.
        samples: in the order in which they are to be taken.
        stop_after: name -> tokens. A name is a module's (``vision``: its real positions;
            ``language``: the prompt) or a token group's (``image``); one that is both, as ``audio``
            can be, is the module.
        by: field of the samples whose values are the keys.
        template: prompt template, as in :meth:`HookedMLLM.prepare`.

    Raises:
        SampleError: a number below one, or a name that is neither module nor group.
    """
    for name, tokens in stop_after.items():
        if tokens < 1:
            raise SampleError(
                f"stop_after needs at least one token; {tokens} was given for {name!r}."
            )
        if name not in (*BASE_GROUPS, *DERIVED_GROUPS):
            model.module(name)
    counted: dict[str, Counter[str]] = {}
    kept = []
    for sample in samples:
        so_far = counted.setdefault(str(sample.get(by)), Counter())
        if all(so_far[name] >= tokens for name, tokens in stop_after.items()):
            continue
        kept.append(sample)
        try:
            batch = model.preparer.batch((sample,), template)
        except MediaError:
            continue
        for name in stop_after:
            so_far[name] += tokens_of(model, batch, name)
    return kept


def tokens_of(model: HookedMLLM, batch: Batch, name: str) -> int:
    """Real positions of a batch in a module, or in a token group of the language module."""
    if name == LANGUAGE:
        return int(batch.groups.attention.sum())
    if name not in model.modules:
        return int(batch.groups.mask(name).sum())
    return sum(int((rows >= 0).sum()) for rows in model.tower_rows(batch, name))
