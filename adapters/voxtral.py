"""Voxtral: Whisper encoder, four frames a token, two-layer projector, Llama decoder.

A sound is padded with silence to chunks of 30 seconds (arXiv 2507.13264). The encoder reads each
chunk for itself, silence and all, without a mask; four of its frames side by side become one token,
375 a chunk. Prompts are built by mistral-common, from questions and sounds, not from a text with
placeholders.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import soundfile
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from mmlens.adapter import Media, MediaSizes, Towers, numbered
from mmlens.data.samples import Sample
from mmlens.errors import UnsupportedModelError
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Places, spans
from mmlens_adapters.base import FamilyAdapter, plain_tower
from mmlens_adapters.sounds import encoded_as_embeddings


class VoxtralAdapter(FamilyAdapter):
    """``VoxtralForConditionalGeneration``.

    There is one form of prompt, mistral-common's: ``[INST]``, the sounds, the question,
    ``[/INST]``, whatever the template. Each chunk counts as a medium.
    """

    model_types = ("voxtral",)
    modalities = ("audio",)

    def towers(self) -> Towers:
        """The encoder's MLPs and the projector's one."""
        return Towers(
            {
                "audio": plain_tower(self.hf.model.audio_tower.layers, "fc1", "fc2"),
                "projector": plain_tower(
                    [self.hf.model.multi_modal_projector], "linear_1", "linear_2"
                ),
            }
        )

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """The same number for every chunk: silence at its end counts too."""
        if inputs.get("inputs_embeds") is not None:
            # Sounds are encoded already: their chunks are counted by their placeholders.
            placeholders = int((inputs["input_ids"] == self.placeholders()["audio"]).sum())
            chunks = placeholders // self._chunk_tokens
        else:
            features = inputs.get("input_features")
            chunks = 0 if features is None else len(features)
        return {"audio": torch.full((chunks,), self._chunk_tokens, dtype=torch.long)}

    def encode_media(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`Adapter.encode_media`; sounds come encoded as embeddings of the whole prompt."""
        return encoded_as_embeddings(self.hf, inputs)

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Every position is real, since the model reads the silence as well.

        The encoder's are [chunk, frame]; the projector's are the tokens of all chunks in one line.
        """
        rows = torch.tensor(media_rows["audio"], device=inputs["input_features"].device)
        if module == "projector":
            return [rows.repeat_interleave(self._chunk_tokens)]
        return [rows[:, None].expand(-1, self._frames)]

    def places(
        self, module: str, processor: Any, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places] | None:
        """Pairs of frames in the encoder, eight frames a token; after a sound's end ``padding``.

        See :func:`mmlens.tokens.places.spans`. At a chunk's border the convolutions read what lies in
        the chunk alone.
        """
        if inputs.get("input_features") is None:
            return [Places.nowhere(0)] if module == LANGUAGE else []
        extractor, chunk = processor.feature_extractor, self._chunk_samples(processor)
        rate, hop = extractor.sampling_rate, extractor.hop_length / extractor.sampling_rate
        number = self._frames if module == "audio" else self._chunk_tokens
        found = [
            Places.of_spans(
                spans(number, 2 * self._frames // number, hop, c * chunk / rate), n / rate, m
            )
            for m, n in numbered(sizes, "audio")
            for c in range(-(-n // chunk))
        ]
        return [Places.joined(found)]

    def prompt(self, sample: Sample, processor: Any, template: str) -> str:
        """The question; mistral-common puts the rest around it."""
        return sample.text

    def placeholder_text(self, kind: str, processor: Any) -> str:
        """Nothing: mistral-common puts the placeholders in front of the question."""
        return ""

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`.

        Raises:
            UnsupportedModelError: the processor's spectrograms do not fit the encoder.
        """
        extractor = processor.feature_extractor
        bins: int = self.hf.config.audio_config.num_mel_bins
        if extractor.feature_size != bins:
            raise UnsupportedModelError(
                f"The processor makes spectrograms of {extractor.feature_size} mel bins, but the audio "
                f"tower reads {bins}: use the processor of this model."
            )
        rate = self.sampling_rate(processor)
        sounds = media.audios or [()] * len(prompts)
        inputs = processor.apply_chat_template(
            [_conversation(*one, rate) for one in zip(prompts, sounds, strict=True)],
            processor_kwargs={
                "audio_kwargs": {
                    "max_source_positions": 2 * self._frames,
                    "pad_to_multiple_of": self._chunk_samples(processor),
                    "sampling_rate": rate,
                }
            },
        )
        return {**inputs, **_padded(inputs["input_ids"], inputs["attention_mask"], side)}

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.media_tokens`; the same for every chunk that is begun."""
        chunk = self._chunk_samples(processor)
        return self._chunk_tokens * sum(-(-samples // chunk) for samples in sizes.audios)

    def prompt_tokens(self, processor: Any, prompt: str, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.prompt_tokens`.

        Around all of it stand ``[INST]`` and ``[/INST]``, before each sound ``[BEGIN_AUDIO]``.
        """
        words = len(processor.tokenizer(prompt)["input_ids"])
        return words + 2 + len(sizes.audios) + self.media_tokens(processor, sizes)

    @property
    def _frames(self) -> int:
        """Frames of a chunk in the encoder's layers."""
        return self.hf.config.audio_config.max_source_positions

    @property
    def _chunk_tokens(self) -> int:
        audio: Any = self.hf.config.audio_config
        return self._frames * audio.hidden_size // audio.intermediate_size

    def _chunk_samples(self, processor: Any) -> int:
        return 2 * self._frames * processor.feature_extractor.hop_length


def _conversation(
    question: str, sounds: Sequence[Float32[np.ndarray, " _"]], rate: int
) -> list[dict[str, Any]]:
    content = [{"type": "audio", "base64": _wav(sound, rate)} for sound in sounds]
    content.append({"type": "text", "text": question})
    return [{"role": "user", "content": content}]


def _wav(sound: Float32[np.ndarray, " time"], rate: int) -> str:
    """The sound as mistral-common takes it, every sample unchanged."""
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="WAV", subtype="FLOAT")
    return base64.b64encode(file.getvalue()).decode()


def _padded(
    ids: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"], side: str
) -> dict[str, Int[Tensor, "batch pos"]]:
    """Tokens and their mask with the padding on one side, which the processor has no word for."""
    order = (mask if side == "left" else 1 - mask).sort(dim=-1, stable=True).indices
    return {"input_ids": ids.gather(1, order), "attention_mask": mask.gather(1, order)}
