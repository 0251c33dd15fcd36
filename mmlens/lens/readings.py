"""What the logit lens reads, as data: entropy, top tokens and the tokens asked for, per layer and position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.model.batch import Batch


@dataclass(frozen=True, eq=False)
class Readings:
    """What the lens reads of every layer at every position.

    Positions that were not read have entropy NaN and token id -1.

    Attributes:
        point: where the stream was read.
        layers: the layers read, in order.
        entropy: nats.
        top_ids, top_probabilities: the most probable tokens, the first first.
        tokens: ids asked for, by row.
        token_ranks, token_probabilities: of those; rank 0 is the most probable.
        batch: what the model was given.
        decode: token id -> text; None where the model has no tokenizer.
        special: ids of the tokenizer's special tokens.
    """

    point: str
    layers: tuple[int, ...]
    entropy: Float[Tensor, "layer batch pos"]
    top_ids: Int[Tensor, "layer batch pos k"]
    top_probabilities: Float[Tensor, "layer batch pos k"]
    tokens: Int[Tensor, "batch token"]
    token_ranks: Int[Tensor, "layer batch pos token"]
    token_probabilities: Float[Tensor, "layer batch pos token"]
    batch: Batch = field(repr=False)
    decode: Callable[[int], str] | None = field(default=None, repr=False)
    special: frozenset[int] = field(default=frozenset(), repr=False)

    def word(self, token: int) -> str:
        """The text of a token id, blanks kept; the id itself where there is no tokenizer."""
        return str(token) if self.decode is None else self.decode(token)

    def frame(self, top: int = 1) -> pd.DataFrame:
        """A row per layer, sample and position that was read.

        Columns: ``layer``, ``row``, ``sample`` (its id, where there is one), ``pos``, ``group``,
        ``token`` (the prompt's own), ``entropy`` (nats), ``top_1``, ``p_1``, ... and, for every token
        asked for, ``asked_1`` (its text), ``asked_rank_1``, ``asked_p_1``, ...
        """
        layer, row, pos = (i.numpy() for i in (~self.entropy.isnan()).nonzero(as_tuple=True))
        ids = self.batch.input_ids.cpu().numpy()
        samples = self.batch.samples
        names = [None] * len(ids) if samples is None else [sample.id for sample in samples]
        found: dict[str, Any] = {
            "layer": np.asarray(self.layers)[layer],
            "row": row,
            "sample": np.asarray(names, dtype=object)[row],
            "pos": pos,
            "group": self._groups()[row, pos],
            "token": self._words(ids[row, pos]),
            "entropy": self.entropy.numpy()[layer, row, pos],
        }
        for i in range(min(top, self.top_ids.shape[-1])):
            found[f"top_{i + 1}"] = self._words(self.top_ids.numpy()[layer, row, pos, i])
            found[f"p_{i + 1}"] = self.top_probabilities.numpy()[layer, row, pos, i]
        for i in range(self.tokens.shape[1]):
            found[f"asked_{i + 1}"] = self._words(self.tokens.numpy()[row, i])
            found[f"asked_rank_{i + 1}"] = self.token_ranks.numpy()[layer, row, pos, i]
            found[f"asked_p_{i + 1}"] = self.token_probabilities.numpy()[layer, row, pos, i]
        return pd.DataFrame(found)

    def _groups(self) -> np.ndarray:
        names = np.full(self.batch.shape, "padding", dtype=object)
        for name, mask in self.batch.groups.base.items():
            names[mask.cpu().numpy()] = name
        return names

    def _words(self, ids: np.ndarray) -> np.ndarray:
        unique, inverse = np.unique(ids, return_inverse=True)
        words = np.array([self.word(int(token)) for token in unique], dtype=object)
        return words[inverse]
