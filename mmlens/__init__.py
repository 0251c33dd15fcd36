"""Mechanistic interpretability for multimodal large language models, on TransformerLens.

The packages in the order of data flow; each may import only those above it:

- ``errors``, ``hook_names``, ``_torchvision``: what can go wrong, TransformerLens's names, and
  operators that a torchvision built for another torch lacks
- ``storage``: files, written whole, read back, fingerprinted
- ``data``: samples and their media
- ``tokens``: what each position of a prompt is
- ``neurons``: sets of neurons
- ``statistics``: mergeable numbers of activations
- ``metrics``: scores of answers
- ``adapter``: the contract of a model family
- ``datasets``: the papers' benchmarks, read into samples
- ``entropy``: domain neurons (MMNeuron)
- ``hooks``: what reads and changes activations
- ``backbone``: the decoder under TransformerLens hooks
- ``plots``: figures from tables
- ``selection``: from scores to neuron sets
- ``report``: pages of parts
- ``model``: the hooked multimodal model, and its batches
- ``streaming``: from samples to statistics, in one pass
- ``importance``: MINER's scores of neurons
- ``ablation``: masks beside their controls, and what they cost
- ``lens``: what every layer would say
- ``run``: the folder of an experiment
- ``states``: hidden states of token groups, and what the last token takes from them
- ``cards``: what activates a neuron most
- ``separation``: a prompt's token groups, shown and counted

Names are imported when they are first used: importing mmlens itself does not load transformers.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlens import entropy, hooks, importance, selection
    from mmlens.ablation.evaluate import evaluate
    from mmlens.ablation.intervention import Intervention
    from mmlens.cards.neuron_cards import neuron_cards
    from mmlens.data.samples import Sample, load_samples
    from mmlens.lens.logit_lens import logit_lens
    from mmlens.lens.result import LensResult
    from mmlens.model.batch import Batch
    from mmlens.model.generation import Generation
    from mmlens.model.hooked_mllm import HookedMLLM
    from mmlens.model.loading import load, splice
    from mmlens.model.places import places_of
    from mmlens.neurons import NeuronSet
    from mmlens.separation import group_counts, show_groups
    from mmlens.statistics.neuron_statistics import NeuronStatistics
    from mmlens.streaming.batching import Batching
    from mmlens.streaming.collect import collect
    from mmlens.streaming.top import top_activations
    from mmlens.tokens.groups import TokenGroups

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Batching",
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
    "evaluate",
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
    "Batch": "model.batch",
    "Batching": "streaming.batching",
    "Generation": "model.generation",
    "HookedMLLM": "model.hooked_mllm",
    "Intervention": "ablation.intervention",
    "LensResult": "lens.result",
    "NeuronSet": "neurons",
    "NeuronStatistics": "statistics.neuron_statistics",
    "Sample": "data.samples",
    "TokenGroups": "tokens.groups",
    "collect": "streaming.collect",
    "evaluate": "ablation.evaluate",
    "group_counts": "separation",
    "load": "model.loading",
    "load_samples": "data.samples",
    "logit_lens": "lens.logit_lens",
    "neuron_cards": "cards.neuron_cards",
    "places_of": "model.places",
    "show_groups": "separation",
    "splice": "model.loading",
    "top_activations": "streaming.top",
}


# The one thing done at import, and only where torchvision was built for another torch than this one:
# without it nothing here that imports transformers could be imported.
if find_spec("torchvision") is not None:
    import_module("mmlens._torchvision").declare_missing_operators()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"mmlens.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"mmlens.{name}")
    raise AttributeError(f"module 'mmlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
