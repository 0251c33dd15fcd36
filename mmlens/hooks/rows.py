"""Hooks limited to some rows of a batch, so that several interventions run side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.errors import HookError
from mmlens.hooks.editing import Hook


def on_rows(parts: Sequence[tuple[range, Sequence[Hook]]], of: int) -> list[Hook]:
    """Hooks that each see and change only their own rows of a batch, as if those ran alone.

    With the batch of one intervention repeated (:meth:`mmlens.model.batch.Batch.repeated`), S
    interventions on B rows are ``on_rows([(range(s * B, (s + 1) * B), hooks[s]) ...], S * B)``:
    each hook is made for the B rows, its ``positions`` too, and sees tensors [B, ...], in the prompt
    and at every new token. What it returns takes the place of those rows; a hook that returns None
    changes nothing. All parts together copy a tensor once per hook point.

    Args:
        parts: (rows, hooks on them); hooks on the same rows act one after another, as given.
        of: rows of the batch.

    Returns:
        One (hook name, function) pair per hook name.

    Raises:
        HookError: rows that do not lie in the batch, or do not follow one another; when run, a
            tensor of another number of rows (beams, a module outside the language model), or a
            hook that changes the shape of its rows.
    """
    found: dict[str, list[tuple[range, Callable[..., Any]]]] = {}
    for rows, hooks in parts:
        if rows.step != 1 or not 0 <= rows.start <= rows.stop <= of:
            raise HookError(
                f"Hooks on {rows} do not fit a batch of {of} rows: give a range of step 1 within it."
            )
        for name, function in hooks:
            found.setdefault(name, []).append((rows, function))
    return [(name, _each(hooked, of)) for name, hooked in found.items()]


def _each(parts: Sequence[tuple[range, Callable[..., Any]]], of: int) -> Callable[..., Any]:
    def hook_fn(tensor: Tensor, hook: HookPoint) -> Tensor | None:
        if len(tensor) != of:
            raise HookError(
                f"Hooks on rows of a batch of {of} met {len(tensor)} rows at {hook.name!r}: run them "
                "without beams, on the very batch, and not on modules outside the language model."
            )
        whole = tensor
        for rows, function in parts:
            old = whole[rows.start : rows.stop]
            new = function(old, hook=hook)
            if new is None:
                continue
            if new.shape != old.shape:
                raise HookError(
                    f"A hook on rows at {hook.name!r} was given {list(old.shape)} and returned "
                    f"{list(new.shape)}; it has to keep the shape."
                )
            if whole is tensor:
                whole = tensor.clone()
            whole[rows.start : rows.stop] = new
        return None if whole is tensor else whole

    return hook_fn
