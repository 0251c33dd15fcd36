"""Hook names and what becomes of them: resolved against a model, installed, checked to have fired."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Protocol, runtime_checkable

from transformer_lens.hook_points import HookPoint

from mmlens.errors import HookError

HookName = str | Callable[[str], bool]


@runtime_checkable
class Hooked(Protocol):
    """A model with hook points by name."""

    hook_dict: dict[str, HookPoint]

    def why_silent(self, name: str) -> str | None:
        """Why an existing hook point cannot fire, in a sentence; None where it can."""
        ...


@dataclass
class Fired:
    """Which hooks were asked for, and which have fired.

    Attributes:
        asked: the names that each request stands for; one of them has to fire.
        fired: names that have.
    """

    asked: list[list[str]] = field(default_factory=list)
    fired: set[str] = field(default_factory=set)

    def check(self) -> None:
        """Raise HookError if a hook that was asked for has not fired.

        A name has to fire; of a predicate's matches one has to (a prompt without pictures reaches
        no tower).
        """
        silent = [names for names in self.asked if not self.fired.intersection(names)]
        if silent:
            raise HookError(
                f"{len(silent)} of {len(self.asked)} hooks never fired although the model ran, the "
                f"first {silent[0][0]!r}: nothing was read or changed there. Ask only for hook points "
                "that this input reaches."
            )


def resolve(model: Hooked, name: HookName) -> list[str]:
    """The names of hook points that a name, or a predicate on names, stands for.

    A predicate leaves out hook points that the backbone keeps from firing.

    Raises:
        HookError: there is no such name, the backbone keeps it from firing, or nothing matches.
    """
    if callable(name):
        found = [one for one in model.hook_dict if name(one) and model.why_silent(one) is None]
        if not found:
            raise HookError(
                f"The predicate on hook names matches none of this model's {len(model.hook_dict)}; "
                f"names look like {next(iter(model.hook_dict))!r}."
            )
        return found
    if name not in model.hook_dict:
        near = difflib.get_close_matches(name, model.hook_dict, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise HookError(
            f"There is no hook point {name!r} among this model's {len(model.hook_dict)}.{hint}"
        )
    if (why := model.why_silent(name)) is not None:
        raise HookError(why)
    return [name]


def install(
    model: Hooked,
    fwd_hooks: Iterable[tuple[HookName, Callable[..., Any]]],
    bwd_hooks: Iterable[tuple[HookName, Callable[..., Any]]],
    level: int,
) -> Fired:
    """Add hooks at a context level; nothing is added unless every name resolves."""
    forward = [(resolve(model, name), hook) for name, hook in fwd_hooks]
    backward = [(resolve(model, name), hook) for name, hook in bwd_hooks]
    record = Fired([names for names, _ in forward])
    for names, hook in forward:
        for name in names:
            model.hook_dict[name].add_hook(_recorded(hook, record.fired), dir="fwd", level=level)
    for names, hook in backward:
        for name in names:
            model.hook_dict[name].add_hook(hook, dir="bwd", level=level)
    return record


def _recorded(function: Callable[..., Any], fired: set[str]) -> Callable[..., Any]:
    @wraps(function, updated=())
    def recorded(tensor: Any, *, hook: HookPoint) -> Any:
        assert hook.name is not None
        fired.add(hook.name)
        return function(tensor, hook=hook)

    return recorded
