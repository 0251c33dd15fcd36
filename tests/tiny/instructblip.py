"""Tiny InstructBLIP: pictures of 16 pixels, a Q-Former of three layers, Llama decoders."""

from __future__ import annotations

from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    MistralConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from mmlens.data.samples import Sample
from tests.tiny.common import TinyFamily, pictures, sharpened, tokenizer, vocabulary

SIDE, PATCH, QUERIES = 16, 8, 5
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
WORDS = vocabulary(SPECIAL)
#: The Q-Former has a tokenizer of its own, BERT's in the published models.
QFORMER_SPECIAL = ["[PAD]", "<unk>", "[CLS]", "[SEP]"]


def processor(queries: int | None = QUERIES) -> InstructBlipProcessor:
    """The real processor, its pictures handled by Pillow; no chat template, as published."""
    text = tokenizer(SPECIAL, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    text.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    question = tokenizer(QFORMER_SPECIAL, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    question.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(one, QFORMER_SPECIAL.index(one)) for one in ("[CLS]", "[SEP]")],
    )
    return InstructBlipProcessor(
        image_processor=BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer=text,
        qformer_tokenizer=question,
        num_query_tokens=queries,
    )


def model(
    decoder: str = "vicuna", seed: int = 0, **text: Any
) -> InstructBlipForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    tied = text.pop("tied", False)
    common = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "tie_word_embeddings": tied,
    }
    if decoder == "mistral":  # grouped keys, a window shorter than the prompts
        text_config: Any = MistralConfig(
            **{**common, "num_key_value_heads": 2, "sliding_window": 6, **text}
        )
    else:
        text_config = LlamaConfig(**{**common, **text})
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        qformer_config=InstructBlipQFormerConfig(
            vocab_size=len(vocabulary(QFORMER_SPECIAL)),
            hidden_size=20,
            intermediate_size=36,
            num_hidden_layers=3,
            num_attention_heads=2,
            cross_attention_frequency=2,
            encoder_hidden_size=24,
            max_position_embeddings=64,
            pad_token_id=0,
        ),
        text_config=text_config,
        num_query_tokens=QUERIES,
        image_token_index=WORDS.index("<image>"),
    )
    built = sharpened(lambda: InstructBlipForConditionalGeneration(config), seed)
    assert isinstance(built, InstructBlipForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """One picture each, of several sizes and shapes; questions of several lengths."""
    return pictures([(16, 16), (40, 16), (15, 37), (31, 33), (64, 48)], 9)


FAMILY = TinyFamily(
    name="instructblip",
    variants={
        "vicuna": lambda seed: model("vicuna", seed),
        "vicuna-tied": lambda seed: model("vicuna", seed, tied=True),
        "llama-grouped": lambda seed: model("llama", seed, num_key_value_heads=2),
        "mistral": lambda seed: model("mistral", seed),
    },
    processor=processor,
    samples=samples,
)
