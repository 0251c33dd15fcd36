"""The largest activations per token group: what neurons of modalities are shown by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add

from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NeuronSet
from mmlens.statistics.top_activations import TopActivations, largest, numbered
from mmlens.streaming.batching import Batching
from mmlens.streaming.top import top_activations

#: What the keys of such top activations are values of.
TOKEN_GROUP = "token group"


def top_by_group(
    model: HookedMLLM,
    samples: Sequence[Sample],
    neurons: NeuronSet | Sequence[NeuronSet],
    groups: Sequence[str],
    *,
    k: int = 8,
    distinct: str = "media",
    batching: Batching = Batching(),  # noqa: B008  (frozen)
) -> TopActivations:
    """Top activations of the language module whose keys are token groups, not values of a sample's field.

    One pass over the samples per group. ``probabilities()`` is then the share of a group's positions on
    which a neuron is active: MINER's score ``prob`` before it is normalised, over all positions
    together (methods 3.2).

    Args:
        model, samples, neurons: as of :func:`mmlens.streaming.top.top_activations`.
        groups: the token groups.
        k, distinct, batching: as there.

    Raises:
        SampleError: no group, neurons of another module, or what that function refuses.
    """
    if not groups:
        raise SampleError("No token groups were given; name at least one, such as 'text'.")
    sets = [neurons] if isinstance(neurons, NeuronSet) else list(neurons)
    if other := sorted({one.module for one in sets} - {LANGUAGE}):
        raise SampleError(
            f"Neurons of {other[0]!r} were given; only positions of the language module are in token "
            "groups. Leave the groups out."
        )
    parts = []
    for group in groups:
        found = top_activations(
            model, samples, sets, group=group, k=k, distinct=distinct, batching=batching
        )
        one = _joined(found[LANGUAGE], group)
        parts.append(replace(one, by=TOKEN_GROUP, group=", ".join(groups)))
    return reduce(add, parts)


def _joined(found: TopActivations, key: str) -> TopActivations:
    """The same with all keys made one."""
    values, samples, positions = largest(
        found.values.flatten(1),
        found.samples.flatten(1),
        found.positions.flatten(1),
        k=found.k,
        sources=None if found.distinct == "position" else numbered(found.sources),
    )
    return replace(
        found,
        values=values[:, None],
        samples=samples[:, None],
        positions=positions[:, None],
        histogram=found.histogram.sum(1, keepdim=True),
        keys=(key,),
    ).compact()
