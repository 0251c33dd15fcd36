"""The logit lens: what the residual stream of every layer would say as the last one's (methods 2.7).

nostalgebraist's lens, as MMNeuron uses it on image tokens: the final norm and the unembedding,
applied to the output of every decoder layer. Distributions are reduced inside the hook, so that
nothing of size [layer, position, vocabulary] ever exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.errors import HookError, SampleError, SelfCheckError
from mmlens.lens.readout import Reading, Readout
from mmlens.lens.result import LensResult
from mmlens.model.batch import Batch, Inputs
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.self_check import relative_difference, tolerance

#: Where the residual stream, or what is added to it, can be read; short name -> hook of a layer.
POINTS = {
    "resid_post": "hook_resid_post",
    "resid_mid": "hook_resid_mid",
    "resid_pre": "hook_resid_pre",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
}
#: A map of a layer's residual stream to the last layer's, such as a tuned lens.
Translator = Callable[[Float[Tensor, "pos d_model"], int], Float[Tensor, "pos d_model"]]


@torch.no_grad()
def logit_lens(
    model: HookedMLLM,
    inputs: Inputs,
    *,
    point: str = "resid_post",
    layers: Sequence[int] | None = None,
    positions: str | Bool[Tensor, "batch pos"] | None = None,
    top_k: int = 10,
    tokens: Sequence[str | int] | Int[Tensor, "batch token"] = (),
    translator: Translator | None = None,
) -> LensResult:
    """The logit lens of a batch (MMNeuron section on the logit lens; methods 2.7).

    For every layer l and position t: ``z = head(norm_final(h[l, t]))``, ``P = softmax(z)``, entropy
    ``-sum_v P_v ln P_v`` in nats, and the most probable tokens. Runs under whatever hooks are on
    (``with model.hooks(...)``). One forward; its own logits are computed at the last position alone.

    Args:
        model: a hooked model.
        inputs: a batch, or Hugging Face inputs.
        point: where to read, one of :data:`POINTS`: the layer's output (``resid_post``), its input,
            the stream between attention and MLP, or what attention or MLP add to it.
        layers: which layers; default: all.
        positions: a token group (``image``, ``text``, ``last``, ...), a mask [batch, pos], or None
            for every position that is not padding.
        top_k: how many top tokens to keep.
        tokens: tokens whose rank and probability are wanted: ids or words of one token, the same in
            every row, or ids by row.
        translator: applied to ``h`` before the norm, ``translator(h, layer)``; a tuned lens.

    Raises:
        SelfCheckError: the last layer's output, read in this way, does not give the model's logits.
        SampleError: a word that is not one token, or an empty set of positions.
        HookError: an unknown layer or point.
        UnsupportedModelError: norm or head are offloaded.
    """
    batch = model.as_batch(inputs)
    names = _names(model, point, layers)
    readout = Readout.of(model.adapter)
    where = _where(batch, positions)
    asked = _asked(model, tokens, len(batch)).to(where.device)
    by_position = asked.repeat_interleave(where.sum(-1), dim=0)
    k = min(top_k, readout.d_vocab)
    readings: dict[int, Reading] = {}
    last: list[Tensor] = []

    def hook_for(layer: int) -> Callable[..., None]:
        def read(stream: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> None:  # noqa: ARG001
            chosen = stream[where.to(stream.device)]
            if translator is not None:
                chosen = translator(chosen, layer)
            readings[layer] = _on_cpu(readout.read(chosen, k, by_position.to(chosen.device)))

        return read

    def keep(stream: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> None:  # noqa: ARG001
        last.append(stream[:, -1])

    final = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    hooks = [(name, hook_for(layer)) for layer, name in names.items()]
    with model.hooks(fwd_hooks=[*hooks, (final, keep)]):
        logits = model.forward(batch, logits_to_keep=1).logits[:, -1]
    _check_last(model, readout.logits(last[0]), logits)
    return _result(model, batch, point, where.cpu(), readings, asked.cpu())


def _names(model: HookedMLLM, point: str, layers: Sequence[int] | None) -> dict[int, str]:
    if point not in POINTS:
        raise HookError(f"The lens does not read at {point!r}; it reads at {', '.join(POINTS)}.")
    every = range(model.cfg.n_layers)
    chosen = every if layers is None else [one + len(every) if one < 0 else one for one in layers]
    if unknown := [one for one in chosen if one not in every]:
        raise HookError(f"There is no layer {unknown[0]}; the decoder has {len(every)}, from 0.")
    return {layer: f"blocks.{layer}.{POINTS[point]}" for layer in sorted(set(chosen))}


def _where(
    batch: Batch, positions: str | Bool[Tensor, "batch pos"] | None
) -> Bool[Tensor, "batch pos"]:
    real = batch.groups.attention
    if positions is None:
        where = real
    elif isinstance(positions, str):
        where = batch.groups.mask(positions)
    else:
        if positions.shape != batch.shape:
            raise SampleError(
                f"The mask of positions is {list(positions.shape)}; the batch is {list(batch.shape)}."
            )
        where = positions.to(real.device) & real
    if not bool(where.any()):
        raise SampleError(
            f"No position of the batch is in {positions!r}; the lens has none to read."
        )
    return where


def _asked(
    model: HookedMLLM, tokens: Sequence[str | int] | Int[Tensor, "batch token"], rows: int
) -> Int[Tensor, "batch token"]:
    if not isinstance(tokens, Tensor):
        ids = [token_id(model, one) for one in tokens]
        return torch.tensor(ids, dtype=torch.long).expand(rows, -1)
    if tokens.shape[:1] != (rows,):
        raise SampleError(f"Tokens by row are {list(tokens.shape)}; the batch has {rows} rows.")
    return tokens


def token_id(model: HookedMLLM, token: str | int) -> int:
    """The id of a word that is one token, as it is inside a sentence, else as at its start.

    Raises:
        SampleError: the word is no single token.
    """
    if isinstance(token, int):
        return token
    # A word inside a sentence is another token than at its start in most vocabularies.
    spellings = [f" {token}", token] if not token.startswith(" ") else [token]
    for text in spellings:
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != model.tokenizer.unk_token_id:
            return int(ids[0])
    raise SampleError(
        f"{token!r} is not one token of this vocabulary, so it has no rank: give a shorter word or a "
        "token id."
    )


def _on_cpu(reading: Reading) -> Reading:
    return replace(reading, **{f.name: getattr(reading, f.name).cpu() for f in fields(reading)})


def _check_last(model: HookedMLLM, ours: Tensor, theirs: Tensor) -> None:
    difference, allowed = relative_difference(ours, theirs), tolerance(model)
    if difference > allowed:
        raise SelfCheckError(
            f"Norm and head, applied to the last layer's output, give logits that differ from the model's by "
            f"{difference:.1e} (at most {allowed:.0e} is rounding): every layer's lens would be wrong. "
            "A hook on ln_final or the unembedding does that; otherwise the adapter's decoder() is wrong."
        )


def _result(
    model: HookedMLLM,
    batch: Batch,
    point: str,
    where: Bool[Tensor, "batch pos"],
    readings: dict[int, Reading],
    tokens: Int[Tensor, "batch token"],
) -> LensResult:
    layers = tuple(sorted(readings))

    def spread(name: str, empty: float | int) -> Tensor:
        rows = [getattr(readings[layer], name) for layer in layers]
        full = rows[0].new_full((len(layers), *where.shape, *rows[0].shape[1:]), empty)
        for index, values in enumerate(rows):
            full[index][where] = values
        return full

    tokenizer = model.tokenizer if model.processor is not None else None
    return LensResult(
        point=point,
        layers=layers,
        entropy=spread("entropy", torch.nan),
        top_ids=spread("top_ids", -1),
        top_probabilities=spread("top_probabilities", torch.nan),
        tokens=tokens,
        token_ranks=spread("token_ranks", -1),
        token_probabilities=spread("token_probabilities", torch.nan),
        batch=batch.to("cpu"),
        decode=None if tokenizer is None else lambda token: tokenizer.decode([token]),
        special=frozenset() if tokenizer is None else frozenset(tokenizer.all_special_ids),
    )
