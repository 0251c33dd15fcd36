"""The checker of shapes and types while the tests run: beartype, once for every signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype

_CHECKED: dict[tuple[Any, ...], Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """What ``beartype.beartype`` returns for a function that has only a signature.

    jaxtyping decorates an inner function whenever it is made, as a hook is for every batch, and
    beartype compiles anew each time: without this it takes a quarter of the tests' time. What
    jaxtyping passes here is a function without a body that has the signature of the one to be
    checked, so one of them serves all of the same name, parameters and annotations.
    """
    code = function.__code__
    key = (
        function.__module__,
        function.__qualname__,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        code.co_varnames,
        # As text: an annotation with a shape is a new class each time that it is evaluated.
        tuple((name, repr(hint)) for name, hint in function.__annotations__.items()),
    )
    if key not in _CHECKED:
        _CHECKED[key] = beartype(function)
    return _CHECKED[key]
