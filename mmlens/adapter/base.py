"""What an adapter has to know of one family of Hugging Face models.

An adapter is the only place that touches Hugging Face internals of its family.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForMultimodalLM, PreTrainedModel

from mmlens.adapter.parts import Decoder, Media, MediaSizes, Towers
from mmlens.data.samples import Sample
from mmlens.errors import UnsupportedModelError
from mmlens.tokens.groups import TokenIds
from mmlens.tokens.places import KINDS, Places

if TYPE_CHECKING:
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig


class Adapter(ABC):
    """One family of models. Subclass it, set the class attributes, register an entry point."""

    #: ``config.model_type`` of the family.
    model_types: ClassVar[tuple[str, ...]]
    #: Placeholder groups of the family, of ``image``, ``video``, ``audio``.
    modalities: ClassVar[tuple[str, ...]]
    #: Fields of encoded media that hold one entry per layer; other lists hold one per medium.
    per_layer: ClassVar[tuple[str, ...]] = ("hidden_states", "attentions")

    def __init__(self, hf: PreTrainedModel) -> None:
        self.hf: Any = hf

    @classmethod
    def auto_class(cls) -> type[Any]:
        """The transformers class whose ``from_pretrained`` loads the family."""
        return AutoModelForMultimodalLM

    # -- the model's parts ---------------------------------------------------------------------

    def decoder(self) -> Decoder:
        """The language model's parts.

        Raises:
            UnsupportedModelError: the model has no decoder of ``layers``, ``norm`` and ``embed_tokens``.
        """
        model: Any = self.hf.get_decoder()
        while not hasattr(model, "layers") and hasattr(model, "model"):
            model = model.model  # a causal LM around its decoder
        missing = [n for n in ("layers", "norm", "embed_tokens") if not hasattr(model, n)]
        head = self.hf.get_output_embeddings()
        if missing or head is None:
            raise UnsupportedModelError(
                f"The decoder of {type(self.hf).__name__}, a {type(model).__name__}, has no "
                f"{' and no '.join(missing) or 'output embeddings'}: it is not Llama-shaped."
            )
        return Decoder(
            model=model,
            layers=model.layers,
            norm=model.norm,
            head=head,
            embed=model.embed_tokens,
            rotary=getattr(model, "rotary_emb", None),
        )

    def backbone_config(self) -> HookedTransformerConfig:
        """The HookedTransformer config that equals the decoder.

        Raises:
            UnsupportedModelError: HookedTransformer cannot represent the decoder exactly.
        """
        raise UnsupportedModelError(
            f"{type(self).__name__} describes no HookedTransformer; use backbone='bridge'."
        )

    def backbone_weights(self, config: HookedTransformerConfig) -> dict[str, Tensor]:
        """TransformerLens parameter and buffer names -> views of the decoder's weights."""
        raise NotImplementedError

    @abstractmethod
    def towers(self) -> Towers:
        """The modules with neurons outside the language model."""

    # -- its tokens ----------------------------------------------------------------------------

    def token_ids(self, tokenizer: Any | None) -> TokenIds:
        """Placeholders by the config; special: the tokenizer's special ids but those and unknown."""
        placeholders = self.placeholders()
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id} if tokenizer else set()
        return TokenIds(placeholders, frozenset(special - set(placeholders.values())))

    def placeholders(self) -> dict[str, int]:
        """Placeholder group -> token id, from ``{kind}_token_id`` or ``{kind}_token_index``."""
        found = {}
        for kind in self.modalities:
            for name in (f"{kind}_token_id", f"{kind}_token_index"):
                if (token := getattr(self.hf.config, name, None)) is not None:
                    found[kind] = int(token)
                    break
        return found

    def group_of(self, kind: str) -> str:
        """The token group of a kind of media: its own, or, where it has no placeholder, ``image``.

        Some families put the frames of a video at the placeholder of pictures.
        """
        return kind if kind in self.placeholders() else "image"

    @abstractmethod
    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Placeholder group -> features that the projector gives for each medium, in order."""

    @abstractmethod
    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """The row of the batch that each position of a tower's activations belongs to.

        Args:
            module: the tower's name.
            inputs: Hugging Face inputs.
            media_rows: placeholder group -> for each medium in order, the row it belongs to.

        Returns:
            For each time the tower runs in one forward (pictures, then videos, say): the rows, in the
            shape of its activations without their last dimension; -1 where a position is padding.
        """

    def places(
        self, module: str, processor: Any, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places] | None:
        """Where positions lie in the media; None where that is not known.

        Args:
            module: ``language`` or a tower's name.
            processor: the processor that made the inputs.
            inputs: Hugging Face inputs.
            sizes: the sizes of each row's media.

        Returns:
            For ``language``: for each group of :meth:`feature_counts`, in its order, the features of
            its media one after another. For a tower: for each pass of :meth:`tower_rows`, its flat
            positions.
        """
        return None

    def tower_tokens(
        self, module: str, processor: Any, inputs: Mapping[str, Any]
    ) -> tuple[Any, list[int]] | None:
        """The tokenizer and the first row's ids that a tower's positions are; None if they are none."""
        return None

    # -- its inputs ----------------------------------------------------------------------------

    def prompt(self, sample: Sample, processor: Any, template: str) -> str:
        """The text of a sample: the chat template's, or placeholders and the bare question.

        ``plain`` is MMNeuron's form, ``<image>\\n{question}``.
        """
        kinds = [kind for kind in KINDS for _ in getattr(sample, f"{kind}s")]
        if template == "plain":
            return "".join(f"{self.placeholder_text(k, processor)}\n" for k in kinds) + sample.text
        content = [self.content(kind) for kind in kinds] + [{"type": "text", "text": sample.text}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        # Many templates write the start token although the tokenizer puts one itself.
        tokenizer = processor.tokenizer
        start = getattr(tokenizer, "bos_token", None)
        if start and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]:
            return text.removeprefix(start)
        return text

    def content(self, kind: str) -> dict[str, Any]:
        """What stands for one medium in the message that the chat template is given."""
        return {"type": kind}

    def placeholder_text(self, kind: str, processor: Any) -> str:
        """What stands for one medium in the text that the processor is given."""
        return getattr(processor, f"{kind}_token")

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """Hugging Face inputs of a batch, padded on ``side``."""
        return dict(
            processor(
                text=list(prompts),
                **self.arguments(processor, media),
                padding=True,
                padding_side=side,
                return_tensors="pt",
            )
        )

    def arguments(self, processor: Any, media: Media) -> dict[str, Any]:
        """What the processor is given besides the text: media as one list a kind, every frame of a video."""
        given: dict[str, Any] = {}
        if images := media.flat("image"):
            given["images"] = images
        if videos := media.flat("video"):
            given["videos"] = [one.frames for one in videos]
        if audios := media.flat("audio"):
            given["audio"] = audios
        return given

    def text_inputs(self, tokenizer: Any, texts: Sequence[str], side: str) -> dict[str, Any]:
        """Hugging Face inputs of plain texts, with the tokenizer's own special tokens.

        Override it where the model has to be made to read them as a language model does, each token
        from those before it.
        """
        encoded = tokenizer(list(texts), padding=True, padding_side=side, return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def sampling_rate(self, processor: Any) -> int:
        """The rate, in samples per second, at which the model takes sounds."""
        return int(processor.feature_extractor.sampling_rate)

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int | None:
        """Tokens that a sample's media take in place of its placeholders, by their sizes alone.

        None where sizes do not determine it; the sample is then processed to find out.
        """
        return None if sizes != MediaSizes() else 0

    def prompt_tokens(self, processor: Any, prompt: str, sizes: MediaSizes) -> int | None:
        """Tokens of a prompt whose media have these sizes; None where sizes do not determine it.

        Override it where the processor writes more than placeholders into the prompt (line breaks,
        the places of tiles): what a tokenizer makes of that depends on the text around it.
        """
        media = self.media_tokens(processor, sizes)
        if media is None:
            return None
        ids = torch.tensor(processor.tokenizer(prompt)["input_ids"])
        placeholders = torch.tensor(list(self.placeholders().values()))
        return int((~torch.isin(ids, placeholders)).sum()) + media

    def encode_media(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs with the projector's output in place of raw media; as they are if not possible.

        Newer transformers take it as ``mm_encoder_outputs``.
        """
        if "mm_encoder_outputs" not in inspect.signature(self.hf.forward).parameters:
            return dict(inputs)
        rest, encoded = dict(inputs), {}
        for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            if inputs.get(pixels) is None:
                continue
            encode = getattr(self.hf.base_model, f"get_{kind}_features")
            wanted = {n: inputs[n] for n in inspect.signature(encode).parameters if n in inputs}
            encoded[kind] = encode(**wanted, return_dict=True)
            del rest[pixels]
        return {**rest, "mm_encoder_outputs": encoded} if encoded else rest

    def repeated(self, inputs: Mapping[str, Any], times: int) -> dict[str, Any]:
        """Inputs of the same rows ``times`` times, one batch after another, raw media or encoded.

        Tensors are repeated along their first dimension, lists and tuples as such, encoded media
        field by field; the lists of :attr:`per_layer` keep their length, and each entry is repeated.
        Override it where an input is neither of rows nor of media.
        """
        return {name: _repeated(value, times, self.per_layer) for name, value in inputs.items()}

    def runner(self, inputs: Mapping[str, Any]) -> Any:
        """What runs these inputs: the model itself, or its language model where that takes them alone.

        Override it where the model's forward demands media, so that plain text can be run.
        """
        return self.hf

    def final_logits(self, logits: Float[Tensor, "*pos d_vocab"]) -> Float[Tensor, "*pos d_vocab"]:
        """What the model makes of its head's output: the identity, or soft-capping."""
        cap = getattr(self.decoder().config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def new_tokens(
        self, sequences: Int[Tensor, "batch pos"], prompt: int
    ) -> Int[Tensor, "batch new"]:
        """The generated part of what ``generate`` returns; ``prompt`` positions come before it."""
        return sequences[:, prompt:]


def _repeated(value: Any, times: int, per_layer: Sequence[str]) -> Any:
    if isinstance(value, Tensor):
        return value.repeat(times, *(1 for _ in value.shape[1:])) if value.dim() else value
    if isinstance(value, (list, tuple)):
        return value * times
    if not isinstance(value, Mapping):
        return value
    fields = {
        name: type(one)(_repeated(layer, times, per_layer) for layer in one)
        if name in per_layer and isinstance(one, (list, tuple))
        else _repeated(one, times, per_layer)
        for name, one in value.items()
    }
    return type(value)(**fields)


def owners(
    placeholders: Int[Tensor, " batch"], features: Int[Tensor, " medium"], group: str
) -> list[int]:
    """The row that each medium belongs to, from placeholders per row and features per medium.

    Media fill the rows in order; each row's placeholders must equal its media's features exactly,
    or the projector's output would land in the wrong question.

    Raises:
        UnsupportedModelError: they do not match.
    """
    rows, medium = [], 0
    sizes = features.tolist()
    for row, wanted in enumerate(placeholders.tolist()):
        filled = 0
        while filled < wanted and medium < len(sizes):
            filled += sizes[medium]
            rows.append(row)
            medium += 1
        if filled != wanted:
            raise UnsupportedModelError(
                f"Row {row} has {wanted} {group} placeholder tokens, but its media give {filled} "
                f"features; check that the processor's patch size, feature selection and additional "
                f"tokens are those of the model."
            )
    if medium != len(sizes):
        raise UnsupportedModelError(
            f"{len(sizes)} {group} media were given, but the prompts have placeholders for {medium}."
        )
    return rows
