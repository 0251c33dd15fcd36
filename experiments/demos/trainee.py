"""What the demo models have in common: word-level tokenizer, decoder, whitening, and their methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

#: Special tokens of the demos with a Llama decoder.
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")


class Trainee(ABC):
    """A model to be trained, in the terms of the training code.

    Attributes:
        model, processor, tokenizer: Hugging Face's.
        kind: what a part of a message that holds the medium is called.
        image_token: the placeholder of the medium in a prompt.
    """

    kind: str = "image"
    image_token: str = "<image>"

    def __init__(self, processor: Any, model: Any) -> None:
        self.processor = processor
        self.tokenizer: Any = processor.tokenizer
        self.model = model

    def prompt(self, text: str) -> str:
        """The prompt of a question, with one placeholder for its medium."""
        content = [{"type": self.kind}, {"type": "text", "text": text}]
        message = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(
            message, add_generation_prompt=True, tokenize=False
        )

    @abstractmethod
    def whiten(self, media: Sequence[Any], /) -> None:
        """Start the tower's first layer as a whitening of some training media.

        From the usual start the mean of a patch drowns its pattern, which is then learned slowly.
        """

    @abstractmethod
    def tower(self, media: Sequence[Any], /) -> Float[Tensor, "medium feature"]:
        """Pooled features of the tower alone, for its warm-up."""

    @abstractmethod
    def media(self, media: Sequence[Any], /) -> list[Float[Tensor, "token width"]]:
        """The embeddings that stand for each medium in the prompt."""

    def embed(self, ids: Int[Tensor, "*any"]) -> Float[Tensor, "*any width"]:
        """Token embeddings."""
        return self.model.get_input_embeddings()(ids)

    @property
    def decoder(self) -> Any:
        """The language model without its head."""
        return self.model.model.language_model

    def decode(
        self,
        embeddings: Float[Tensor, "batch pos width"],
        mask: Float[Tensor, "batch 1 query key"] | None = None,
        positions: Int[Tensor, ...] | None = None,
    ) -> Float[Tensor, "batch pos width"]:
        """The decoder's last hidden states under an additive mask; causal without one."""
        return self.decoder(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state

    def logits(self, hidden: Float[Tensor, "*any width"]) -> Float[Tensor, "*any vocabulary"]:
        """Logits of hidden states."""
        return self.model.get_output_embeddings()(hidden)


def half_precision() -> torch.autocast:
    """Matrix products in bfloat16; weights and updates stay in float32."""
    return torch.autocast("cpu", torch.bfloat16)


def build_tokenizer(
    texts: Sequence[str],
    special: Sequence[str] = SPECIAL,
    *,
    bos: str | None = "<s>",
    eos: str = "</s>",
    pad: str = "<pad>",
    extra: Mapping[str, str] = MappingProxyType({"image_token": "<image>"}),
) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the words of texts and of the chat template.

    Args:
        texts: all that is asked and answered.
        special: the special tokens, in the order of their ids.
        bos, eos, pad: the ones of them that begin, end and pad a text.
        extra: names for further ones.
    """
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    splitter = pre_tokenizers.BertPreTokenizer()
    words = {
        word
        for text in [*texts, "user: assistant: system: . , ? !"]
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    }
    vocabulary = {word: index for index, word in enumerate([*special, *sorted(words)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    # Joins words, closes up punctuation.
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    if bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        unk_token="<unk>",
        pad_token=pad,
        padding_side="left",
        model_max_length=512,
        extra_special_tokens=dict(extra),
    )


def token_ids(tokenizer: Any) -> dict[str, int | None]:
    """Ids of the tokens that begin, end and pad a text, as configurations name them."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tokenizer, name) for name in names}


def decoder_settings(tokenizer: Any, **others: Any) -> dict[str, Any]:
    """The decoder that all demos have: 6 layers of 128, 4 heads that share 2 keys, 896 neurons."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 896,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        **token_ids(tokenizer),
        **others,
    }


def answer_greedily(settings: Any, tokenizer: Any) -> None:
    """Short greedy answers, as the default of a generation config."""
    settings.do_sample, settings.max_new_tokens = False, 8
    for name, value in token_ids(tokenizer).items():
        setattr(settings, name, value)


def whitening(
    covariance: Float[Tensor, "feature feature"], width: int, floor: float = 1e-3
) -> Float[Tensor, "width feature"]:
    """Filters that give inputs of this covariance equal variances, in a random rotation.

    Args:
        covariance: of the inputs.
        width: how many filters; they see the directions of largest variance.
        floor: added to the variances, as a share of their mean, so that noise is not blown up.
    """
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values[-width:], vectors[:, -width:]
    filters = vectors / (values + floor * values.mean()).sqrt()
    return (filters @ torch.linalg.qr(torch.randn(width, width)).Q).T


def whiten_patches(
    embeddings: Any, pixels: Float[Tensor, "picture 3 height width"], side: int
) -> None:
    """Start a vision tower's embeddings as a whitening of the patches, and its positions at random.

    Args:
        embeddings: with a patch embedding by convolution, and positions.
        pixels: of the pictures; patches of padding are zero, and left out.
        side: of a patch.
    """
    patches = torch.nn.functional.unfold(pixels, side, stride=side).mT.flatten(0, 1)
    patches = patches[patches.abs().sum(-1) > 0]
    weight, positions = embeddings.patch_embedding.weight, embeddings.position_embedding
    weight.copy_(whitening(second_moment(patches), len(weight)).reshape(weight.shape))
    getattr(positions, "weight", positions).normal_(std=0.3)


def second_moment(rows: Float[Tensor, "row feature"]) -> Float[Tensor, "feature feature"]:
    """The covariance of rows about zero."""
    return rows.T @ rows / len(rows)
