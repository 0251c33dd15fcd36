"""What is done to neurons, as a small named value that a manifest can hold and a study can compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens import hooks
from mmlens.entropy import activation_probability, selectivity
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.hooks import Hook
from mmlens.hooks.editing import Neurons, Site, as_sets
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NeuronSet
from mmlens.statistics.neuron_statistics import NeuronStatistics

Kind = Literal[
    "zero",
    "scale",
    "soft_scale",
    "set_to",
    "mean",
    "minimum",
    "layer_minimum",
    "resample",
    "keep_only",
]
#: What ``amount`` is where there is one; None: it has to be given.
_AMOUNTS: Mapping[str, float | None] = {"scale": None, "set_to": None, "soft_scale": 1.0}
_MEASURED = ("soft_scale", "mean", "minimum")
_SITED = ("set_to", "mean", "minimum", "resample")


@dataclass(frozen=True)
class Intervention:
    """What is done to the activation of chosen neurons.

    MMNeuron and MINER silence it (``zero``); MINER also writes the layer's minimum
    (``layer_minimum``) and silences all others (``keep_only``). The rest is ours (methods section 4).

    Attributes:
        kind: the function of that name in :mod:`mmlens.hooks`; ``soft_scale`` takes for expertise
            the neurons' :func:`mmlens.entropy.selectivity`; ``resample`` takes the activations of
            another question, aligned at the end of both prompts.
        amount: the factor of ``scale``, the value of ``set_to``, the strength of ``soft_scale``.
        site: ``act`` or ``glu``, where a value is set; statistics have to be of the same.
        group: token group of the prompt that it is limited to; None: every token, new ones too.
        new_tokens: with a group, also change the tokens that are generated.
        counted: group of the statistics of the language module that means and the like are over;
            default: its first.
        keys: keys (domains) of the statistics that they are over; default: all.

    Raises:
        SampleError: a field that the kind does not take, or lacks.
    """

    kind: Kind = "zero"
    amount: float | None = None
    site: Site = "act"
    group: str | None = None
    new_tokens: bool = False
    counted: str | None = None
    keys: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        problem = None
        if self.kind not in get_args(Kind):
            problem = f"there is no such kind; there are {', '.join(get_args(Kind))}"
        elif self.kind in _AMOUNTS and self._amount is None:
            problem = "it needs an amount"
        elif self.kind not in _AMOUNTS and self.amount is not None:
            problem = f"it takes no amount, {self.amount} was given"
        elif self.kind not in _SITED and self.site != "act":
            problem = "it takes no site: what it does to the activation it does to the product too"
        elif self.kind not in _MEASURED and (self.counted or self.keys):
            problem = "it reads no statistics, so 'counted' and 'keys' mean nothing"
        elif self.new_tokens and (self.group is None or self.kind == "resample"):
            problem = (
                "new tokens are a choice only where a group limits it, and never when resampling"
            )
        if problem:
            raise SampleError(f"Intervention {self.kind!r}: {problem}.")

    @property
    def _amount(self) -> float | None:
        return _AMOUNTS.get(self.kind) if self.amount is None else self.amount

    @property
    def name(self) -> str:
        """Short and unique, for settings and tables: ``scale-0.5``, ``mean.glu@image``."""
        name = self.kind if self._amount is None else f"{self.kind}-{self._amount:g}"
        name += "" if self.site == "act" else f".{self.site}"
        over = "+".join(filter(None, [self.counted, *(self.keys or ())]))
        name += f"({over})" if over else ""
        return name + (f"@{self.group}" if self.group else "") + ("+new" if self.new_tokens else "")

    @property
    def needs_statistics(self) -> bool:
        """Whether :meth:`hooks` needs statistics."""
        return self.kind in _MEASURED

    def check(self, neurons: Neurons, statistics: NeuronStatistics | None) -> None:
        """Whether it can be done to these neurons, with these statistics.

        Raises:
            SampleError: it cannot.
            StatisticsError: the statistics lack a module, group or key, or tokens of them.
        """
        modules = {one.module for one in as_sets(neurons)}
        if towers := sorted(modules - {LANGUAGE}) if self.group or self.kind == "resample" else []:
            raise SampleError(
                f"Intervention {self.name!r} goes by positions of the prompt, which module {towers[0]!r} "
                "does not have: use it on language neurons, or without a group."
            )
        if not self.needs_statistics:
            return
        if statistics is None:
            raise SampleError(
                f"Intervention {self.name!r} needs statistics of mmlens.collect; none were given."
            )
        if statistics.site != self.site:
            raise SampleError(
                f"Intervention {self.name!r} is of site {self.site!r}, but the statistics are of "
                f"{statistics.site!r}: collect them with that site, or change the intervention's."
            )
        for module in modules:
            if self.kind == "soft_scale":
                self._selectivity(module, statistics)
            else:
                statistics.means(module, self._counted(module), self.keys)

    def hooks(
        self,
        neurons: Neurons,
        model: HookedMLLM,
        batch: Batch,
        statistics: NeuronStatistics | None = None,
        donors: Batch | None = None,
    ) -> list[Hook]:
        """The hooks that do it to these neurons, on this batch.

        Args:
            neurons: sets of any modules.
            model: the model they are of.
            batch: what will be run, with its padding.
            statistics: for ``soft_scale``, ``mean`` and ``minimum``.
            donors: for ``resample``: a sample of which each row takes its activations; it is run.

        Raises:
            SampleError: see :meth:`check`; or ``resample`` without donors.
        """
        sets = [one for one in as_sets(neurons) if len(one) or self.kind == "keep_only"]
        self.check(sets, statistics)
        if self.kind == "resample":
            return self._resampled(sets, model, batch, donors)
        positions = None if self.group is None else batch.groups.mask(self.group)
        tokens: dict[str, Any] = {"positions": positions, "new_tokens": self.new_tokens}
        if self.kind == "keep_only":
            return hooks.keep_only(sets, **tokens)
        return [
            hook for one in sets for hook in self._of_one(one, model, batch, statistics, **tokens)
        ]

    def _of_one(
        self,
        one: NeuronSet,
        model: HookedMLLM,
        batch: Batch,
        statistics: NeuronStatistics | None,
        **tokens: Any,
    ) -> list[Hook]:
        amount = self._amount
        if self.kind == "zero":
            return hooks.zero(one, **tokens)
        if self.kind == "layer_minimum":
            # A tower's rows are its own; all its positions count, those of padding tiles too.
            real = batch.groups.attention if one.module == LANGUAGE else None
            return hooks.layer_minimum(one, model.activation, real=real, **tokens)
        if self.kind == "scale":
            assert amount is not None
            return hooks.scale(one, amount, **tokens)
        if self.kind == "set_to":
            assert amount is not None
            return hooks.set_to(one, amount, site=self.site, model=model, **tokens)
        assert statistics is not None
        if self.kind == "soft_scale":
            assert amount is not None
            expertise = self._selectivity(one.module, statistics)[tuple(one.pairs().T)]
            return hooks.soft_scale(one, expertise, amount, **tokens)
        measured = hooks.mean if self.kind == "mean" else hooks.minimum
        group = self._counted(one.module)
        return measured(one, statistics, group=group, keys=self.keys, model=model, **tokens)

    def _counted(self, module: str) -> str | None:
        return self.counted if module == LANGUAGE else None

    def _selectivity(
        self, module: str, statistics: NeuronStatistics
    ) -> Float[Tensor, "layer neuron"]:
        counts = statistics.counts(module, self._counted(module), self.keys)
        return selectivity(activation_probability(*counts))

    def _resampled(
        self, sets: list[NeuronSet], model: HookedMLLM, batch: Batch, donors: Batch | None
    ) -> list[Hook]:
        if donors is None or len(donors) != len(batch):
            raise SampleError(
                f"Intervention {self.name!r} needs one donor per row of the batch, {len(batch)}; "
                f"{0 if donors is None else len(donors)} were given."
            )
        cache = donated(sets, model, donors, self.site, batch.shape[1])
        real = at_the_end(donors.groups.attention, batch.shape[1])
        group = "prompt" if self.group is None else self.group
        positions = batch.groups.mask(group) & real.to(batch.groups.attention.device)
        return hooks.resample(sets, cache, site=self.site, positions=positions)


def donated(
    sets: list[NeuronSet], model: HookedMLLM, donors: Batch, site: Site, length: int
) -> dict[str, Float[Tensor, "batch pos neuron"]]:
    """Hook name -> what the neurons' layers hold on other samples, the ends of the prompts aligned.

    Args:
        sets: neurons of the language module.
        model: the model.
        donors: the other samples, padded on the left.
        site: ``act``: the pre-activations; ``glu``: the products with the up branch.
        length: positions to give: prompts that are longer lose their beginning, shorter ones are
            filled up with zeros, which are nobody's activation.
    """
    layers = sorted({layer for one in sets for layer in one.per_layer()})
    info = model.module(LANGUAGE)
    names = [info.hook(layer, "pre" if site == "act" else "post") for layer in layers]
    if not names:
        return {}
    with torch.no_grad():
        _, cache = model.run_with_cache(donors, names, logits_to_keep=1)
    return {name: at_the_end(cache[name], length) for name in names}


def at_the_end(value: Tensor, length: int) -> Tensor:
    """``value`` [batch, pos, ...] with ``length`` positions, cut or filled with zeros on the left."""
    lacking = length - value.shape[1]
    if lacking <= 0:
        return value[:, -lacking:]
    return torch.cat([value.new_zeros((len(value), lacking, *value.shape[2:])), value], dim=1)
