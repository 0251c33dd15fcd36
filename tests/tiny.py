"""Tiny random LLaVA-NeXT models and processors, built from configs: for exactness, offline."""

from functools import cache

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)

from mmlens.samples import Sample

DECODERS = ("mistral", "vicuna")
TILE, PATCH = 16, 8
PINPOINTS = [[16, 32], [32, 16], [32, 32], [16, 16]]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
WORDS = SPECIAL + [
    "user",
    ":",
    "assistant",
    "what",
    "is",
    "this",
    "shown",
    "here",
    "?",
    "a",
    "red",
    "blue",
    "cat",
    "dog",
    "answer",
    "one",
]
WORDS += [f"w{i}" for i in range(40)]
CHAT = (
    "{{ bos_token }}user : {% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} assistant :{% endif %}"
)


@cache
def processor():
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=PINPOINTS,
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=fast,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )


def llava_next(decoder="mistral", seed=0, **text):
    common = dict(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    if decoder == "mistral":  # grouped keys, a window shorter than the prompts
        text_config = MistralConfig(
            **{**common, "num_key_value_heads": 2, "sliding_window": 6, **text}
        )
    else:  # Vicuna is a Llama without grouped keys
        text_config = LlamaConfig(**{**common, "num_key_value_heads": 4, **text})
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=TILE,
            patch_size=PATCH,
            initializer_range=0.3,
        ),
        text_config=text_config,
        image_token_index=WORDS.index("<image>"),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(config).eval()
    # Random weights of the library's own scale give nearly uniform answers; these give sharp ones.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.25)
    return model


def picture(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def samples():
    """Pictures of several sizes and shapes, prompts of several lengths, none and two pictures."""
    shapes = [(16, 16), (40, 16), (15, 37), (31, 33)]
    texts = ["what is this ?", "what is shown here ? a cat", "w1 w2 w3", "one dog"]
    rows = [
        Sample(
            id=f"s{i}",
            text=texts[i % 4],
            images=(picture(*shapes[i % 4], seed=i),),
            answers=("a",),
            domain="red" if i % 2 else "blue",
        )
        for i in range(8)
    ]
    rows.append(Sample("two", "w4 w5", (picture(16, 16, 8), picture(33, 16, 9)), domain="red"))
    rows.append(Sample("none", "what is a dog ?", (), domain="blue"))
    return rows
