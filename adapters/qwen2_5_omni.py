"""Qwen2.5-Omni: the thinker, which reads text, pictures, videos and sounds (arXiv 2503.20215).

Pictures and videos pass the tower of Qwen2.5-VL. Sounds pass a Whisper-like encoder that attends
within blocks of two seconds: the frames of all sounds follow one another, without padding, and
pairs of them are averaged, one token per 40 ms. The talker, which speaks the thinker's answers, is
not loaded. TMRoPE gives audio tokens and frames of video the same clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel, Qwen2_5OmniThinkerForConditionalGeneration

from mmlens.adapter import Media, MediaSizes, Towers
from mmlens.errors import MediaError, UnsupportedModelError
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Places
from mmlens_adapters.base import frame_rate, plain_tower
from mmlens_adapters.qwen2_5_vl import Qwen2_5VLAdapter
from mmlens_adapters.sounds import sound_places

#: Spectrogram frames of the shortest sound that gives a token.
_SHORTEST = 3


class Qwen2_5OmniAdapter(Qwen2_5VLAdapter):  # noqa: N801
    """``Qwen2_5OmniThinkerForConditionalGeneration``, alone or out of a full checkpoint.

    ``projector`` is the visual merger; sounds have a single linear projection, without neurons. A
    video's own sound is not used: give it as a sound of the sample.
    """

    model_types = ("qwen2_5_omni_thinker", "qwen2_5_omni")
    modalities = ("image", "video", "audio")
    brackets = {
        "image": ("<|vision_bos|>", "<|vision_eos|>"),
        "video": ("<|vision_bos|>", "<|vision_eos|>"),
        "audio": ("<|audio_bos|>", "<|audio_eos|>"),
    }
    special_tokens = ("<|im_start|>", "<|im_end|>", *brackets["image"], *brackets["audio"])

    def __init__(self, hf: PreTrainedModel) -> None:
        if hf.config.model_type == "qwen2_5_omni":
            raise UnsupportedModelError(
                "The whole Qwen2.5-Omni cannot be spliced, only the thinker in it: call "
                "mmlens.splice(model.thinker, processor)."
            )
        super().__init__(hf)

    @classmethod
    def auto_class(cls) -> type[Any]:
        """The thinker's class, which also loads from a full checkpoint."""
        return Qwen2_5OmniThinkerForConditionalGeneration

    def towers(self) -> Towers:
        """The vision blocks', the merger's and the audio layers' MLPs."""
        audio = plain_tower(self.hf.model.audio_tower.layers, "fc1", "fc2")
        return Towers({**super().towers().towers, "audio": audio})

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Merged patches per picture and per video, pairs of frames per sound.

        Raises:
            UnsupportedModelError: the processor's patches or spectrograms are not the model's.
        """
        bands = self.hf.config.audio_config.num_mel_bins
        sounds = inputs.get("input_features")
        if sounds is not None and sounds.shape[1] != bands:
            raise UnsupportedModelError(
                f"The processor gives spectrograms of {sounds.shape[1]} bands, but the model reads "
                f"{bands}; use the processor of this model."
            )
        return {**super().feature_counts(inputs), "audio": self._frames(inputs)[1]}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """For ``audio`` the frames of each sound after the convolutions; padding never gets there."""
        if module != "audio":
            return super().tower_rows(module, inputs, media_rows)
        if inputs.get("input_features") is None:
            return []
        frames, _ = self._frames(inputs)
        rows = torch.tensor(media_rows["audio"], device=frames.device)
        return [rows.repeat_interleave(frames)]

    def places(
        self, module: str, processor: Any, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places] | None:
        """See :meth:`Qwen2VLAdapter.places`; of sounds pairs of frames, or four frames a token.

        The encoder reads a sound in blocks (of two seconds): at their borders a position reads what
        lies in its own block alone.
        """
        frames, tokens = (one.tolist() for one in self._frames(inputs))
        if module == "audio":
            sounds = sound_places(processor, sizes, frames, module)
            return [Places.joined(sounds)] if sounds else []
        passes = super().places(module, processor, inputs, sizes)
        if passes is None or module != LANGUAGE:
            return passes
        return [*passes, Places.joined(sound_places(processor, sizes, tokens, module))]

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Qwen2VLAdapter.process`.

        Raises:
            MediaError: also: a sound is too short to give a token.
        """
        _check_lengths(processor, [len(one) for one in media.flat("audio")])
        inputs = super().process(processor, prompts, media, side)
        if videos := media.flat("video"):
            # The processor knows one rate for all videos; each has its own.
            depth = processor.video_processor.temporal_patch_size
            seconds = [depth / frame_rate(one) for one in videos]
            inputs["video_second_per_grid"] = torch.tensor(seconds)
        return inputs

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int | None:
        """See :meth:`Qwen2VLAdapter.media_tokens`.

        Raises:
            MediaError: also: a sound is too short to give a token.
        """
        _check_lengths(processor, sizes.audios)
        visual = super().media_tokens(processor, sizes)
        found = processor._get_num_multimodal_tokens(audio_lengths=list(sizes.audios))
        return None if visual is None else visual + sum(found.num_audio_tokens)

    def _frames(
        self, inputs: Mapping[str, Any]
    ) -> tuple[Int[Tensor, " medium"], Int[Tensor, " medium"]]:
        """Frames of each sound in the tower, and tokens that they make."""
        mask = inputs.get("feature_attention_mask")
        lengths = torch.zeros(0, dtype=torch.long) if mask is None else mask.sum(-1)
        return self.hf.model.audio_tower._get_feat_extract_output_lengths(lengths)


def _check_lengths(processor: Any, lengths: Sequence[int]) -> None:
    hop = processor.feature_extractor.hop_length
    for length in lengths:
        if length <= (_SHORTEST - 1) * hop:
            raise MediaError(
                f"A sound of {length} samples is too short for the model, which needs more than "
                f"{(_SHORTEST - 1) * hop}."
            )
