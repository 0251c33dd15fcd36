"""Metric libraries that not every user needs: imported when a metric is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmlens.errors import SampleError


def library(name: str, what: str) -> Any:
    """The package of that name.

    Args:
        name: of the package.
        what: which metric needs it, for the error.

    Raises:
        SampleError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise SampleError(
            f"{what} needs the package {name}, which cannot be imported; install it with "
            'pip install "mmlens[metrics]".'
        ) from error
