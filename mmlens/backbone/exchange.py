"""What a hooked language backbone is, and how its exchange is entered and left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from transformer_lens.hook_points import HookPoint

#: Why both backbones refuse ``output_attentions``.
NO_ATTENTIONS = (
    "output_attentions is not given inside the splice: cache the hooks "
    "'blocks.{layer}.attn.hook_pattern' instead, or call the model outside it."
)


class Backbone(ABC):
    """A decoder's computation under TransformerLens hook points, and the exchange that leads to it.

    Attributes:
        name: ``hooked_transformer`` or ``bridge``.
        model: the HookedTransformer or TransformerBridge over the Hugging Face weights.
        cfg: its config, in TransformerLens's terms.
        hook_dict: TransformerLens's canonical names -> hook points.
        gated: whether the decoder's MLPs multiply the activation with an up branch.
        depth: how often the exchange has been entered and not left.
        passes: forwards of the first layer so far; hooks can only fire where this has grown.
    """

    name: str
    model: Any
    cfg: Any
    hook_dict: dict[str, HookPoint]
    gated: bool

    def __init__(self) -> None:
        self.depth = 0
        self.passes = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Enter the exchange: inside, the Hugging Face model computes through the hook points.

        Entering it again inside changes nothing.
        """
        with ExitStack() as stack:
            if not self.depth:
                self.refresh()
                self._exchange(stack)
            self.depth += 1
            try:
                yield
            finally:
                self.depth -= 1

    @abstractmethod
    def refresh(self) -> None:
        """Follow the Hugging Face model to where its weights are now.

        Raises:
            SpliceError: its decoder has other modules than when it was spliced.
        """

    @abstractmethod
    def why_silent(self, name: str) -> str | None:
        """Why an existing hook point cannot fire, in a sentence; None where it can."""

    @abstractmethod
    def _exchange(self, stack: ExitStack) -> None:
        """Begin the exchange; what ends it goes onto the stack."""
