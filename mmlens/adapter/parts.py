"""What an adapter is asked for and given: a decoder and towers by their parts, decoded media, sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Decoder:
    """The language model inside a Hugging Face model, by its parts.

    Attributes:
        model: the module that owns the layers; its ``config`` is the text config.
        layers: the decoder layers.
        norm: the final norm.
        head: the unembedding.
        embed: the token embedding.
        rotary: gives (cos, sin) for (hidden states, position ids); None where positions come
            another way.
    """

    model: PreTrainedModel
    layers: nn.ModuleList
    norm: nn.Module
    head: nn.Module
    embed: nn.Embedding
    rotary: nn.Module | None

    @property
    def config(self) -> PreTrainedConfig:
        """The text config."""
        return self.model.config

    def activation(self, layer: int) -> Callable[[Tensor], Tensor]:
        """The activation function of one layer's MLP."""
        mlp: Any = self.layers[layer].mlp
        return mlp.act_fn if hasattr(mlp, "act_fn") else mlp.activation_fn


@dataclass(frozen=True)
class TowerMLP:
    """One MLP outside the language model: ``second(activation(first(x)))``.

    With an up branch: ``second(activation(first(x)) * up(x))``; ``activation`` is then needed, since
    the neurons' activation itself is no module's input.
    """

    first: nn.Module
    second: nn.Module
    up: nn.Module | None = None
    activation: Callable[[Tensor], Tensor] | None = None


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

    @property
    def gated(self) -> bool:
        """Whether its MLPs multiply the activation with an up branch."""
        return self.mlps[0].up is not None


@dataclass(frozen=True)
class Towers:
    """The modules of a model that have neurons, and why others have none."""

    towers: Mapping[str, Tower]
    without_neurons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Media:
    """The decoded media of a batch, row by row.

    Attributes:
        images: pictures, RGB.
        videos: frames of each video, with their rate (:class:`mmlens.data.media.videos.VideoFrames`).
        audios: waveforms, mono, at the processor's sampling rate.
    """

    images: Sequence[Sequence[Any]]
    videos: Sequence[Sequence[Any]] = ()
    audios: Sequence[Sequence[Any]] = ()

    def flat(self, kind: str) -> list[Any]:
        """All media of a kind, in the order of the rows."""
        return [one for row in getattr(self, f"{kind}s") for one in row]


@dataclass(frozen=True)
class MediaSizes:
    """The sizes of one sample's media, from their headers.

    Attributes:
        images: (height, width) in pixels.
        videos: (frames, height, width).
        audios: samples at the processor's sampling rate.
    """

    images: tuple[tuple[int, int], ...] = ()
    videos: tuple[tuple[int, int, int], ...] = ()
    audios: tuple[int, ...] = ()


def numbered(rows: Sequence[MediaSizes], kind: str) -> list[tuple[int, Any]]:
    """All media of a kind, row by row: its number among those of its row, and its size.

    >>> numbered([MediaSizes(images=((4, 3), (2, 2))), MediaSizes(images=((5, 5),))], "image")
    [(0, (4, 3)), (1, (2, 2)), (0, (5, 5))]
    """
    return [one for row in rows for one in enumerate(getattr(row, f"{kind}s"))]
