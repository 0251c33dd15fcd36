"""Streaming MINER's importance scores over samples: one forward per batch, nothing of it kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmlens.data.samples import Sample
from mmlens.errors import HookError
from mmlens.hook_names import LANGUAGE
from mmlens.hooks import Hook
from mmlens.importance.attention_weights import Heads, contiguous
from mmlens.importance.formulas import ATTENTION_SCORES, SCORES, AttentionMode, check_scores
from mmlens.importance.reduction import TokenSets, row_scores
from mmlens.importance.scores import ImportanceScores, load_with_extra
from mmlens.model.attention_reader import AttentionReader, LayerAttention
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.storage.fingerprint import data_fingerprint
from mmlens.streaming.batching import Batching
from mmlens.streaming.distributed import ALONE, Share
from mmlens.streaming.plan import CollectPlan, make_plan
from mmlens.streaming.stream import Stream


def collect(
    model: HookedMLLM,
    samples: Sequence[Sample],
    *,
    groups: Sequence[str] | None = None,
    by: str = "domain",
    scores: Sequence[str] = SCORES,
    attention_mode: AttentionMode = "causal",
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: float = 30.0,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
) -> ImportanceScores:
    """Importance of the language model's neurons for token groups (MINER stages 2 and 3).

    Per sample, layer and group, the scores of :func:`mmlens.importance.token_set_scores`, min-max
    normalised over the layer's neurons; summed over samples in float64 on the device. One forward
    per batch of prompts, no generation; padding is in no group, and in no other sample's attention.

    Attention is computed from the rotated queries and keys in blocks, so that memory is linear in the
    number of tokens and the forward itself stays on the fused kernel, on either backbone.

    Under ``torchrun`` or ``accelerate launch`` each process takes every n-th sample, and all of them
    return the merged scores.

    Args:
        model: a hooked model.
        samples: what to run.
        groups: token groups; default: text, special and the model's media, the paper's split.
        by: field of the samples whose values are the data sets.
        scores: which, of :data:`SCORES`; without attn_k and attn_q no attention is looked at.
        attention_mode: ``causal`` is the model's own attention, ``paper`` the official code's.
        checkpoint: a ``.safetensors`` file that the state is saved to now and then. Started again
            with the same arguments, it is resumed and ends with the same bits.
        checkpoint_every: seconds between saves.
        batching: how samples become prompts and batches.

    Raises:
        SampleError: no samples, an unknown group, field, score or mode.
        UnsupportedModelError: attention scores of a layer that has no attention to record.
        TooManyFailuresError: more samples unreadable than the cap allows; what was done is saved.
        RunFolderError: the checkpoint is of other arguments, or cannot be written.
    """
    check_scores(scores, attention_mode)
    groups = ("text", "special", *model.adapter.modalities) if groups is None else tuple(groups)
    share = Share.of_launcher()
    plan = make_plan(model, samples, (LANGUAGE,), groups, by, batching=batching, share=share)
    chosen = ChosenScores(tuple(scores), attention_mode)
    stream = ImportanceStream(model, plan, chosen, batching, checkpoint, share)
    return share.merged(stream.run("importance", every=checkpoint_every))


@dataclass(frozen=True)
class ChosenScores:
    """Which scores, and what attention is; see :func:`collect`."""

    scores: tuple[str, ...]
    attention_mode: AttentionMode

    @property
    def attends(self) -> bool:
        """Whether a score reads attention."""
        return any(score in ATTENTION_SCORES for score in self.scores)


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a batch while it passes the layers.

    Attributes:
        dataset: its place among the data sets.
        present: places of the groups that it has.
        sets: those groups, over its real tokens.
        real: true where a token is not padding.
        here: the same, to index with.
    """

    dataset: int
    present: Int[Tensor, " set"]
    sets: TokenSets
    real: Bool[Tensor, " pos"]
    here: slice | Tensor


