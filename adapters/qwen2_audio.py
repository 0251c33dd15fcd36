"""Qwen2-Audio: Whisper-like audio tower, one linear projector, Qwen decoder (arXiv 2407.10759).

A sound becomes a log-mel spectrogram padded to 30 seconds. Two convolutions, the second of stride
two, halve its frames before the tower's layers; pooling after the layers halves them again, so that a
token stands for 40 ms. Padded frames run through the tower but reach neither the real ones, which
do not attend to them, nor the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mmlens.adapter import Media, MediaSizes, Towers, numbered
from mmlens.errors import MediaError, UnsupportedModelError
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Places
from mmlens_adapters.base import FamilyAdapter, plain_tower
from mmlens_adapters.sounds import encoded_as_embeddings, sound_places


class Qwen2AudioAdapter(FamilyAdapter):
    """``Qwen2AudioForConditionalGeneration``."""

    model_types = ("qwen2_audio",)
    modalities = ("audio",)
    #: As MINER counts: those that open and close turns and sounds.
    special_tokens = ("<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|audio_eos|>")

    def towers(self) -> Towers:
        """The audio tower's MLPs."""
        layers = self.hf.model.audio_tower.layers
        return Towers(
            {"audio": plain_tower(layers, "fc1", "fc2")},
            without_neurons={"projector": "the projector of Qwen2-Audio is a single linear map"},
        )

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Real frames per sound, after the convolutions and the pooling."""
        if inputs.get("feature_attention_mask") is None:
            return {"audio": torch.zeros(0, dtype=torch.long)}
        return {"audio": self._lengths(inputs)[1]}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Frames after the convolutions, before the pooling; padded ones belong to no row."""
        real = self._lengths(inputs)[0][:, None]
        frames = torch.arange(self.hf.config.audio_config.max_source_positions, device=real.device)
        rows = torch.tensor(media_rows["audio"], device=real.device)[:, None]
        return [torch.where(frames < real, rows, -1)]

    def encode_media(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`Adapter.encode_media`; sounds come encoded as embeddings of the whole prompt."""
        return encoded_as_embeddings(self.hf, inputs)

    def places(
        self, module: str, processor: Any, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places] | None:
        """Pairs of frames in the tower, four frames a token; see :func:`mmlens.tokens.places.spans`."""
        if inputs.get("input_features") is None:
            return [Places.nowhere(0)] if module == LANGUAGE else []
        places_in = self.hf.config.audio_config.max_source_positions
        frames, tokens = (one.tolist() for one in self._lengths(inputs))
        found = sound_places(processor, sizes, tokens if module == LANGUAGE else frames, module)
        if module == LANGUAGE:
            return [Places.joined(found)]
        padded = [
            Places.joined([one, Places.of_spans(torch.zeros(places_in - len(one), 2), 0.0, medium)])
            for one, (medium, _) in zip(found, numbered(sizes, "audio"), strict=True)
        ]
        return [Places.joined(padded)]

    def content(self, kind: str) -> dict[str, Any]:
        """See :meth:`Adapter.content`: published templates recognise a sound by its address alone."""
        return {"type": kind, "audio_url": ""}

    def placeholder_text(self, kind: str, processor: Any) -> str:
        """The placeholder between the tokens that open and close a sound, as it was trained."""
        return f"{processor.audio_bos_token}{processor.audio_token}{processor.audio_eos_token}"

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`.

        Raises:
            MediaError: a sound too short for a single token.
            UnsupportedModelError: the processor's spectrograms do not fit the model.
        """
        self._check_spectrograms(processor)
        for sound in media.flat("audio"):
            self._sound_tokens(processor, len(sound))
        return super().process(processor, prompts, media, side)

    def arguments(self, processor: Any, media: Media) -> dict[str, Any]:
        """Sounds and their rate."""
        given = super().arguments(processor, media)
        return {**given, "sampling_rate": self.sampling_rate(processor)}

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.media_tokens`; what is longer than a spectrogram is cut off.

        Raises:
            MediaError: a sound too short for a single token.
        """
        return sum(self._sound_tokens(processor, samples) for samples in sizes.audios)

    def _sound_tokens(self, processor: Any, samples: int) -> int:
        extractor = processor.feature_extractor
        frames = -(-min(samples, extractor.n_samples) // extractor.hop_length)
        tokens = int(self._tokens(torch.tensor(frames))[1])
        if tokens < 1:
            raise MediaError(
                f"A sound of {samples} samples is too short for a single token; Qwen2-Audio needs more "
                f"than {2 * extractor.hop_length} at {extractor.sampling_rate} Hz."
            )
        return tokens

    def _lengths(
        self, inputs: Mapping[str, Any]
    ) -> tuple[Int[Tensor, " sound"], Int[Tensor, " sound"]]:
        """Real frames of each sound in the tower's layers, and after its pooling."""
        return self._tokens(inputs["feature_attention_mask"].sum(-1))

    def _tokens(self, frames: Int[Tensor, ...]) -> tuple[Int[Tensor, ...], Int[Tensor, ...]]:
        return self.hf.model.audio_tower._get_feat_extract_output_lengths(frames)

    def _check_spectrograms(self, processor: Any) -> None:
        audio: Any = self.hf.config.audio_config
        extractor = processor.feature_extractor
        given = (extractor.feature_size, extractor.nb_max_frames)
        wanted = (audio.num_mel_bins, 2 * audio.max_source_positions)
        if given != wanted:
            raise UnsupportedModelError(
                f"The processor makes spectrograms of {given[0]} mel bins and {given[1]} frames, but "
                f"the audio tower reads {wanted[0]} and {wanted[1]}: use the processor of this model."
            )
