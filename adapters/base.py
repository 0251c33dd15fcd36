"""What our adapters share: a HookedTransformer where it is exact, processors, towers by the path of their MLPs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from mmlens.adapter import Adapter, Media, Tower, TowerMLP
from mmlens.data.media.videos import VideoFrames
from mmlens.tokens.groups import TokenIds
from mmlens_adapters.decoders import hooked_transformer_config, hooked_transformer_weights

if TYPE_CHECKING:
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

#: Arguments of a video processor that takes frames as they are decoded, every one of them.
AS_DECODED = {"do_sample_frames": False, "input_data_format": "channels_last"}
#: Frames per second of a video that does not say; Qwen's own tools assume the same.
FRAME_RATE = 2.0


class FamilyAdapter(Adapter):
    """An adapter whose decoder is a HookedTransformer wherever that represents it exactly."""

    #: The tokens that form the group ``special``, and no others; None: those of the tokenizer.
    special_tokens: ClassVar[tuple[str, ...] | None] = None

    def backbone_config(self) -> HookedTransformerConfig:
        """See :meth:`Adapter.backbone_config`."""
        return hooked_transformer_config(self.decoder())

    def backbone_weights(self, config: HookedTransformerConfig) -> dict[str, Tensor]:
        """See :meth:`Adapter.backbone_weights`."""
        return hooked_transformer_weights(self.decoder(), config)

    def token_ids(self, tokenizer: Any | None) -> TokenIds:
        """See :meth:`Adapter.token_ids`; special: exactly :attr:`special_tokens`, where they are named."""
        if self.special_tokens is None:
            return super().token_ids(tokenizer)
        vocabulary = tokenizer.get_vocab() if tokenizer else {}
        special = frozenset(vocabulary[one] for one in self.special_tokens if one in vocabulary)
        return TokenIds(self.placeholders(), special)

    def arguments(self, processor: Any, media: Media) -> dict[str, Any]:
        """See :meth:`Adapter.arguments`; videos come with their rates."""
        given = super().arguments(processor, media)
        if videos := media.flat("video"):
            metadata = [video_metadata(one) for one in videos]
            given["videos_kwargs"] = {**AS_DECODED, "video_metadata": metadata}
        return given


def picture_rows(media: Media) -> dict[str, Any]:
    """The ``images`` of a processor that wants those of each prompt in a list of their own."""
    return {"images": [list(row) for row in media.images]} if media.flat("image") else {}


def image_settings(processor: Any) -> dict[str, Any]:
    """The arguments with which a processor calls its image processor."""
    merged = processor._merge_kwargs(tokenizer_init_kwargs=processor.tokenizer.init_kwargs)
    return merged["images_kwargs"]


def frame_rate(video: VideoFrames, default: float = FRAME_RATE) -> float:
    """Frames per second of a video, or the default where it does not say."""
    return float(video.fps or default)


def video_metadata(video: VideoFrames, default: float = FRAME_RATE) -> dict[str, Any]:
    """What transformers' video processors want to know of a video whose frames are all given."""
    frames, rate = len(video.frames), frame_rate(video, default)
    return {
        "total_num_frames": frames,
        "fps": rate,
        "duration": frames / rate,
        "frames_indices": list(range(frames)),
    }


def plain_tower(
    layers: Iterable[nn.Module],
    first: str = "mlp.fc1",
    second: str = "mlp.fc2",
    on_path: Callable[[int], bool] = lambda _: True,
) -> Tower:
    """A tower of ``second(activation(first(x)))``, by the paths of both projections in a layer."""
    mlps = tuple(TowerMLP(attrgetter(first)(x), attrgetter(second)(x)) for x in layers)
    return _tower(mlps, on_path)


def gated_tower(
    layers: Iterable[nn.Module],
    gate: str = "mlp.gate_proj",
    up: str = "mlp.up_proj",
    down: str = "mlp.down_proj",
    activation: str = "mlp.act_fn",
    on_path: Callable[[int], bool] = lambda _: True,
) -> Tower:
    """A tower of ``down(activation(gate(x)) * up(x))``, by their paths in a layer."""
    mlps = tuple(
        TowerMLP(*(attrgetter(path)(x) for path in (gate, down, up, activation))) for x in layers
    )
    return _tower(mlps, on_path)


def last_layer_read(read: int | Sequence[int], layers: int) -> int:
    """How many layers of a tower come before the last hidden state that is read.

    Hidden state 0 is the embedding, so hidden state i is the output of layer i - 1.

    >>> last_layer_read(-2, layers=24), last_layer_read([3, -1], layers=24)
    (23, 24)
    """
    states = [read] if isinstance(read, int) else read
    return max(state if state >= 0 else layers + 1 + state for state in states)


def _tower(mlps: tuple[TowerMLP, ...], on_path: Callable[[int], bool]) -> Tower:
    width = mlps[0].first.out_features
    assert isinstance(width, int)
    return Tower(mlps, width, tuple(on_path(layer) for layer in range(len(mlps))))
