"""What a hooked language backbone is, and how its exchange is entered and left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import nn
from transformer_lens.hook_points import HookPoint

#: Why both backbones refuse ``output_attentions``.
NO_ATTENTIONS = (
    "output_attentions is not given inside the splice: cache the hooks "
    "'blocks.{layer}.attn.hook_pattern' instead, or call the model outside it."
)


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
