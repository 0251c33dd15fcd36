"""What a hooked language backbone is: the one protocol behind which both implementations stand."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from torch import nn
from transformer_lens.hook_points import HookPoint

from mmlens.adapter.base import Adapter
from mmlens.errors import UnsupportedModelError

BackboneName = Literal["auto", "hooked_transformer", "bridge"]
NO_ATTENTIONS = (
    "output_attentions is not given inside the splice: cache the hooks "
    "'blocks.{layer}.attn.hook_pattern' instead, or call the model outside it."
)
logger = logging.getLogger(__name__)


@runtime_checkable
class Backbone(Protocol):
    """A decoder's computation under TransformerLens hook points."""

    @property
    def name(self) -> str:
        """``hooked_transformer`` or ``bridge``."""
        ...

    @property
    def model(self) -> nn.Module:
        """The HookedTransformer or TransformerBridge over the Hugging Face weights."""
        ...

    @property
    def cfg(self) -> Any:
        """Its config, in TransformerLens's terms."""
        ...

    @property
    def hook_dict(self) -> dict[str, HookPoint]:
        """TransformerLens's canonical names -> hook points."""
        ...

    @property
    def gated(self) -> bool:
        """Whether the decoder's MLPs multiply the activation with an up branch."""
        ...

    @property
    def depth(self) -> int:
        """How often the exchange has been entered and not left."""
        ...

    @property
    def passes(self) -> int:
        """Forwards of the first layer so far; hooks can only fire where this has grown."""
        ...

    def __call__(self) -> AbstractContextManager[None]:
        """Enter the exchange: inside, the Hugging Face model computes through the hook points."""
        ...

    def refresh(self) -> None:
        """Follow the Hugging Face model to where its weights are now.

        Raises:
            SpliceError: its decoder has other modules than when it was spliced.
        """
        ...

    def why_silent(self, name: str) -> str | None:
        """Why an existing hook point cannot fire, in a sentence; None where it can."""
        ...


class Exchange:
    """Entering and leaving a backbone's exchange, the same for all of them.

    Attributes:
        depth: nesting of the exchange.
        passes: forward passes of the first layer so far.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.passes = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Enter the exchange; entering it again inside changes nothing."""
        with ExitStack() as stack:
            if not self.depth:
                self.refresh()
                self._exchange(stack)
            self.depth += 1
            try:
                yield
            finally:
                self.depth -= 1

    def refresh(self) -> None:
        """See :meth:`Backbone.refresh`."""
        raise NotImplementedError

    def _exchange(self, stack: ExitStack) -> None:
        """Begin the exchange; what ends it goes onto the stack."""
        raise NotImplementedError


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
        return _bridge(adapter)
    try:
        return _hooked_transformer(adapter)
    except UnsupportedModelError as error:
        if name == "hooked_transformer":
            raise
        logger.info("Using the bridge: %s", error)
        return _bridge(adapter)


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


def _bridge(adapter: Adapter) -> Backbone:
    from mmlens.backbone.bridge.splice import BridgeSplice

    return BridgeSplice(adapter.decoder)
