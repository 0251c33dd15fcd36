"""The tokens that a neuron writes for: its output direction, read as the model reads its last layer.

A neuron of the language module adds ``s * W_out[neuron]`` to the residual stream, s its activation,
times the up branch where there is one. What that does to the logits, apart from the scale that the
final norm takes from the whole stream, is ``W_U (g * W_out[neuron])``, with g the norm's gain (the
reading of output weights in the vocabulary is that of arXiv 2203.14680).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NeuronSet

#: Scores held at a time: 64 MiB in float32.
_SCORES = 1 << 24


@dataclass(frozen=True, eq=False)
class Promoted:
    """The tokens whose logits each direction raises and lowers most.

    Attributes:
        top_ids, bottom_ids: the tokens, the strongest first.
        top, bottom: change of the logit per unit of the direction, where the stream's root mean
            square is one.
    """

    top_ids: Int[Tensor, "n k"]
    top: Float[Tensor, "n k"]
    bottom_ids: Int[Tensor, "n k"]
    bottom: Float[Tensor, "n k"]


def promoted(
    directions: Float[Tensor, "n d_model"],
    gain: Float[Tensor, " d_model"],
    unembedding: Float[Tensor, "d_vocab d_model"],
    k: int,
    *,
    centred: bool = False,
) -> Promoted:
    """Top and bottom tokens of output directions; float32.

    Args:
        directions: what is added to the residual stream.
        gain: the final norm's, one number per dimension.
        unembedding: a row per token.
        k: how many of each; at most the vocabulary.
        centred: the norm subtracts the mean first (LayerNorm).
    """
    k = min(k, len(unembedding))
    if centred:
        directions = directions - directions.mean(-1, keepdim=True)
    parts = []
    for some in (directions.float() * gain.float()).split(max(1, _SCORES // len(unembedding))):
        scores = some @ unembedding.float().T
        top, low = scores.topk(k, dim=-1), scores.topk(k, dim=-1, largest=False)
        parts.append((top.indices, top.values, low.indices, low.values))
    return Promoted(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def gain_of(norm: nn.Module, width: int) -> Float[Tensor, " d_model"]:
    """A norm's gain, however it is parametrised: what it makes of a vector of size one everywhere.

    The vector has as many ones as minus ones, so that a LayerNorm's mean is zero; the gain comes
    with the factor ``1 / sqrt(1 + eps)``.

    Raises:
        ValueError: an odd width, for which there is no such vector.
    """
    if width % 2:
        raise ValueError(f"A norm of odd width {width} cannot be probed with signs that cancel.")
    parameter = next(norm.parameters())
    probe = torch.ones(1, 1, width, dtype=parameter.dtype, device=parameter.device)
    probe[..., ::2] = -1
    # By the class's forward: the instance's own may lead through hook points. Twice, so that a bias cancels.
    up, down = (type(norm).forward(norm, sign * probe) for sign in (1, -1))
    return ((up - down) / (2 * probe))[0, 0].float()


@torch.no_grad()
def promoted_tokens(model: HookedMLLM, neurons: NeuronSet, k: int = 10) -> Promoted:
    """The tokens that neurons of the language module promote and suppress, in the order of ``neurons``.

    Where a norm follows the MLP (Gemma 2 and 3), its gain is folded in too.

    Args:
        model: a hooked model.
        neurons: of the language module.
        k: tokens of each kind.

    Raises:
        SampleError: neurons of another module, which write into no stream that is read as tokens; or
            none.
    """
    if neurons.module != LANGUAGE or not len(neurons):
        raise SampleError(
            f"Promoted tokens are those of the language module's neurons; {neurons!r} was given. What "
            "other modules write is not read by the unembedding."
        )
    decoder = model.adapter.decoder()
    head: Any = decoder.head
    width = head.weight.shape[1]
    directions = []
    for layer, indices in neurons.per_layer().items():
        rows = model.backbone.blocks[layer].mlp.W_out.detach()[indices].float()
        norm = getattr(decoder.layers[layer], "post_feedforward_layernorm", None)
        if norm is not None:
            rows = rows * gain_of(norm, width).to(rows.device)
        directions.append(rows.to(head.weight.device))
    gain = gain_of(decoder.norm, width).to(head.weight.device)
    centred = isinstance(decoder.norm, nn.LayerNorm)
    found = promoted(torch.cat(directions), gain, head.weight.detach(), k, centred=centred)
    return Promoted(*(value.cpu() for value in vars(found).values()))
