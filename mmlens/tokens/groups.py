"""Token groups: named sets of positions of a batch of prompts (MINER stage 1, methods 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from mmlens.errors import SampleError

#: The groups that partition the non-padding tokens of a prompt.
BASE_GROUPS = ("text", "special", "image", "video", "audio")
#: Groups made of those.
DERIVED_GROUPS = ("prompt", "last", "special_text", "template")
#: The one group of modules other than language: all their real (not padding) positions.
EVERY_POSITION = "all"


@dataclass(frozen=True)
class TokenIds:
    """Which token ids make up the groups of one model.

    Attributes:
        placeholders: group -> the id that its features replace (``image`` -> ``<image>``).
        special: ids of the special tokens, placeholders left out.
    """

    placeholders: Mapping[str, int]
    special: frozenset[int]


@dataclass(frozen=True)
class TokenGroups:
    """The token groups of a batch, as boolean masks over [batch, pos].

    ``text``, ``special``, ``image``, ``video`` and ``audio`` partition the non-padding tokens.
    Derived: ``prompt`` (all of them), ``last`` (the last one of each row), ``special_text``
    (special or text), ``template`` (what the chat template added to the question's text).

    Attributes:
        base: masks of the groups that partition the prompt.
        attention: true where a token is not padding.
        template_text: true at the template's share of the text, or None if it is not known
            (a batch made from plain Hugging Face inputs).
    """

    base: Mapping[str, Bool[Tensor, "batch pos"]]
    attention: Bool[Tensor, "batch pos"]
    template_text: Bool[Tensor, "batch pos"] | None = field(default=None, repr=False)

    @classmethod
    def from_input_ids(
        cls,
        input_ids: Int[Tensor, "batch pos"],
        attention_mask: Shaped[Tensor, "batch pos"] | None,
        ids: TokenIds,
        template_text: Bool[Tensor, "batch pos"] | None = None,
    ) -> TokenGroups:
        """Group tokens by their id; padding, where ``attention_mask`` is 0, is in no group."""
        real = torch.ones_like(input_ids, dtype=torch.bool)
        if attention_mask is not None:
            real = attention_mask.bool()
        base = {name: real & (input_ids == token) for name, token in ids.placeholders.items()}
        special = torch.tensor(sorted(ids.special), dtype=input_ids.dtype, device=input_ids.device)
        base["special"] = real & torch.isin(input_ids, special)
        base["text"] = real & ~torch.stack([*base.values()]).any(0)
        return cls({n: base[n] for n in BASE_GROUPS if n in base}, real, template_text)

    @property
    def names(self) -> tuple[str, ...]:
        """The groups that exist for this model."""
        return (*self.base, *DERIVED_GROUPS)

    @property
    def shape(self) -> torch.Size:
        """(batch, pos)."""
        return self.attention.shape

    def mask(self, name: str) -> Bool[Tensor, "batch pos"]:
        """True at the positions of a group.

        Raises:
            SampleError: there is no such group, or the template is not known.
        """
        if name in self.base:
            return self.base[name]
        if name == "prompt":
            return self.attention
        if name == "special_text":
            return self.base["special"] | self.base["text"]
        if name == "last":  # the real token with none after it
            return self.attention & (self.attention.flip(-1).cumsum(-1).flip(-1) == 1)
        if name == "template":
            if self.template_text is None:
                raise SampleError(
                    "The group 'template' is known only for batches that model.prepare made from "
                    "samples with a chat template."
                )
            return self.template_text
        if name in BASE_GROUPS:  # a modality that this model does not have
            return torch.zeros_like(self.attention)
        raise SampleError(f"There is no token group {name!r}; there are {', '.join(self.names)}.")

    def stack(self, names: Sequence[str]) -> Bool[Tensor, "group batch pos"]:
        """The masks of several groups, in the order given."""
        return torch.stack([self.mask(name) for name in names])

    def counts(self) -> dict[str, Int[Tensor, " batch"]]:
        """Tokens of each base group, per row."""
        return {name: mask.sum(-1) for name, mask in self.base.items()}

    def to(self, device: torch.device | str) -> TokenGroups:
        """The same groups on another device."""
        return self._changed(lambda mask: mask.to(device))

    def repeated(self, times: int) -> TokenGroups:
        """The groups of the same rows ``times`` times, one batch after another."""
        return self._changed(lambda mask: mask.repeat(times, 1))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> TokenGroups:
        template = None if self.template_text is None else change(self.template_text)
        base = {name: change(mask) for name, mask in self.base.items()}
        return TokenGroups(base, change(self.attention), template)
