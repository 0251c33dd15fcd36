"""Mechanistic interpretability for multimodal large language models, on TransformerLens."""

from mmlens import entropy, hooks
from mmlens.batch import Batch
from mmlens.groups import TokenGroups
from mmlens.loading import load, splice
from mmlens.model import Generation, HookedMLLM
from mmlens.neurons import NeuronSet
from mmlens.samples import Sample, load_samples

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Generation",
    "HookedMLLM",
    "NeuronSet",
    "Sample",
    "TokenGroups",
    "entropy",
    "hooks",
    "load",
    "load_samples",
    "splice",
]
