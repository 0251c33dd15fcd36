"""Deactivation studies: silence each domain's neurons, compare with fair controls, tabulate.

MMNeuron's table masks domain i and asks domain i (methods 2.6). Here every mask is paired with
control masks, and asked on its own domain and on the others, or on all in a full matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from mmlens.ablation.effects import Effect, paired_effect
from mmlens.ablation.evaluate import Setting
from mmlens.ablation.intervention import Intervention
from mmlens.data.samples import Sample, take_per_value
from mmlens.entropy import Selection
from mmlens.errors import SampleError
from mmlens.neurons import NeuronSet
from mmlens.selection.controls import matched_like, mean_frequency, random_like

NONE, ALL = "none", "all"
CONTROLS = ("random", "matched")


@dataclass(frozen=True)
class Mask:
    """Neurons to silence, or a control for them.

    Attributes:
        mask: the domain whose neurons they are, or ``all`` for every selected one.
        kind: ``mask``, or ``random`` (as many per layer) or ``matched`` (and as active) controls.
        seed: of a control's draw; -1 for the mask itself.
        fraction: the share of the module's neurons that was selected.
        neurons: the sets, one per module.
        frequency: mean activation probability of the neurons on the mask's domain.
        intervention: what is done to them.
    """

    mask: str
    kind: str
    seed: int
    fraction: float
    neurons: tuple[NeuronSet, ...]
    frequency: float
    intervention: Intervention = Intervention()

    @property
    def name(self) -> str:
        """Unique among the masks of a study; the name of its setting."""
        done = "" if self.intervention == Intervention() else f"/{self.intervention.name}"
        return f"{self.kind}/{self.mask}/{self.fraction:g}{done}" + (
            f"/{self.seed}" if self.seed >= 0 else ""
        )


def masks_and_controls(
    selections: Mapping[str, Selection],
    probabilities: Mapping[str, Float[Tensor, "layer neuron domain"]],
    domains: Sequence[str],
    seeds: int,
    intervention: Intervention = Intervention(),  # noqa: B008  (frozen)
) -> list[Mask]:
    """Each domain's neurons and all together, each with its controls.

    Controls avoid every selected neuron of the module. ``matched`` controls are matched in the
    activation probability on the mask's own domain (for ``all``: the mean over domains).

    Args:
        selections: module -> what was selected, all at one fraction.
        probabilities: module -> activation probabilities of its neurons.
        domains: the order of their last axis.
        seeds: control sets of each kind.
        intervention: what is done to the masks and their controls alike.
    """
    if ALL in domains:
        raise SampleError(f"A domain cannot be called {ALL!r}: that names all domains together.")
    masks = []
    for which in (*domains, ALL):
        sets, frequency, avoid = [], [], []
        for module, selection in selections.items():
            p = probabilities[module]
            sets.append(selection.union if which == ALL else selection.sets[which])
            frequency.append(p.mean(-1) if which == ALL else p[..., list(domains).index(which)])
            avoid.append(selection.union)
        fraction = next(iter(selections.values())).fraction
        drawn = [("mask", -1, sets)]
        for seed in range(seeds):
            plain = [random_like(s, avoid=a, seed=seed) for s, a in zip(sets, avoid, strict=True)]
            near = [
                matched_like(s, f, avoid=a, seed=seed)
                for s, f, a in zip(sets, frequency, avoid, strict=True)
            ]
            drawn += [("random", seed, plain), ("matched", seed, near)]
        for kind, seed, chosen in drawn:
            mean = float(
                np.average(
                    [
                        mean_frequency(s, f) if len(s) else 0.0
                        for s, f in zip(chosen, frequency, strict=True)
                    ],
                    weights=[len(s) or 1e-9 for s in chosen],
                )
            )
            masks.append(Mask(which, kind, seed, fraction, tuple(chosen), mean, intervention))
    return masks


@dataclass(frozen=True)
class Questions:
    """Which questions are asked.

    Attributes:
        own: domain -> questions for its own mask.
        shared: domain -> the part of those that the masks of other domains are asked too.
        samples: all of them.
    """

    own: Mapping[str, tuple[str, ...]]
    shared: Mapping[str, tuple[str, ...]]
    samples: tuple[Sample, ...]

    @classmethod
    def choose(
        cls, samples: Sequence[Sample], domains: Sequence[str], own: int, shared: int, seed: int
    ) -> Questions:
        """Draw ``own`` questions of each domain, and ``shared`` of those, with a seed.

        Raises:
            SampleError: a domain has no question.
        """
        chosen = take_per_value(
            [s for s in samples if s.domain in domains], "domain", own, seed=seed
        )
        pools = {d: [s for s in chosen if s.domain == d] for d in domains}
        if empty := [d for d, pool in pools.items() if not pool]:
            present = sorted({str(s.domain) for s in samples})
            raise SampleError(
                f"Domain {empty[0]!r} has no question to evaluate on; there are {', '.join(present)}."
            )
        few = {d: take_per_value(pool, "domain", shared, seed=seed) for d, pool in pools.items()}
        return cls(
            own={d: tuple(s.id for s in pool) for d, pool in pools.items()},
            shared={d: tuple(s.id for s in pool) for d, pool in few.items()},
            samples=tuple(chosen),
        )

    def asked(self, mask: str, full: bool) -> dict[str, tuple[str, ...]]:
        """Evaluated domain -> questions, for the mask of a domain or ``all``."""
        if full:
            return dict(self.own)
        return {d: self.own[d] if d == mask else self.shared[d] for d in self.own}


def study_settings(masks: Sequence[Mask], questions: Questions, full: bool) -> list[Setting]:
    """The untouched model on every question, and each mask's intervention on those it is asked."""
    everything = frozenset(s.id for s in questions.samples)
    return [Setting(NONE, (), everything)] + [
        Setting(
            one.name,
            one.neurons,
            frozenset(i for ids in questions.asked(one.mask, full).values() for i in ids),
            one.intervention,
        )
        for one in masks
    ]


