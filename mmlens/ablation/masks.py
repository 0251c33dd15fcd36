"""Masks: neurons that are changed together, and random sets of neurons to compare them with.

MMNeuron masks the neurons of a domain in all modules (methods 2.6), MINER those of a modality, or of
several together, in the language model, mined on one data set (methods 3.5, 3.6). Either is a
:class:`Mask`: it says how its neurons were selected and what is done to them, and may have controls,
as many neurons per layer, drawn at random or matched in activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from mmlens.ablation.intervention import Intervention
from mmlens.entropy import Selection
from mmlens.errors import SampleError
from mmlens.neurons import ALL, NeuronSet, union
from mmlens.plots.frames import CONTROLS
from mmlens.selection.controls import matched_like, mean_measure, random_like
from mmlens.selection.recipe import DOMAIN_ENTROPY, Recipe

#: The kind of a mask that is no control.
MASK = "mask"
#: What MINER's study does to the neurons of a mask. ``zero`` and ``layer_minimum``: its two values, on
#: all tokens; ``keep_only``: its complementary mask; ``own_tokens``: zero at the modality's tokens of
#: the prompt alone (ours: does masking image neurons hurt image tokens only?).
Treatment = Literal["zero", "layer_minimum", "keep_only", "own_tokens"]
OWN_TOKENS = "own_tokens"

#: Module -> measure of every neuron of it.
Measures = Mapping[str, Float[Tensor, "layer neuron"]]


@dataclass(frozen=True)
class Mask:
    """Neurons that are changed together, or a control of them.

    Attributes:
        label: the domain or modality whose neurons they are; several joined by ``+``, or ``all``.
        neurons: sets of different modules.
        recipe: how they were selected; of a control, the neurons that it stands for.
        intervention: what is done to them.
        kind: :data:`MASK`, or of a control one of :data:`mmlens.plots.frames.CONTROLS`.
        seed: of a control's draw; -1 for a mask.
        measure: mean of the matched quantity over the neurons; NaN where none was given.
    """

    label: str
    neurons: tuple[NeuronSet, ...]
    recipe: Recipe
    intervention: Intervention = Intervention()
    kind: str = MASK
    seed: int = -1
    measure: float = field(default=float("nan"), compare=False)

    @property
    def treatment(self) -> str:
        """What is done, as tables call it."""
        own = self.intervention == Intervention("zero", group=self.label)
        return OWN_TOKENS if own else self.intervention.name

    @property
    def base_name(self) -> str:
        """The same for a mask and its controls."""
        if self.recipe.strategy != DOMAIN_ENTROPY:
            return "/".join((self.recipe.name, self.label, self.treatment))
        done = () if self.intervention == Intervention() else (self.intervention.name,)
        return "/".join((self.label, self.recipe.name, *done))

    @property
    def name(self) -> str:
        """Unique among the masks of a study; the name of its condition."""
        return f"{self.kind}/{self.base_name}" + (f"/{self.seed}" if self.seed >= 0 else "")

    @property
    def n_neurons(self) -> int:
        """Neurons of all modules together."""
        return sum(map(len, self.neurons))


def treated(treatment: Treatment, label: str) -> Intervention:
    """The intervention that a treatment of a label's neurons is."""
    return Intervention("zero", group=label) if treatment == OWN_TOKENS else Intervention(treatment)


def modality_masks(
    sets: Mapping[str, NeuronSet],
    recipe: Recipe,
    *,
    treatment: Treatment = "zero",
    singly: bool = True,
    together: bool = True,
) -> list[Mask]:
    """A mask for each modality's neurons, and one for all of them.

    ``own_tokens`` has no mask for all: each modality's neurons would have tokens of their own.

    Args:
        sets: modality -> neurons of one module.
        recipe: how they were selected.
        treatment: what is done to them.
        singly: one mask per modality; those without a neuron are left out.
        together: one mask for the union.

    Raises:
        SampleError: a modality is called ``all``.
    """
    _check_labels(sets, "modality")
    chosen = {m: one for m, one in sets.items() if singly and len(one)}
    if together and treatment != OWN_TOKENS:
        chosen[ALL] = union(list(sets.values()))
    return [Mask(m, (one,), recipe, treated(treatment, m)) for m, one in chosen.items()]


