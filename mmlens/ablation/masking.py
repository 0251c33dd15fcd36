"""MINER's masking study: silence modality-specific neurons every way, beside fair controls (MI-5 to MI-8).

MINER's tables mask the union of some modalities' neurons, mined on one data set, and ask another
(methods 3.5, 3.6). Here every mask has a name that says how it was found and what is done to it, and
may have controls: as many neurons per layer, drawn at random, or matched in activation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from mmlens.ablation.effects import paired_effect
from mmlens.ablation.intervention import Intervention
from mmlens.ablation.masks import ALL, NONE
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.neurons import NeuronSet
from mmlens.selection.controls import matched_like, random_like
from mmlens.selection.strategies import union

#: What is done to the neurons of a mask. ``zero`` and ``layer_minimum``: MINER's two values, on all
#: tokens; ``keep_only``: its complementary mask; ``own_tokens``: zero at the modality's tokens of the
#: prompt alone (ours: does masking image neurons hurt image tokens only?).
Treatment = Literal["zero", "layer_minimum", "keep_only", "own_tokens"]
TREATMENTS: tuple[str, ...] = get_args(Treatment)
CONTROLS = ("matched", "random")


@dataclass(frozen=True)
class Found:
    """How neurons were found.

    Attributes:
        mined: the data set whose importance they come from, or ``all``.
        strategy: of :func:`mmlens.selection.select_neurons`, or another method's name.
        weights: name of the weight vector of the scores.
        ratio: share of the module's neurons.
        split: how the prompt was split into token sets (methods 3.1).
    """

    mined: str = ALL
    strategy: str = "LA_MU"
    weights: str = "paper"
    ratio: float = 0.02
    split: str = "special_text_separate"


@dataclass(frozen=True)
class Cell:
    """One mask of the study, or a control of one.

    Attributes:
        found: how its neurons were found; of a control, those it stands for.
        modality: whose neurons; several joined by ``+``, or ``all``.
        neurons: what is masked.
        treatment: what is done to them.
        kind: ``mask``, or ``matched`` or ``random`` for a control.
        seed: of a control's draw; -1 for a mask.
        measure: mean of the matched quantity over its neurons; NaN where none was given.
    """

    found: Found
    modality: str
    neurons: NeuronSet
    treatment: Treatment = "zero"
    kind: str = "mask"
    seed: int = -1
    measure: float = field(default=float("nan"), compare=False)

    @property
    def mask_name(self) -> str:
        """The same for a mask and its controls."""
        how = self.found
        parts = (how.mined, how.strategy, how.weights, f"{how.ratio:g}", how.split)
        return "/".join((*parts, self.modality, self.treatment))

    @property
    def name(self) -> str:
        """Unique in a study; the name of its setting."""
        return f"{self.kind}/{self.mask_name}" + (f"/{self.seed}" if self.seed >= 0 else "")

    @property
    def intervention(self) -> Intervention:
        """What is done, as evaluation takes it."""
        if self.treatment == "own_tokens":
            return Intervention("zero", group=self.modality)
        return Intervention(self.treatment)


def masks_of(
    sets: Mapping[str, NeuronSet],
    found: Found,
    *,
    treatment: Treatment = "zero",
    singly: bool = True,
    together: bool = True,
) -> list[Cell]:
    """A mask for each modality's neurons, and one for all of them.

    ``own_tokens`` has no mask for all: each modality's neurons would have tokens of their own.

    Args:
        sets: modality -> neurons.
        found: how they were found.
        treatment: what is done to them.
        singly: one mask per modality; those without a neuron are left out.
        together: one mask for the union.

    Raises:
        SampleError: a modality is called ``all``.
    """
    if ALL in sets:
        raise SampleError(f"A modality cannot be called {ALL!r}: that names all of them together.")
    cells = [Cell(found, m, s, treatment) for m, s in sets.items() if singly and len(s)]
    if together and treatment != "own_tokens":
        cells.append(Cell(found, ALL, union(list(sets.values())), treatment))
    return cells


def with_controls(
    cells: Sequence[Cell],
    avoid: NeuronSet,
    measures: Mapping[str, Float[Tensor, "layer neuron"]],
    seeds: int,
    kinds: Sequence[str] = CONTROLS,
) -> list[Cell]:
    """The masks, each followed by its controls: as many neurons per layer, under the same treatment.

    ``random`` draws uniformly, ``matched`` among neurons of nearly the same measure; both leave out
    ``avoid``. Strongly active neurons break a model whatever they encode (CAN, arXiv 2512.00918), and
    importance ranks by activation: the fair measure is the root mean square of the activation at the
    tokens of the mask's modality (:func:`root_mean_square`).

    Args:
        cells: masks.
        avoid: neurons that no control may have, usually every selected one.
        measures: modality -> measure of every neuron; ``all`` for the union.
        seeds: controls of each kind.
        kinds: of :data:`CONTROLS`.

    Raises:
        SampleError: an unknown kind, or a modality without a measure.
        StatisticsError: a layer has too few neurons left.
    """
    if unknown := [kind for kind in kinds if kind not in CONTROLS]:
        raise SampleError(f"There is no control {unknown[0]!r}; there are {', '.join(CONTROLS)}.")
    if lacking := [cell.modality for cell in cells if cell.modality not in measures]:
        raise SampleError(
            f"The controls of {lacking[0]!r} are matched in a measure that was not given; there are "
            f"measures of {', '.join(measures) or 'nothing'}."
        )
    out = []
    for cell in cells:
        measure = measures[cell.modality]
        out.append(replace(cell, measure=_mean(cell.neurons, measure)))
        keep_out = avoid | cell.neurons
        for seed in range(seeds):
            for kind in kinds:
                if kind == "matched":
                    drawn = matched_like(cell.neurons, measure, avoid=keep_out, seed=seed)
                else:
                    drawn = random_like(cell.neurons, avoid=keep_out, seed=seed)
                mean = _mean(drawn, measure)
                out.append(replace(cell, neurons=drawn, kind=kind, seed=seed, measure=mean))
    return out


def root_mean_square(
    squares: Float[Tensor, "layer neuron"], tokens: int
) -> Float[Tensor, "layer neuron"]:
    """sqrt(mean of a squared) over tokens: how strongly a neuron is active, whatever its sign."""
    return (squares / max(tokens, 1)).sqrt()


@dataclass(frozen=True)
class Asked:
    """The questions of a masking study.

    Attributes:
        samples: all of them.
        by: the field whose values are the data sets.

    Raises:
        SampleError: a data set is called ``all``.
    """

    samples: tuple[Sample, ...]
    by: str

    def __post_init__(self) -> None:
        if any(str(sample.get(self.by)) == ALL for sample in self.samples):
            raise SampleError(
                f"A data set cannot be called {ALL!r}: that names all of them together."
            )

    @property
    def datasets(self) -> dict[str, tuple[str, ...]]:
        """Data set -> ids of its questions, sorted by its name."""
        found: dict[str, list[str]] = {}
        for sample in self.samples:
            found.setdefault(str(sample.get(self.by)), []).append(sample.id)
        return {name: tuple(found[name]) for name in sorted(found)}


def masking_table(
    answers: pd.DataFrame,
    cells: Sequence[Cell],
    asked: Mapping[str, Collection[str]],
    questions: Asked,
    *,
    cluster: str | None = None,
    draws: int = 2000,
) -> pd.DataFrame:
    """What every mask costs, per data set and over all, beside each kind of control it has.

    Args:
        answers: frame of :class:`mmlens.ablation.evaluate.Answers`.
        cells: masks and controls.
        asked: the name of a mask (``mask_name``) -> ids of its questions; its controls and the untouched
            model have been asked them too.
        questions: all questions, with their data sets.
        cluster: field of the samples that groups dependent questions.
        draws: bootstrap draws.

    Returns:
        A row per mask x data set (and ``all``) x control: mined, strategy, weights, ratio, split,
        modality, treatment, evaluated, control (empty where there is none), n_neurons, measure,
        control_measure and the columns of :class:`mmlens.ablation.effects.Effect`; ``difference`` and its
        interval are NaN without a control.
    """
    score: pd.DataFrame = answers.pivot(index="id", columns="setting", values="score")
    clusters = {s.id: str(s.get(cluster)) if cluster else s.id for s in questions.samples}
    rows = []
    for cell in (c for c in cells if c.kind == "mask"):
        mine = set(asked[cell.mask_name])
        scopes = {d: [i for i in ids if i in mine] for d, ids in questions.datasets.items()}
        scopes[ALL] = [i for ids in scopes.values() for i in ids]
        for evaluated, ids in scopes.items():
            rivals = [c for c in cells if c.mask_name == cell.mask_name and c.kind != "mask"]
            names = [NONE, cell.name, *(c.name for c in rivals)]
            part = score.reindex(index=ids, columns=names).dropna()
            if part.empty:
                continue
            about = {
                **asdict(cell.found),
                "modality": cell.modality,
                "treatment": cell.treatment,
                "evaluated": evaluated,
                "n_neurons": len(cell.neurons),
                "measure": cell.measure,
            }
            rows += [
                about
                | _compared(part, cell, [c for c in rivals if c.kind == kind], clusters, draws)
                for kind in dict.fromkeys(c.kind for c in rivals)
            ] or [about | _alone(part, cell)]
    return pd.DataFrame(rows)


def _compared(
    part: pd.DataFrame,
    cell: Cell,
    rivals: Sequence[Cell],
    clusters: Mapping[str, str],
    draws: int,
) -> dict[str, object]:
    effect = paired_effect(
        part[NONE].to_numpy(float),
        part[cell.name].to_numpy(float),
        part[[c.name for c in rivals]].to_numpy(float).T,
        [clusters[str(i)] for i in part.index],
        draws=draws,
    )
    measured = float(np.mean([c.measure for c in rivals]))
    return {"control": rivals[0].kind, "control_measure": measured, **asdict(effect)}


def _alone(part: pd.DataFrame, cell: Cell) -> dict[str, object]:
    base, masked = (float(part[n].to_numpy(float).mean()) for n in (NONE, cell.name))
    known = {"n_questions": len(part), "n_seeds": 0, "baseline": base, "masked": masked}
    unknown = ("control_measure", "control_mean", "control_sd", "control_drop", "difference")
    missing = dict.fromkeys((*unknown, "low", "high"), float("nan"))
    return {"control": "", **known, "drop": base - masked, **missing}


def _mean(neurons: NeuronSet, measure: Float[Tensor, "layer neuron"]) -> float:
    pairs = neurons.pairs()
    return float(measure[pairs[:, 0], pairs[:, 1]].mean()) if len(pairs) else float("nan")
