"""The model of `demo/instructblip`, its tokenizers, its processor, and how it is trained.

The Q-Former reads the question as well, so that its output belongs to a picture and a question:
here the tower runs once per picture, the Q-Former and the decoder once per question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from experiments.demos.demo import Demo
from experiments.demos.llava_next.data import TrainingPictures, build
from experiments.demos.trainee import (
    Trainee,
    answer_greedily,
    build_tokenizer,
    decoder_settings,
    half_precision,
    whiten_patches,
)
from experiments.demos.training import Example, Packer

IMAGE, PATCH = 48, 8
QUERIES = 16


def build_processor(texts: Sequence[str]) -> InstructBlipProcessor:
    """The processor: every picture becomes a square; both tokenizers have the same words."""

    def tokenizer(side: str) -> PreTrainedTokenizerFast:
        # Without the attribute `image_token`, which the processor could not work with.
        made = PreTrainedTokenizerFast(
            tokenizer_object=build_tokenizer(texts).backend_tokenizer,
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
            pad_token="<pad>",
            padding_side=side,
            model_max_length=512,
        )
        made.add_tokens("<image>", special_tokens=True)
        return made

    return InstructBlipProcessor(
        image_processor=BlipImageProcessorPil(size={"height": IMAGE, "width": IMAGE}),
        tokenizer=tokenizer("left"),
        qformer_tokenizer=tokenizer("right"),
        num_query_tokens=QUERIES,
    )


def build_model(processor: InstructBlipProcessor) -> InstructBlipForConditionalGeneration:
    """An untrained model that fits the processor."""
    tokenizer: Any = processor.tokenizer  # type: ignore[attr-defined]
    vision = InstructBlipVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE,
        patch_size=PATCH,
        initializer_range=0.02,
    )
    qformer = InstructBlipQFormerConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        cross_attention_frequency=2,
        encoder_hidden_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    text = LlamaConfig(**decoder_settings(tokenizer, num_hidden_layers=5, num_key_value_heads=4))
    config = InstructBlipConfig(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = InstructBlipForConditionalGeneration(config)
    with torch.no_grad():
        model.query_tokens.normal_(std=0.5)  # from zeros, the default, they diverge very slowly
    for settings in (model.generation_config, model.language_model.generation_config):
        answer_greedily(settings, tokenizer)
    return model


class InstructBlipTrainee(Trainee):
    """What the general training code asks of this model family."""

    def __init__(self, texts: Sequence[str]) -> None:
        processor = build_processor(texts)
        super().__init__(processor, build_model(processor))
        # Half precision is three times as fast here, but not through the fused attention of a CPU.
        self.model.set_attn_implementation("eager")

    def prompt(self, text: str) -> str:
        """The prompt of a question, with one placeholder for its picture."""
        return self.image_token + text

    def _pixels(self, media: Sequence[Image.Image]) -> torch.Tensor:
        return self.processor.image_processor(list(media), return_tensors="pt")["pixel_values"]

    def patches(self, media: Sequence[Image.Image]) -> torch.Tensor:
        """The tower's output, `[pictures, 1 + patches, width]`."""
        return self.model.vision_model(pixel_values=self._pixels(media)).last_hidden_state

    def tower(self, media: Sequence[Image.Image]) -> torch.Tensor:
        """Pooled features of the vision tower alone, `[pictures, features]`, for its warm-up."""
        with half_precision():
            return self.patches(media).mean(1).float()

    def queries(
        self, patches: torch.Tensor, ids: torch.Tensor, attended: torch.Tensor
    ) -> torch.Tensor:
        """What the Q-Former hands to the decoder, `[questions, queries, width]`."""
        model = self.model
        tokens = model.query_tokens.expand(len(ids), -1, -1)
        found = model.qformer(
            input_ids=ids,
            attention_mask=torch.cat([attended.new_ones(tokens.shape[:2]), attended], 1),
            query_embeds=tokens,
            encoder_hidden_states=patches,
        ).last_hidden_state
        return model.language_projection(found[:, : tokens.shape[1]])

    def media(self, media: Sequence[Image.Image]) -> list[torch.Tensor]:
        """There is none without a question; `QuestionRows` uses `queries` instead."""
        raise NotImplementedError

    @property
    def decoder(self) -> Any:
        """The language model without its head."""
        return self.model.language_model.model

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states."""
        return self.model.language_model.lm_head(hidden)

    @torch.no_grad()
    def whiten(self, media: Sequence[Image.Image]) -> None:
        """Start the patch embedding as a whitening of the pictures' patches."""
        whiten_patches(self.model.vision_model.embeddings, self._pixels(media), PATCH)


class QuestionRows(Packer):
    """A row per question in place of packed questions; those of a picture share the tower's run.

    A row is: the queries, the beginning of the prompt, the question, its answer.
    """

    trainee: InstructBlipTrainee

    def loss(
        self, examples: Sequence[Example], packed: int, rng: np.random.Generator
    ) -> torch.Tensor:
        """Mean cross-entropy over the answers' tokens."""
        trainee = self.trainee
        ids, labels = (part.flatten(0, 1) for part in self.slots(examples, packed, rng))
        asked = (labels != -100).any(1)
        owners = torch.arange(len(examples)).repeat_interleave(packed)[asked]
        ids, labels = ids[asked], labels[asked]
        lengths = (labels != -100).int().argmax(1) + 1  # of the questions
        start = torch.tensor(self.prefix).expand(len(ids), -1)
        # The Q-Former's positions are absolute, and the processor pads on one side or the other.
        questions = _padded(torch.cat([start, ids], 1), lengths + len(self.prefix), rng)
        wanted = labels != -100
        with half_precision():
            patches = trainee.patches([example.medium for example in examples])
            queries = trainee.queries(patches[owners], *questions)
            embeddings = torch.cat([queries, trainee.embed(torch.cat([start, ids], 1))], 1)
            hidden = trainee.decode(embeddings)[:, -ids.shape[1] :]
            logits = trainee.logits(hidden[wanted])
        return torch.nn.functional.cross_entropy(logits.float(), labels[wanted])


def _padded(
    ids: torch.Tensor, lengths: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first `lengths` ids of each row, padded left or right, and their attention mask."""
    longest = int(lengths.max())
    index = torch.arange(longest)
    attended = index < lengths[:, None]
    ids = torch.where(attended, ids[:, :longest], 0)
    if rng.random() < 0.5:
        source = (index + lengths[:, None]) % longest
        ids, attended = ids.gather(1, source), attended.gather(1, source)
    return ids, attended.long()


DEMO = Demo(
    "llava-next",
    build,
    TrainingPictures,
    InstructBlipTrainee,
    QuestionRows,
    recipe={"tower": "vision_model"},
)