def domain_masks(
    selections: Mapping[str, Selection],
    probabilities: Mapping[str, Float[Tensor, "layer neuron domain"]],
    domains: Sequence[str],
    seeds: int,
    intervention: Intervention = Intervention(),  # noqa: B008  (frozen)
) -> list[Mask]:
    """Each domain's neurons and all together, in all modules, each followed by its controls.

    Controls avoid every selected neuron of the module. They are matched in the activation probability
    on the mask's own domain (for ``all``: the mean over domains).

    Args:
        selections: module -> what was selected, all at one fraction.
        probabilities: module -> activation probabilities of its neurons.
        domains: the order of their last axis.
        seeds: control sets of each kind.
        intervention: what is done to the masks and their controls alike.

    Raises:
        SampleError: a domain is called ``all``.
        StatisticsError: a layer has too few neurons left for a control.
    """
    _check_labels(domains, "domain")
    recipe = Recipe.of_domains(next(iter(selections.values())).fraction)
    masks, measures = [], {}
    for place, domain in enumerate((*domains, ALL)):
        sets = (s.union if domain == ALL else s.sets[domain] for s in selections.values())
        masks.append(Mask(domain, tuple(sets), recipe, intervention))
        measures[domain] = {
            module: probabilities[module].mean(-1)
            if domain == ALL
            else probabilities[module][..., place]
            for module in selections
        }
    return with_controls(masks, [s.union for s in selections.values()], measures, seeds)


def with_controls(
    masks: Sequence[Mask],
    avoid: Sequence[NeuronSet],
    measures: Mapping[str, Measures],
    seeds: int,
    kinds: Sequence[str] = CONTROLS,
) -> list[Mask]:
    """The masks, each followed by its controls: as many neurons per layer, under the same intervention.

    ``random`` draws uniformly, ``matched`` among neurons of nearly the same measure; both leave out
    ``avoid``. Strongly active neurons break a model whatever they encode (CAN, arXiv 2512.00918), and
    importance ranks by activation: the fair measure of MINER's is the root mean square of the activation
    at the tokens of the mask's modality (:func:`mmlens.selection.controls.root_mean_square`).

    Args:
        masks: without controls.
        avoid: neurons that no control may have, one set per module; usually every selected one.
        measures: label -> module -> measure of every neuron; ``all`` for all labels together.
        seeds: controls of each kind.
        kinds: of :data:`mmlens.plots.frames.CONTROLS`, in the order of the controls.

    Raises:
        SampleError: an unknown kind, or a label without a measure.
        StatisticsError: a layer has too few neurons left.
    """
    if unknown := [kind for kind in kinds if kind not in CONTROLS]:
        raise SampleError(f"There is no control {unknown[0]!r}; there are {', '.join(CONTROLS)}.")
    if lacking := [mask.label for mask in masks if mask.label not in measures]:
        raise SampleError(
            f"The controls of {lacking[0]!r} are matched in a measure that was not given; there are "
            f"measures of {', '.join(measures) or 'nothing'}."
        )
    blocked = {one.module: one for one in avoid}
    found = []
    for mask in masks:
        measure = measures[mask.label]
        found.append(replace(mask, measure=mean_measure(mask.neurons, measure)))
        for seed in range(seeds):
            for kind in kinds:
                drawn = tuple(
                    _control(kind, one, blocked[one.module] | one, measure[one.module], seed)
                    for one in mask.neurons
                )
                mean = mean_measure(drawn, measure)
                found.append(replace(mask, neurons=drawn, kind=kind, seed=seed, measure=mean))
    return found


def controls_of(mask: Mask, masks: Sequence[Mask]) -> list[Mask]:
    """The controls of a mask, in their order."""
    return [one for one in masks if one.kind != MASK and one.base_name == mask.base_name]


def _control(
    kind: str,
    neurons: NeuronSet,
    avoid: NeuronSet,
    measure: Float[Tensor, "layer neuron"],
    seed: int,
) -> NeuronSet:
    if kind == "matched":
        return matched_like(neurons, measure, avoid=avoid, seed=seed)
    return random_like(neurons, avoid=avoid, seed=seed)


def _check_labels(labels: Sequence[str] | Mapping[str, object], what: str) -> None:
    if ALL in labels:
        raise SampleError(f"A {what} cannot be called {ALL!r}: that names all of them together.")