class ImportanceStream(Stream[ImportanceScores]):
    """A resumable collection of importance scores; arguments as :class:`Stream`, and which scores."""

    def __init__(
        self,
        model: HookedMLLM,
        plan: CollectPlan,
        chosen: ChosenScores,
        batching: Batching = Batching(),  # noqa: B008  (frozen)
        checkpoint: str | PathLike[str] | None = None,
        share: Share = ALONE,
    ) -> None:
        self.chosen = chosen
        self._attention: dict[int, LayerAttention] = {}
        self._reader = None
        if chosen.attends:
            self._reader = AttentionReader(model, self._attention.__setitem__)
        self._rows: list[Row] = []
        super().__init__(model, plan, batching, checkpoint, share)

    def result(self) -> ImportanceScores:
        """The sums so far."""
        return replace(
            self._empty(),
            sums=self._sums.to("cpu", copy=True),
            samples=self._samples.clone(),
            skipped=dict(self.skipped),
        )

    @contextmanager
    def recording(self) -> Iterator[None]:
        """The reducing hooks, and the layers' masks."""
        with super().recording():
            if self._reader is None:
                yield
                return
            with self._reader.masks():
                yield
            self._attention.clear()

    def _fingerprint(self) -> str:
        return data_fingerprint([self.plan.fingerprint(self.model), *vars(self.chosen).values()])

    def _begin(self, start: ImportanceScores) -> None:
        self._sums = start.sums.to(self.model.device, copy=True)
        self._samples, self.skipped = start.samples.clone(), dict(start.skipped)

    def _hooks(self) -> list[Hook]:
        hooks = [] if self._reader is None else self._reader.hooks()
        for layer in range(self.model.module(LANGUAGE).layers):
            hooks.append(self.model.activation_hook(LANGUAGE, layer, partial(self._add, layer)))
        return hooks

    def _add(self, layer: int, tensor: Tensor, activation: Callable[[Tensor], Tensor]) -> None:
        """Add the scores of every row, from a layer's tensor [batch, pos, neuron]."""
        attention = None if self._reader is None else self._attention_of(layer)
        for index, row in enumerate(self._rows):
            if not len(row.present):
                continue  # none of its tokens is in a group that was asked for
            scored = row_scores(
                tensor[index, row.here].detach(),
                activation,
                row.sets,
                None if attention is None else Heads.of_row(attention, index, row.real),
                self.chosen.attention_mode,
                self.chosen.scores,
            )
            target = self._sums[row.dataset, :, :, layer]
            target.index_add_(1, row.present, scored.to(target))

    def _attention_of(self, layer: int) -> LayerAttention:
        """What the layer's attention has computed from in this forward; not kept beyond this call."""
        if layer not in self._attention:
            raise HookError(
                f"Layer {layer}'s attention has not passed its hook points in this forward, so there is "
                "no attention to weigh tokens by; ask for the scores prob, mean and max alone."
            )
        return self._attention.pop(layer)

    def _before(self, batch: Batch) -> None:
        assert batch.samples is not None
        stacked = batch.groups.stack(self.plan.groups[LANGUAGE])
        self._rows = []
        for index, sample in enumerate(batch.samples):
            real = batch.groups.attention[index]
            member = stacked[:, index][:, real]
            present = member.any(-1).nonzero()[:, 0]
            sets = TokenSets.of(member[present])
            self._rows.append(Row(self.plan.key(sample), present, sets, real, contiguous(real)))

    def _after(self, batch: Batch) -> None:  # noqa: ARG002
        for row in self._rows:
            self._samples[row.dataset, row.present.cpu()] += 1

    def _empty(self) -> ImportanceScores:
        groups, keys = self.plan.groups[LANGUAGE], self.plan.keys
        layers, width = self.model.module(LANGUAGE).shape
        shape = (len(keys), len(self.chosen.scores), len(groups), layers, width)
        return ImportanceScores(
            sums=torch.zeros(shape, dtype=torch.float64),
            samples=torch.zeros((len(keys), len(groups)), dtype=torch.int64),
            datasets=keys,
            scores=self.chosen.scores,
            groups=groups,
            by=self.plan.by,
            attention_mode=self.chosen.attention_mode if self.chosen.attends else None,
            skipped=dict(self.plan.unreadable),
            model_hash=self.model.weight_hash,
            template=self.plan.template,
        )

    def _write(self, path: Path, extra: Mapping[str, Any]) -> None:
        self.result().save(path, extra)

    def _read(self, path: Path) -> tuple[ImportanceScores, dict[str, Any]]:
        return load_with_extra(path)
