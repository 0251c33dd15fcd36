"""What our adapters share: a HookedTransformer where it is exact, and towers by the path of their MLPs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mmlens.adapter import Adapter, Tower, TowerMLP
from mmlens.errors import SpliceError
from mmlens_adapters.decoders import hooked_transformer_config, hooked_transformer_weights

if TYPE_CHECKING:
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig


class FamilyAdapter(Adapter):
    """An adapter whose decoder is a HookedTransformer wherever that represents it exactly."""

    def backbone_config(self) -> HookedTransformerConfig:
        """See :meth:`Adapter.backbone_config`."""
        return hooked_transformer_config(self.decoder())

    def backbone_weights(self, config: HookedTransformerConfig) -> dict[str, Tensor]:
        """See :meth:`Adapter.backbone_weights`."""
        return hooked_transformer_weights(self.decoder(), config)


def encoded_as_embeddings(
    hf: Any, inputs: Mapping[str, Any], media: str = "input_features"
) -> dict[str, Any]:
    """Inputs with ``inputs_embeds``, the media's features merged in, in the place of raw media.

    For models that take no ``mm_encoder_outputs``, but put nothing into embeddings they are given;
    their own forward is run up to its language model, and stopped there.

    Args:
        hf: the Hugging Face model; ``hf.model`` merges, ``hf.model.language_model`` reads.
        inputs: its inputs.
        media: name of the raw media.
    """
    if inputs.get(media) is None:
        return dict(inputs)

    def stop(_module: nn.Module, _args: tuple[Any, ...], given: dict[str, Any]) -> None:
        raise _Reached(given["inputs_embeds"])

    handle = hf.model.language_model.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        hf.model(**inputs, use_cache=False)
    except _Reached as reached:
        rest = {name: value for name, value in inputs.items() if name != media}
        return {**rest, "inputs_embeds": reached.embeddings}
    finally:
        handle.remove()
    raise SpliceError(
        f"{type(hf).__name__} gave its language model no embeddings, so media cannot be encoded ahead."
    )


class _Reached(Exception):
    """The language model was reached, with these embeddings."""

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings = embeddings


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


def _tower(mlps: tuple[TowerMLP, ...], on_path: Callable[[int], bool]) -> Tower:
    width = mlps[0].first.out_features
    assert isinstance(width, int)
    return Tower(mlps, width, tuple(on_path(layer) for layer in range(len(mlps))))
