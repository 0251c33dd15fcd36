"""Mechanistic interpretability for multimodal large language models, on TransformerLens.

Names are imported when they are first used: importing mmlens itself does not load transformers.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlens import entropy, hooks, importance, selection
    from mmlens.batch import Batch
    from mmlens.cards import neuron_cards
    from mmlens.collection import collect
    from mmlens.groups import TokenGroups
    from mmlens.interventions import Intervention
    from mmlens.lens import LensResult, logit_lens
    from mmlens.loading import load, splice
    from mmlens.model import Generation, HookedMLLM
    from mmlens.neurons import NeuronSet
    from mmlens.places import places_of
    from mmlens.samples import Sample, load_samples
    from mmlens.separation import group_counts, show_groups
    from mmlens.statistics import NeuronStatistics
    from mmlens.top_collection import top_activations

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Generation",
    "HookedMLLM",
    "Intervention",
    "LensResult",
    "NeuronSet",
    "NeuronStatistics",
    "Sample",
    "TokenGroups",
    "collect",
    "entropy",
    "group_counts",
    "hooks",
    "importance",
    "load",
    "load_samples",
    "logit_lens",
    "neuron_cards",
    "places_of",
    "selection",
    "show_groups",
    "splice",
    "top_activations",
]

# Public name -> the module it lives in; a module's own name stands for itself.
_HOMES = {
    "Batch": "batch",
    "Generation": "model",
    "HookedMLLM": "model",
    "Intervention": "interventions",
    "LensResult": "lens",
    "NeuronSet": "neurons",
    "NeuronStatistics": "statistics",
    "Sample": "samples",
    "TokenGroups": "groups",
    "collect": "collection",
    "group_counts": "separation",
    "load": "loading",
    "load_samples": "samples",
    "logit_lens": "lens",
    "neuron_cards": "cards",
    "places_of": "places",
    "show_groups": "separation",
    "splice": "loading",
    "top_activations": "top_collection",
}


# The one thing done at import, and only where torchvision was built for another torch than this one:
# without it nothing here that imports transformers could be imported.
if find_spec("torchvision") is not None:
    import_module("mmlens.torchvision_operators").declare_missing_operators()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"mmlens.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"mmlens.{name}")
    raise AttributeError(f"module 'mmlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
