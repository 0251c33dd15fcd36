"""Mechanistic interpretability for multimodal large language models, on TransformerLens."""

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
