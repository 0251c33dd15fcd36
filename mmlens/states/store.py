"""What a study of token states measures, and its folder: rows per sample and condition, kept tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor

from mmlens.errors import RunFolderError, SampleError
from mmlens.neurons import NeuronSet
from mmlens.storage.atomic import append_jsonl, read_jsonl
from mmlens.storage.fingerprint import data_fingerprint

#: The layer that stands for what enters the first block.
EMBEDDED = -1
#: The file of the rows; its first line is a hash of the plan.
ROWS = "states.jsonl"


@dataclass(frozen=True)
class StatePlan:
    """What is measured; two calls on one folder have to agree in it.

    Attributes:
        layers: blocks whose output is read; :data:`EMBEDDED` for what enters the first.
        permutations: of labels and of positions, per sample.
        group_tokens: tokens of a group that the probing index looks at in a sample at most; of a
            longer group some are drawn, the same in every layer and condition.
        kept_tokens: tokens of a group that are kept of each sample.
        contributions: whether the last token's attention is recorded.
        seed: of all draws.
    """

    layers: tuple[int, ...]
    permutations: int
    group_tokens: int
    kept_tokens: int
    contributions: bool
    seed: int

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """The layers whose attention is recorded."""
        return tuple(x for x in self.layers if x != EMBEDDED) if self.contributions else ()

    def hook(self, layer: int) -> str:
        """The hook point that holds a layer's states."""
        return "blocks.0.hook_resid_pre" if layer == EMBEDDED else f"blocks.{layer}.hook_resid_post"


@dataclass(frozen=True, eq=False)
class KeptTokens:
    """Tokens of many samples at one layer, under one condition.

    Attributes:
        states: residual stream.
        labels: place of each token's group in ``mmlens.tokens.groups.BASE_GROUPS``.
        samples: place of its sample in ``ids``.
        positions: in its prompt, padding left out.
        ids: of the samples.
    """

    states: Float[Tensor, "token d_model"]
    labels: Int[Tensor, " token"]
    samples: Int[Tensor, " token"]
    positions: Int[Tensor, " token"]
    ids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StateStudy:
    """What :func:`study_states` found; :mod:`mmlens.states.tables` makes tables of it.

    Attributes:
        plan: what was measured.
        settings: names of the conditions.
        rows: one per sample and condition, as in the folder's ``states.jsonl``.
        folder: where the kept tokens are.
        skipped: sample id -> why it could not be read.
        tokens: prompt tokens run in this call, padding left out.
    """

    plan: StatePlan
    settings: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    folder: Path
    skipped: Mapping[str, str] = field(default_factory=dict)
    tokens: int = 0

    def kept(self, setting: str, layer: int) -> KeptTokens:
        """The kept tokens of one condition at one layer, read from disk.

        Raises:
            SampleError: no such condition or layer, or no sample was run under it.
        """
        ids = tuple(row["id"] for row in self.rows if row["setting"] == setting)
        if not ids or layer not in self.plan.layers:
            raise SampleError(
                f"There are no token states of condition {setting!r} at layer {layer}; there are the "
                f"conditions {', '.join(self.settings)} and the layers {list(self.plan.layers)}."
            )
        parts: dict[str, list[Tensor]] = {"states": [], "labels": [], "positions": []}
        for one in ids:
            with safe_open(kept_path(self.folder, setting, one), framework="pt") as file:
                parts["states"].append(file.get_slice("states")[self.plan.layers.index(layer)])
                parts["labels"].append(file.get_tensor("labels"))
                parts["positions"].append(file.get_tensor("positions"))
        which = [torch.full_like(labels, i) for i, labels in enumerate(parts["labels"])]
        whole = {name: torch.cat(each) for name, each in parts.items()}
        return KeptTokens(samples=torch.cat(which), ids=ids, **whole)


def kept_path(folder: Path, setting: str, sample: str) -> Path:
    """Where the kept tokens of one sample under one condition are."""
    return folder / "tokens" / f"{data_fingerprint([setting, sample])}.safetensors"


def mark_of(neurons: Sequence[NeuronSet], intervention: str) -> str:
    """A hash of what a condition does, so that rows of other neurons under its name are refused."""
    sets = [[one.module, one.pairs().tolist()] for one in neurons]
    return data_fingerprint([sets, intervention])


def rows_of(
    path: Path, plan: StatePlan, weight_hash: str, marks: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The rows of a file that are there with their kept tokens; a new file gets its first line.

    Args:
        path: the file of the rows, in the folder of the study.
        plan: what is measured.
        weight_hash: of the model.
        marks: condition -> :func:`mark_of` it.

    Raises:
        RunFolderError: the file is of another plan, model or neurons.
    """
    head = {"plan": data_fingerprint([asdict(plan), weight_hash])}
    rows = read_jsonl(path)
    if not rows:
        append_jsonl(path, [head])
        return []
    different = rows[0] != head
    for row in rows[1:]:
        different |= marks.get(row["setting"], row["mark"]) != row["mark"]
    if different:
        raise RunFolderError(
            f"{path} was written for another plan, model or set of neurons; measure into an empty folder, "
            "or remove this one."
        )
    return [row for row in rows[1:] if kept_path(path.parent, row["setting"], row["id"]).exists()]
