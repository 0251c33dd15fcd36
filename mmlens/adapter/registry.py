"""Which adapter serves a model: they are found by entry points, ours as well as anybody else's."""

from __future__ import annotations

from importlib.metadata import entry_points

from transformers import PreTrainedConfig

from mmlens.adapter.base import Adapter
from mmlens.errors import UnsupportedModelError

#: The group of entry points through which a package registers its adapters.
ENTRY_POINTS = "mmlens.adapters"
#: The entry point of the adapter for every model type that has none of its own.
GENERAL = "general"


def adapters() -> dict[str, type[Adapter]]:
    """``model_type`` -> adapter class, from all installed packages.

    Raises:
        UnsupportedModelError: two packages register the same model type.
    """
    found: dict[str, type[Adapter]] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        adapter = entry.load()
        for model_type in adapter.model_types:
            _claim(found, model_type, adapter)
    return found


def adapter_for(config: PreTrainedConfig) -> type[Adapter]:
    """The adapter class of a model's config: its family's, or the one registered as ``general``.

    Raises:
        UnsupportedModelError: no installed adapter serves this model type.
    """
    known = adapters()
    if config.model_type in known:
        return known[config.model_type]
    fallback: dict[str, type[Adapter]] = {}
    for entry in entry_points(group=ENTRY_POINTS, name=GENERAL):
        _claim(fallback, GENERAL, entry.load())
    if GENERAL in fallback:
        return fallback[GENERAL]
    raise UnsupportedModelError(
        f"No adapter serves model type {config.model_type!r} "
        f"({', '.join(config.architectures or ['no architecture named'])}); there are adapters for "
        f"{', '.join(sorted(known)) or 'nothing'}. A package can add one through the entry-point "
        f"group {ENTRY_POINTS!r}."
    )


def _claim(found: dict[str, type[Adapter]], model_type: str, adapter: type[Adapter]) -> None:
    if found.setdefault(model_type, adapter) is not adapter:
        raise UnsupportedModelError(
            f"Two installed adapters claim model type {model_type!r}: {found[model_type]} and "
            f"{adapter}; uninstall one of the packages."
        )
