"""Mechanistic interpretability for multimodal large language models, on TransformerLens.

Names are imported when they are first used: importing mmlens itself loads neither torch nor
transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlens import entropy, hooks
    from mmlens.batch import Batch
    from mmlens.collection import collect
    from mmlens.groups import TokenGroups
    from mmlens.loading import load, splice
    from mmlens.model import Generation, HookedMLLM
    from mmlens.neurons import NeuronSet
    from mmlens.samples import Sample, load_samples
    from mmlens.statistics import NeuronStatistics

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Generation",
    "HookedMLLM",
    "NeuronSet",
    "NeuronStatistics",
    "Sample",
    "TokenGroups",
    "collect",
    "entropy",
    "hooks",
    "load",
    "load_samples",
    "splice",
]

# Public name -> the module it lives in; a module's own name stands for itself.
_HOMES = {
    "Batch": "batch",
    "Generation": "model",
    "HookedMLLM": "model",
    "NeuronSet": "neurons",
    "NeuronStatistics": "statistics",
    "Sample": "samples",
    "TokenGroups": "groups",
    "collect": "collection",
    "load": "loading",
    "load_samples": "samples",
    "splice": "loading",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"mmlens.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"mmlens.{name}")
    raise AttributeError(f"module 'mmlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