def effects_table(
    answers: pd.DataFrame,
    masks: Sequence[Mask],
    questions: Questions,
    *,
    full: bool,
    cluster: str | None = None,
    weights: Mapping[str, float] | None = None,
    draws: int = 2000,
) -> pd.DataFrame:
    """The effect of every mask against each kind of control, paired per question.

    A row per mask x control x evaluated: ``own``, ``others`` (pooled) or, for all neurons together,
    ``all``; with ``full`` also every evaluated domain by name. Further columns: fraction,
    intervention (where not all masks silence their neurons), n_neurons, frequency, control_frequency and those of :class:`mmlens.ablation.effects.Effect`.

    Args:
        answers: frame of :class:`mmlens.ablation.evaluate.Answers`.
        masks: what was silenced.
        questions: what was asked.
        full: whether the full matrix was asked.
        cluster: field of the samples that groups dependent questions; None: each is its own.
        weights: sample id -> what it counts in every mean; None: all alike.
        draws: bootstrap draws.
    """
    score = answers.set_index(["setting", "id"])["score"]
    clusters = {s.id: str(s.get(cluster)) if cluster else s.id for s in questions.samples}
    answered = set(score.xs(NONE, level="setting").index)
    rows = []
    for one in (m for m in masks if m.kind == "mask"):
        for kind in CONTROLS:
            rivals = [
                m
                for m in masks
                if (m.mask, m.kind, m.fraction, m.intervention)
                == (one.mask, kind, one.fraction, one.intervention)
            ]
            for evaluated, ids in _scopes(one.mask, questions, full).items():
                asked = [i for i in ids if i in answered]
                if not asked or not rivals:
                    continue
                effect: Effect = paired_effect(
                    score.loc[NONE].loc[asked].to_numpy(float),
                    score.loc[one.name].loc[asked].to_numpy(float),
                    np.stack([score.loc[m.name].loc[asked].to_numpy(float) for m in rivals]),
                    [clusters[i] for i in asked],
                    weights=None
                    if weights is None
                    else np.array([weights[i] for i in asked], float),
                    draws=draws,
                )
                rows.append(
                    {
                        "mask": one.mask,
                        "fraction": one.fraction,
                        **intervened(one, masks),
                        "n_neurons": sum(map(len, one.neurons)),
                        "evaluated": evaluated,
                        "control": kind,
                        **asdict(effect),
                        "frequency": one.frequency,
                        "control_frequency": float(np.mean([m.frequency for m in rivals])),
                    }
                )
    return pd.DataFrame(rows)


def intervened(one: Mask, masks: Sequence[Mask]) -> dict[str, str]:
    """The column ``intervention`` of a mask's row; none where all masks silence their neurons."""
    if all(mask.intervention == Intervention() for mask in masks):
        return {}
    return {"intervention": one.intervention.name}


def _scopes(mask: str, questions: Questions, full: bool) -> dict[str, list[str]]:
    asked = questions.asked(mask, full)
    if mask == ALL:
        scopes = {ALL: [i for ids in asked.values() for i in ids]}
    else:
        scopes = {
            "own": list(asked[mask]),
            "others": [i for d, ids in asked.items() if d != mask for i in ids],
        }
    return scopes | ({d: list(ids) for d, ids in asked.items()} if full else {})
