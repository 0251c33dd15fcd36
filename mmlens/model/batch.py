"""Batches: Hugging Face inputs with their token groups and samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mmlens.adapter import Adapter
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.tokens.groups import TokenGroups


@dataclass(frozen=True)
class Batch:
    """What a hooked model takes.

    Attributes:
        inputs: keyword arguments of the Hugging Face model's forward.
        groups: token groups over [batch, pos].
        samples: the samples of the rows, in order; None for a batch made from plain inputs.
        features: features that the towers put into each row, per placeholder group.
    """

    inputs: Mapping[str, Any]
    groups: TokenGroups
    samples: tuple[Sample, ...] | None = None
    features: Mapping[str, Int[Tensor, " batch"]] | None = None

    @property
    def input_ids(self) -> Int[Tensor, "batch pos"]:
        """Token ids, placeholders expanded."""
        return self.inputs["input_ids"]

    @property
    def shape(self) -> torch.Size:
        """(batch, pos)."""
        return self.input_ids.shape

    def __len__(self) -> int:
        return self.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            inputs={
                k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.inputs.items()
            },
            groups=self.groups.to(device),
        )

    def repeated(self, times: int, adapter: Adapter) -> Batch:
        """The batch ``times`` times, one after another: row s x B + b is row b of the B rows.

        Args:
            times: how often.
            adapter: of the model that runs it; knows how its media repeat.

        Raises:
            SampleError: ``times`` is below 1.
        """
        if times < 1:
            raise SampleError(f"A batch can be repeated once or more often; {times} was given.")
        if times == 1:
            return self
        features = self.features and {k: v.repeat(times) for k, v in self.features.items()}
        return Batch(
            adapter.repeated(self.inputs, times),
            self.groups.repeated(times),
            self.samples and self.samples * times,
            features,
        )

    def left_padded(self) -> Batch:
        """The same batch with its padding on the left, where generation needs it.

        Every input of shape [batch, pos] and ``inputs_embeds`` are turned row by row; values are
        unchanged.
        """
        attention = self.groups.attention
        if bool(attention[:, -1].all()):
            return self
        order = attention.to(torch.int8).sort(dim=-1, stable=True).indices

        def turned(value: Any) -> Any:
            if isinstance(value, Tensor) and value.shape == self.shape:
                return value.gather(1, order)
            return value

        groups = TokenGroups(
            {name: turned(mask) for name, mask in self.groups.base.items()},
            turned(attention),
            turned(self.groups.template_text),
        )
        inputs = {name: turned(value) for name, value in self.inputs.items()}
        if (embeds := inputs.get("inputs_embeds")) is not None:
            inputs["inputs_embeds"] = embeds.gather(1, order[..., None].expand_as(embeds))
        return replace(self, inputs=inputs, groups=groups)


#: What a hooked model takes: a batch, or Hugging Face inputs.
Inputs = Batch | Mapping[str, Any]
