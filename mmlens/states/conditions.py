"""The conditions that token states are compared under: untouched, a mask, its complement, a control."""

from __future__ import annotations

from collections.abc import Sequence

from mmlens.ablation.conditions import Condition
from mmlens.ablation.intervention import Intervention
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.neurons import NONE, NeuronSet
from mmlens.selection.controls import random_like

MASK, COMPLEMENT, RANDOM = "mask", "complement", "random"


def mask_conditions(
    samples: Sequence[Sample],
    neurons: Sequence[NeuronSet],
    *,
    avoid: Sequence[NeuronSet] | None = None,
    intervention: Intervention = Intervention(),  # noqa: B008  (frozen)
    seed: int = 0,
) -> list[Condition]:
    """The conditions of the triptych: none, mask, complement, and a random control of the mask.

    Complement silences all neurons of the sets' modules but these (methods 3.5). The control is as
    many other neurons of each layer.

    Args:
        samples: what they are run on.
        neurons: sets of different modules.
        avoid: neurons that the control may not have, one set per module; default: ``neurons``.
        intervention: what is done to the mask and to the control.
        seed: of the control's draw.

    Raises:
        SampleError: no neuron at all.
        StatisticsError: a layer has too few other neurons for a control.
    """
    if not any(len(one) for one in neurons):
        raise SampleError("A mask of no neurons has nothing to show: give sets with neurons.")
    ids = frozenset(sample.id for sample in samples)
    pairs = zip(neurons, avoid or neurons, strict=True)
    control = tuple(random_like(one, avoid=other, seed=seed) for one, other in pairs)
    return [
        Condition(NONE, (), ids),
        Condition(MASK, tuple(neurons), ids, intervention),
        Condition(COMPLEMENT, tuple(neurons), ids, Intervention("keep_only")),
        Condition(RANDOM, control, ids, intervention),
    ]
