"""Which backbone a model gets, and its construction."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Literal, get_args

from mmlens.adapter import Adapter
from mmlens.backbone.bridge.splice import BridgeSplice
from mmlens.backbone.exchange import Backbone
from mmlens.errors import UnsupportedModelError

BackboneName = Literal["auto", "hooked_transformer", "bridge"]
logger = logging.getLogger(__name__)


def build_backbone(adapter: Adapter, name: BackboneName = "auto") -> Backbone:
    """The hooked backbone of a model.

    Args:
        adapter: the model's adapter.
        name: ``hooked_transformer``, ``bridge``, or ``auto``: the first wherever it represents the
            decoder exactly and transformer-lens still has it (before 4.0), else the second.

    Raises:
        UnsupportedModelError: an unknown name, or no such backbone for this model.
    """
    if name not in get_args(BackboneName):
        raise UnsupportedModelError(
            f"There is no backbone {name!r}; there are {', '.join(get_args(BackboneName))}."
        )
    if name == "bridge":
        return BridgeSplice(adapter.decoder)
    try:
        return _hooked_transformer(adapter)
    except UnsupportedModelError as error:
        if name == "hooked_transformer":
            raise
        logger.info("Using the bridge: %s", error)
        return BridgeSplice(adapter.decoder)


def has_hooked_transformer() -> bool:
    """Whether the installed transformer-lens still has HookedTransformer (removed in 4.0.0)."""
    return find_spec("transformer_lens.HookedTransformer") is not None


def _hooked_transformer(adapter: Adapter) -> Backbone:
    if not has_hooked_transformer():
        raise UnsupportedModelError(
            "The installed transformer-lens has no HookedTransformer, which 4.0.0 removed: use "
            'backbone="bridge", or pip install "mmlens[hooked-transformer]" for transformer-lens 3.9.'
        )
    if len(set((getattr(adapter.hf, "hf_device_map", None) or {}).values())) > 1:
        raise UnsupportedModelError(
            "A HookedTransformer lies on one device, but a device_map spread this model over several: use "
            'backbone="bridge".'
        )
    if getattr(adapter.hf, "is_quantized", False):
        raise UnsupportedModelError(
            "A HookedTransformer needs whole weights, but this model is quantised: use "
            'backbone="bridge".'
        )
    from mmlens.backbone.hooked_transformer.splice import Splice

    return Splice(adapter)
