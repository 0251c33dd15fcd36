"""From samples to a batch: media decoded, prompts built, processed, tokens grouped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmlens.adapter import KINDS, Adapter, Media, MediaSizes
from mmlens.data.media.pictures import open_picture, picture_size
from mmlens.data.media.sounds import audio_length, open_audio
from mmlens.data.media.videos import open_video, video_size
from mmlens.data.samples import Sample
from mmlens.errors import MediaError, SampleError
from mmlens.model.batch import Batch
from mmlens.tokens.groups import TokenGroups, TokenIds

#: The template that adds nothing: a text as the tokenizer makes it, without media.
PLAIN_TEXT = "none"


@dataclass(frozen=True)
class Preparer:
    """Makes batches of samples for one model; they lie on the CPU.

    Attributes:
        adapter: of the model's family.
        processor: the model's processor; None where it was spliced without one, and cannot prepare.
    """

    adapter: Adapter
    processor: Any

    def batch(self, samples: Sequence[Sample], template: str, side: str = "left") -> Batch:
        """See :meth:`mmlens.model.hooked_mllm.HookedMLLM.prepare`."""
        if not samples:
            raise SampleError("A batch needs at least one sample; none was given.")
        template = self.template(template)
        prompts = [self.prompt(sample, template) for sample in samples]
        tokenizer = self.processor.tokenizer
        if template == PLAIN_TEXT:
            inputs = self.adapter.text_inputs(tokenizer, prompts, side)
        else:
            inputs = self.adapter.process(self.processor, prompts, self._media(samples), side)
        ids = self.adapter.token_ids(tokenizer)
        attention = inputs["attention_mask"].bool()
        flags = _template_flags(
            tokenizer, samples, prompts, inputs["input_ids"], attention, ids, template
        )
        groups = TokenGroups.from_input_ids(inputs["input_ids"], attention, ids, flags)
        if flags is not None:
            groups = TokenGroups(groups.base, groups.attention, flags & groups.mask("text"))
        return Batch(inputs, groups, tuple(samples))

    def lengths(self, samples: Sequence[Sample], template: str) -> list[int | str]:
        """Tokens of each sample's prompt, from media headers alone where they are enough for the adapter.

        In place of a length: why a sample's media are unreadable.
        """
        template = self.template(template)
        lengths: list[int | str] = []
        for sample in samples:
            text = self.prompt(sample, template)
            if template == PLAIN_TEXT:
                lengths.append(len(self.processor.tokenizer(text)["input_ids"]))
                continue
            try:
                sizes = self.sizes(sample)
                length = self.adapter.prompt_tokens(self.processor, text, sizes)
                if length is None:
                    length = self.batch([sample], template).shape[1]
                lengths.append(length)
            except MediaError as error:
                lengths.append(str(error))
        return lengths

    def sizes(self, sample: Sample) -> MediaSizes:
        """The sizes of a sample's media, from their headers.

        Raises:
            MediaError: one is missing or unreadable.
        """
        rate = self.adapter.sampling_rate(self.processor) if sample.audios else 0
        return MediaSizes(
            images=tuple(picture_size(one) for one in sample.images),
            videos=tuple(video_size(one) for one in sample.videos),
            audios=tuple(audio_length(one, rate) for one in sample.audios),
        )

    def template(self, template: str) -> str:
        """``auto`` made definite: the chat template where the processor has one.

        Raises:
            SampleError: an unknown template, ``chat`` where the processor has none, or no processor.
        """
        if self.processor is None:
            raise SampleError(
                "This model was spliced without a processor, so it cannot prepare samples; pass "
                "mmlens.splice(hf_model, processor=...), or give it Hugging Face inputs directly."
            )
        if template == PLAIN_TEXT:
            return template
        has_chat = bool(getattr(self.processor, "chat_template", None))
        if template == "auto":
            return "chat" if has_chat else "plain"
        if template == "chat" and not has_chat:
            raise SampleError("The processor has no chat template; use template='plain'.")
        if template not in ("chat", "plain"):
            raise SampleError(
                f"Unknown template {template!r}; there are 'auto', 'chat', 'plain' and 'none'."
            )
        return template

    def prompt(self, sample: Sample, template: str) -> str:
        """The prompt of one sample.

        Raises:
            SampleError: the sample has media of a kind the model does not take, lacks a picture where
                the model needs one, or has media where there is no template to put them into.
        """
        if template == PLAIN_TEXT:
            if sample.images or sample.videos or sample.audios:
                raise SampleError(
                    f"Sample {sample.id!r} has media, which template='none' has no place for: it runs "
                    "the text alone. Use another template, or leave the media out."
                )
            return sample.text
        for kind in KINDS:
            if getattr(sample, f"{kind}s") and kind not in self.adapter.modalities:
                raise SampleError(
                    f"Sample {sample.id!r} has {kind} media, but {type(self.adapter.hf).__name__} takes "
                    f"{' and '.join(self.adapter.modalities)} only."
                )
        return self.adapter.prompt(sample, self.processor, template)

    def _media(self, samples: Sequence[Sample]) -> Media:
        has_audio = any(sample.audios for sample in samples)
        rate = self.adapter.sampling_rate(self.processor) if has_audio else 0
        return Media(
            images=[[_opened(s, open_picture, one) for one in s.images] for s in samples],
            videos=[[_opened(s, open_video, one) for one in s.videos] for s in samples],
            audios=[[_opened(s, open_audio, one, rate) for one in s.audios] for s in samples],
        )


def _opened(sample: Sample, decode: Callable[..., Any], *args: Any) -> Any:
    try:
        return decode(*args)
    except MediaError as error:
        raise MediaError(f"Sample {sample.id!r}: {error}") from error


def _template_flags(
    tokenizer: Any,
    samples: Sequence[Sample],
    prompts: Sequence[str],
    input_ids: Int[Tensor, "batch pos"],
    attention: Bool[Tensor, "batch pos"],
    ids: TokenIds,
    template: str,
) -> Bool[Tensor, "batch pos"] | None:
    """True at tokens that the template wrote, false at the question's own.

    The prompt is tokenised once more before its placeholders are expanded, with character offsets.
    Without placeholders both end alike, at least from the question's first token on; what a processor
    writes around the media (row and column marks, timestamps) comes before that.
    """
    if template != "chat" or not getattr(tokenizer, "is_fast", False):
        return None
    placeholders = torch.tensor(sorted(ids.placeholders.values()))
    flags = torch.zeros_like(attention)
    for row, (sample, prompt) in enumerate(zip(samples, prompts, strict=True)):
        start = prompt.rfind(sample.text)
        if start < 0:
            return None
        end = start + len(sample.text)
        encoded = tokenizer(prompt, return_offsets_mapping=True)
        short = torch.tensor(encoded["input_ids"])
        outside = torch.tensor([b <= start or a >= end for a, b in encoded["offset_mapping"]])
        kept = ~torch.isin(short, placeholders)
        short, outside = short[kept], outside[kept]
        here = (attention[row] & ~torch.isin(input_ids[row], placeholders)).nonzero()[:, 0]
        asked = len(short) - int((~outside).int().argmax())  # tokens from the question's first on
        if asked > len(here) or not torch.equal(input_ids[row][here[-asked:]], short[-asked:]):
            return None
        flags[row, here[:-asked]] = True
        flags[row, here[-asked:]] = outside[-asked:]
    return flags
