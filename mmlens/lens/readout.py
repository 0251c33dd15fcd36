"""Reading a residual stream as words: final norm, unembedding, and what a distribution says.

``z = head(norm_final(h))``, ``P = softmax(z)``, ``H = -sum_v P_v ln P_v`` (MMNeuron, methods 2.7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlens.adapter import Adapter
from mmlens.errors import UnsupportedModelError

#: Logits held at a time: 32 MiB in float32.
CHUNK_LOGITS = 2**23


@dataclass(frozen=True)
class Reading:
    """What the distributions at some positions say.

    Attributes:
        entropy: in nats, between 0 and ln d_vocab.
        top_ids: the most probable tokens, the first first.
        top_probabilities: theirs.
        token_ranks: rank of each token asked for; 0 is the most probable, -1 where none was asked for.
        token_probabilities: theirs; NaN where none was asked for.
    """

    entropy: Float[Tensor, " pos"]
    top_ids: Int[Tensor, "pos k"]
    top_probabilities: Float[Tensor, "pos k"]
    token_ranks: Int[Tensor, "pos token"]
    token_probabilities: Float[Tensor, "pos token"]

    @classmethod
    def joined(cls, parts: list[Reading]) -> Reading:
        """The readings of several chunks of positions, one after the other."""
        return cls(
            *(torch.cat(column) for column in zip(*(vars(p).values() for p in parts), strict=True))
        )


def read(logits: Float[Tensor, "pos d_vocab"], k: int, tokens: Int[Tensor, "pos token"]) -> Reading:
    """Entropy, top tokens and given tokens of the distributions that logits stand for.

    With ``m = max z`` and ``s = sum_v exp(z_v - m)``:  ``H = ln s - sum_v exp(z_v - m) (z_v - m) / s``.
    Computed in float32, whatever the logits' dtype.

    Args:
        logits: one row per position; overwritten if they are float32 already.
        k: how many top tokens.
        tokens: ids whose rank and probability are wanted at each position, -1 for none; the rank
            counts tokens with strictly greater logits.
    """
    z = logits.float()
    # The order is taken before the shift, which rounds small differences away.
    top, top_ids = z.topk(k, dim=-1)
    missing = tokens < 0
    chosen = z.gather(1, tokens.clamp(min=0))
    # One token at a time: a comparison with all of them at once would be [pos, token, d_vocab].
    ranks = [(z > chosen[:, i, None]).sum(-1) for i in range(tokens.shape[1])]
    rank = torch.stack(ranks, -1) if ranks else torch.zeros_like(tokens)
    m = z.amax(-1, keepdim=True)
    z -= m
    e = z.exp()
    s = e.sum(-1)
    # A token of logit -inf has probability 0, and 0 ln 0 is 0.
    entropy = s.log() - e.mul_(z).nan_to_num_(nan=0.0).sum(-1) / s
    return Reading(
        entropy=entropy.clamp(min=0.0),
        top_ids=top_ids,
        top_probabilities=(top - m).exp() / s[:, None],
        token_ranks=rank.masked_fill(missing, -1),
        token_probabilities=((chosen - m).exp() / s[:, None]).masked_fill(missing, torch.nan),
    )


@dataclass(frozen=True)
class Readout:
    """A decoder's final norm and unembedding, applied to any residual stream.

    They are computed beside the model's own: no hook point fires, and hooks on ``ln_final`` or the
    unembedding change nothing here.

    Attributes:
        norm, head: the decoder's modules.
        final: what the model makes of its head's output.
        d_vocab: tokens in the vocabulary.
    """

    norm: nn.Module
    head: nn.Module
    final: Callable[[Tensor], Tensor]
    d_vocab: int

    @classmethod
    def of(cls, adapter: Adapter) -> Readout:
        """The readout of a model.

        Raises:
            UnsupportedModelError: norm or head are offloaded, so that they have no weights here.
        """
        decoder = adapter.decoder()
        for name, module in (("norm", decoder.norm), ("head", decoder.head)):
            if any(parameter.is_meta for parameter in module.parameters()):
                raise UnsupportedModelError(
                    f"The decoder's final {name} is offloaded, and the lens reads every layer through "
                    "it: give it a device in device_map."
                )
        rows: Any = decoder.head.weight
        return cls(decoder.norm, decoder.head, adapter.final_logits, rows.shape[0])

    def logits(self, residual: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_vocab"]:
        """Logits of a residual stream, in the model's dtype."""
        weight: Any = self.head.weight
        x = residual.to(weight.device)
        # By the classes' forward: the instances' own may lead through hook points.
        x = type(self.norm).forward(self.norm, x)
        return self.final(type(self.head).forward(self.head, x))

    def read(
        self, residual: Float[Tensor, "pos d_model"], k: int, tokens: Int[Tensor, "pos token"]
    ) -> Reading:
        """As :func:`read`, a chunk of positions at a time: at most ``CHUNK_LOGITS`` logits at once."""
        rows = max(1, CHUNK_LOGITS // self.d_vocab)
        chunks = zip(residual.split(rows), tokens.split(rows), strict=True)
        parts = [read(self.logits(chunk), k, asked) for chunk, asked in chunks]
        return Reading.joined(parts)
