"""What families with a Whisper-like encoder share: where positions lie in sounds, and encoded sounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmlens.adapter import MediaSizes, numbered
from mmlens.errors import SpliceError
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Places, spans


def sound_places(
    processor: Any, sizes: Sequence[MediaSizes], counts: Sequence[int], module: str
) -> list[Places]:
    """The places of every sound's positions, ``counts`` of each, in the order of the sounds.

    A token of the prompt is made of two positions of the tower, which are made of two frames each.
    """
    extractor, frames = processor.feature_extractor, 4 if module == LANGUAGE else 2
    rate, hop = extractor.sampling_rate, extractor.hop_length / extractor.sampling_rate
    return [
        Places.of_spans(spans(count, frames, hop), samples / rate, medium)
        for (medium, samples), count in zip(numbered(sizes, "audio"), counts, strict=True)
    ]


def encoded_as_embeddings(hf: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs with ``inputs_embeds``, the sounds' features merged in, in place of spectrograms.

    For models that take no ``mm_encoder_outputs``, but put nothing into embeddings they are given;
    their own forward is run up to its language model, and stopped there.

    Args:
        hf: the Hugging Face model; ``hf.model`` merges, ``hf.model.language_model`` reads.
        inputs: its inputs.
    """
    if inputs.get("input_features") is None:
        return dict(inputs)

    def stop(_module: nn.Module, _args: tuple[Any, ...], given: dict[str, Any]) -> None:
        raise _Reached(given["inputs_embeds"])

    handle = hf.model.language_model.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        hf.model(**inputs, use_cache=False)
    except _Reached as reached:
        rest = {name: value for name, value in inputs.items() if name != "input_features"}
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
