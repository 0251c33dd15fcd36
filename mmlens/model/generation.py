"""What a model answered, and the ways of decoding under which hooks would not see what they seem to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from mmlens.errors import SampleError


@dataclass(frozen=True)
class Generation:
    """What a model answered.

    Attributes:
        tokens: the new tokens, padded on the right after the end of each answer.
        texts: the same, decoded without special tokens and surrounding blanks.
    """

    tokens: Int[Tensor, "batch new"]
    texts: list[str]


# Ways of decoding that run other models or several prompts' tokens in one forward, so that a hook
# would not see what its documentation says.
_UNSUPPORTED = {
    "assistant_model": "assisted decoding runs another model",
    "prompt_lookup_num_tokens": "prompt lookup runs candidate tokens that may be thrown away",
    "custom_generate": "a decoding loop of its own may run the model in other ways",
}


def refuse_unseen(kwargs: Mapping[str, Any]) -> None:
    """Raise SampleError for options of ``generate`` under which hooks see other tokens than the answer's."""
    settings = kwargs.get("generation_config")
    for name, why in _UNSUPPORTED.items():
        if kwargs.get(name) is not None or getattr(settings, name, None) is not None:
            raise SampleError(
                f"generate cannot run with {name} under hooks: {why}. Use greedy, sampled or beam "
                "decoding, or call the Hugging Face model outside the splice."
            )
