"""What an adapter has to know of one family of Hugging Face models, and how adapters are found.

An adapter is the only place that touches Hugging Face internals of its family. It is registered
through the entry-point group ``mmlens.adapters``; a third-party package does exactly as ours does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformers import PreTrainedConfig, PreTrainedModel

from mmlens.errors import UnsupportedModelError
from mmlens.groups import TokenIds
from mmlens.samples import Sample

ENTRY_POINTS = "mmlens.adapters"


@dataclass(frozen=True)
class Decoder:
    """The language model inside a Hugging Face model, by its parts.

    Attributes:
        model: the module that owns the layers; its ``config`` is the text config.
        layers: the decoder layers.
        norm: the final norm.
        head: the unembedding.
        embed: the token embedding.
        rotary: gives (cos, sin) for (hidden states, position ids).
    """

    model: PreTrainedModel
    layers: nn.ModuleList
    norm: nn.Module
    head: nn.Module
    embed: nn.Embedding
    rotary: nn.Module

    @property
    def config(self) -> PreTrainedConfig:
        """The text config."""
        return self.model.config


@dataclass(frozen=True)
class TowerMLP:
    """One MLP outside the language model: ``second(activation(first(x)))``."""

    first: nn.Module
    second: nn.Module


@dataclass(frozen=True)
class Tower:
    """A module outside the language model that has neurons.

    Attributes:
        mlps: its MLPs, one per layer.
        width: neurons per layer.
        on_path: per layer, whether its neurons can influence the model's output.
    """

    mlps: tuple[TowerMLP, ...]
    width: int
    on_path: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Towers:
    """The modules of a model that have neurons, and why others have none."""

    towers: Mapping[str, Tower]
    without_neurons: Mapping[str, str] = field(default_factory=dict)


class Adapter(ABC):
    """One family of models. Subclass it, set the class attributes, register an entry point."""

    #: ``config.model_type`` of the family.
    model_types: ClassVar[tuple[str, ...]]
    #: Placeholder groups of the family, of ``image``, ``video``, ``audio``.
    modalities: ClassVar[tuple[str, ...]]

    def __init__(self, hf: PreTrainedModel) -> None:
        self.hf = hf

    @classmethod
    @abstractmethod
    def auto_class(cls) -> type[Any]:
        """The transformers class whose ``from_pretrained`` loads the family."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """The language model's parts."""

    @abstractmethod
    def backbone_config(self) -> HookedTransformerConfig:
        """The HookedTransformer config that equals the decoder.

        Raises:
            UnsupportedModelError: HookedTransformer cannot represent the decoder exactly.
        """

    @abstractmethod
    def backbone_weights(self, config: HookedTransformerConfig) -> dict[str, Tensor]:
        """TransformerLens parameter and buffer names -> views of the decoder's weights."""

    @abstractmethod
    def towers(self) -> Towers:
        """The modules with neurons outside the language model."""

    @abstractmethod
    def token_ids(self, tokenizer: Any | None) -> TokenIds:
        """Placeholder and special ids; without a tokenizer, what the config alone tells."""

    @abstractmethod
    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Placeholder group -> features that the projector gives for each medium, in order."""

    def encode_media(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs with the projector's output in the place of raw media; as they are if not possible."""
        return dict(inputs)

    @abstractmethod
    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Sequence[int]
    ) -> Int[Tensor, " lead"]:
        """The row of the batch that each leading index of a tower's activations belongs to.

        Args:
            module: the tower's name.
            inputs: Hugging Face inputs.
            media_rows: for each medium (picture) in order, the row it belongs to.
        """

    @abstractmethod
    def tower_positions(self, module: str) -> int:
        """Positions that each leading index of a tower's activations has."""

    @abstractmethod
    def prompt(self, sample: Sample, processor: Any, template: str) -> str:
        """The text of a sample with one placeholder per medium."""

    @abstractmethod
    def process(
        self,
        processor: Any,
        prompts: Sequence[str],
        images: Sequence[Sequence[Any]],
        side: str,
    ) -> dict[str, Any]:
        """Hugging Face inputs of a batch, padded on ``side``; ``images`` per row, decoded."""

    @abstractmethod
    def placeholder_lengths(self, processor: Any, sizes: Sequence[tuple[int, int]]) -> list[int]:
        """How many tokens a picture of each (height, width) takes."""


def adapters() -> dict[str, type[Adapter]]:
    """``model_type`` -> adapter class, from all installed packages.

    Raises:
        UnsupportedModelError: two packages register the same model type.
    """
    found: dict[str, type[Adapter]] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        adapter = entry.load()
        for model_type in adapter.model_types:
            if found.setdefault(model_type, adapter) is not adapter:
                raise UnsupportedModelError(
                    f"Two installed adapters claim model type {model_type!r}: {found[model_type]} and "
                    f"{adapter}; uninstall one of the packages."
                )
    return found


def adapter_for(config: PreTrainedConfig) -> type[Adapter]:
    """The adapter class of a model's config.

    Raises:
        UnsupportedModelError: no installed adapter serves this model type.
    """
    known = adapters()
    if config.model_type not in known:
        raise UnsupportedModelError(
            f"No adapter serves model type {config.model_type!r} "
            f"({', '.join(config.architectures or ['no architecture named'])}); there are adapters for "
            f"{', '.join(sorted(known)) or 'nothing'}. A package can add one through the entry-point "
            f"group {ENTRY_POINTS!r}."
        )
    return known[config.model_type]


def owners(
    placeholders: Int[Tensor, " batch"], features: Int[Tensor, " medium"], group: str
) -> list[int]:
    """The row that each medium belongs to, from placeholders per row and features per medium.

    Media fill the rows in order; each row's placeholders must equal its media's features exactly,
    or the projector's output would land in the wrong question.

    Raises:
        UnsupportedModelError: they do not match.
    """
    rows, medium = [], 0
    sizes = features.tolist()
    for row, wanted in enumerate(placeholders.tolist()):
        filled = 0
        while filled < wanted and medium < len(sizes):
            filled += sizes[medium]
            rows.append(row)
            medium += 1
        if filled != wanted:
            raise UnsupportedModelError(
                f"Row {row} has {wanted} {group} placeholder tokens, but its media give {filled} "
                f"features; check that the processor's patch size, feature selection and additional "
                f"tokens are those of the model."
            )
    if medium != len(sizes):
        raise UnsupportedModelError(
            f"{len(sizes)} {group} media were given, but the prompts have placeholders for {medium}."
        )
    return rows


def own_device(module: nn.Module) -> torch.device:
    """The device of a module's first parameter."""
    return next(module.parameters()).device
