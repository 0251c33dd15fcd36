"""The lens over a data set: entropy per layer, token group and domain, and the answer's rank.

MMNeuron reads the course of a model from these curves (methods 2.7): image tokens are uncertain
early, fall in the middle layers, and rise a little at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.lens.logit_lens import logit_lens, token_id
from mmlens.lens.readings import Readings
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.streaming.batching import Batching
from mmlens.streaming.distributed import ALONE, Share
from mmlens.streaming.sweep import Rows, Sweep, planned

COLUMNS = ("id", "key", "group", "layer", "tokens", "entropy", "answer_rank", "answer_p")


@dataclass(frozen=True, eq=False)
class LensStudy:
    """Per sample, layer and token group, what the lens says on average.

    Attributes:
        frame: a row per sample x group x layer: ``id``, ``key`` (its domain), ``group``, ``layer``,
            ``tokens`` (how many), ``entropy`` (nats, mean over those), and on rows of group ``last``
            ``answer_rank`` and ``answer_p``: rank (0 is first) and probability of the first token
            of the sample's first answer.
        skipped: sample id -> why it could not be read.
        tokens: prompt tokens run in this call, padding left out.
    """

    frame: pd.DataFrame
    skipped: dict[str, str] = field(default_factory=dict)
    tokens: int = 0

    def curves(self, group: str, key: str | None = None) -> Float[np.ndarray, "sample layer"]:
        """Entropy in nats per sample and layer, of one group and one key or all of them."""
        rows: Any = self.frame[self.frame.group == group]
        rows = rows if key is None else rows[rows.key == key]
        table = rows.pivot(index="id", columns="layer", values="entropy").dropna()
        return table.to_numpy(float)


def study_lens(
    model: HookedMLLM,
    samples: Sequence[Sample],
    *,
    groups: Sequence[str] = ("image", "text", "last"),
    by: str = "domain",
    point: str = "resid_post",
    rows: Path | None = None,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
    share: Share = ALONE,
) -> LensStudy:
    """Run the lens over samples, a batch at a time (MM-7).

    Args:
        model: a hooked model.
        samples: what to read it on.
        groups: token groups; entropies are means over the tokens of each.
        by: the field of a sample that is its key.
        point: where the stream is read; see :func:`mmlens.logit_lens`.
        rows: a JSON-lines file to which every sample's row is appended; a second call with the same
            file reads only what is missing.
        batching: how samples become prompts and batches.
        share: this process's part, where several share the pass.

    Raises:
        SampleError: a sample has no key, or there is no such group.
        SelfCheckError: the lens does not read this model rightly; see :func:`mmlens.logit_lens`.
    """
    keys = {sample.id: str(sample.get(by)) for sample in samples}
    # Planned over all samples, so that an interrupted pass runs the batches of an uninterrupted one.
    pieces = share.of(planned(model, [(None, samples)], batching))
    known = Rows(share.file(rows), ("id",))
    left = [piece for piece in pieces if any((s.id,) not in known for s in piece.samples)]
    sweep = Sweep(
        model,
        left,
        batching,
        samples=len(samples),
        description="lens",
        finished=sum(piece.units for piece in pieces) - sum(piece.units for piece in left),
        share=share,
    )
    for _, batch in sweep:
        known.add(_rows(model, batch.to(model.device), groups, point))
    known.merge(share)
    skipped = dict(share.merged(list(sweep.skipped.items())))
    ordered = known.of((sample.id,) for sample in samples)
    return LensStudy(_frame(ordered, keys), skipped, sweep.tokens)


def _rows(
    model: HookedMLLM, batch: Batch, groups: Sequence[str], point: str
) -> list[dict[str, Any]]:
    """One row per sample: group -> tokens and mean entropy per layer; the answer at the last token."""
    assert batch.samples is not None
    masks = {group: batch.groups.mask(group) for group in groups}
    answers = _answers(model, batch.samples)
    where = batch.groups.stack([*groups, "last"]).any(0)
    result = logit_lens(model, batch, point=point, positions=where, top_k=1, tokens=answers)
    means = {group: _means(result, mask.cpu()) for group, mask in masks.items()}
    last = batch.groups.mask("last").cpu()
    found = []
    for row, sample in enumerate(batch.samples):
        known, at_last = int(answers[row, 0]) >= 0, (slice(None), row, last[row], 0)
        found.append(
            {
                "id": sample.id,
                "layers": list(result.layers),
                "groups": {
                    group: {
                        "tokens": int(mask[row].sum()),
                        "entropy": [None if np.isnan(e) else e for e in means[group][row].tolist()],
                    }
                    for group, mask in masks.items()
                },
                "answer_rank": result.token_ranks[at_last].flatten().tolist() if known else None,
                "answer_p": result.token_probabilities[at_last].flatten().tolist()
                if known
                else None,
            }
        )
    return found


def _means(result: Readings, mask: Bool[Tensor, "batch pos"]) -> Float[Tensor, "batch layer"]:
    """Mean entropy over the tokens of a group; NaN for a row without any."""
    inside = mask & ~result.entropy[0].isnan()
    entropy = result.entropy.double().nan_to_num() * inside
    return (entropy.sum(-1) / inside.sum(-1)).T


def _answers(model: HookedMLLM, samples: Sequence[Sample]) -> Int[Tensor, "batch 1"]:
    """First token of each sample's first answer; -1 where it has none."""
    ids = []
    for sample in samples:
        if not sample.answers or model.processor is None:
            ids.append(-1)
            continue
        try:
            ids.append(token_id(model, sample.answers[0]))
        except SampleError:  # of several tokens
            ids.append(model.tokenizer(sample.answers[0], add_special_tokens=False)["input_ids"][0])
    return torch.tensor(ids)[:, None]


def _frame(rows: Sequence[dict[str, Any]], keys: dict[str, str]) -> pd.DataFrame:
    found = []
    for row in rows:
        for group, values in row["groups"].items():
            at_last = group == "last"
            ranks, shares = (row[name] if at_last else None for name in ("answer_rank", "answer_p"))
            for i, layer in enumerate(row["layers"]):
                found.append(
                    {
                        "id": row["id"],
                        "key": keys[row["id"]],
                        "group": group,
                        "layer": layer,
                        "tokens": values["tokens"],
                        "entropy": values["entropy"][i],
                        "answer_rank": None if ranks is None else ranks[i],
                        "answer_p": None if shares is None else shares[i],
                    }
                )
    frame = pd.DataFrame(found, columns=list(COLUMNS))
    return frame.astype({"entropy": float, "answer_rank": float, "answer_p": float})
