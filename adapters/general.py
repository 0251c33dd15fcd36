"""Any transformers model that reads pictures, videos or sounds into a Llama-shaped decoder.

For families without an adapter of their own. What it needs is found by structure: the decoder by
``get_decoder``, the placeholders in the config, the MLPs of the towers by the names that
transformers gives their parts. It logs what it found. What structure does not show is which
positions of a tower belong to which sample, and which are padding: statistics of towers need an
adapter of the family; hooks and caching on them do not, nor does anything in the language module.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from jaxtyping import Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMultimodalLM, PreTrainedModel

from mmlens.adapter import KINDS, Decoder, Media, Tower, TowerMLP, Towers
from mmlens.errors import UnsupportedModelError
from mmlens_adapters.base import FamilyAdapter, picture_rows

logger = logging.getLogger(__name__)

#: What a module outside the decoder is, by words in its path; the first that fits.
_MODULE_WORDS = (
    ("qformer", ("qformer",)),
    (
        "projector",
        ("projector", "projection", "connector", "merger", "aligner", "adapter", "resampler"),
    ),
    ("audio", ("audio", "speech", "sound", "whisper")),
    ("vision", ("vision", "visual", "image", "vit", "siglip", "clip")),
)
#: Names of (first, up or None, second) in the module that owns an MLP.
_PROJECTIONS = (
    ("gate_proj", "up_proj", "down_proj"),
    ("up_proj", None, "down_proj"),
    ("fc1", None, "fc2"),
    ("linear_1", None, "linear_2"),
    ("linear1", None, "linear2"),
    ("linear_fc1", None, "linear_fc2"),
    ("lin1", None, "lin2"),
    ("intermediate.dense", None, "output.dense"),
    ("intermediate_query.dense", None, "output_query.dense"),
)
#: Where that module keeps its activation function.
_ACTIVATIONS = ("act", "act_fn", "activation_fn", "activation", "act_layer", "non_linearity")
#: Inputs that hold no medium.
_TEXT = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "position_ids"}


@dataclass(frozen=True)
class _NamedMLP:
    """An MLP, by the names of its parts.

    Attributes:
        path: of the module that owns it.
        names: of its projections there.
        mlp: its parts.
        refused: why it is no MLP whose neurons can be identified, in half a sentence; empty if it is.
    """

    path: str
    names: tuple[str, ...]
    mlp: TowerMLP
    refused: str = ""

    @property
    def stack(self) -> tuple[str, tuple[str, ...], Any]:
        """What MLPs of one tower have in common: their paths but for numbers, names, width."""
        return re.sub(r"\.\d+(?=\.|$)", ".*", self.path), self.names, self.mlp.first.out_features


class GeneralAdapter(FamilyAdapter):
    """A model of a family that no adapter was written for.

    Raises:
        UnsupportedModelError: an encoder-decoder, a mixture of experts, a decoder that cannot be
            found, or no placeholder in the config.
    """

    model_types = ()

    def __init__(self, hf: PreTrainedModel) -> None:
        super().__init__(hf)
        self.modalities = KINDS  # type: ignore[misc]  # each model has its own
        self.modalities = tuple(self.placeholders())  # type: ignore[misc]
        self._check()
        self._towers, self._said = _towers(self.hf, self.decoder())
        logger.info(self.describe())

    @classmethod
    def auto_class(cls) -> type[Any]:
        """The class that the config names, since no one auto class has every family."""
        return _ByArchitecture

    def describe(self) -> str:
        """What was found, in a few sentences, and what could not be."""
        decoder = self.decoder()
        placeholders = ", ".join(f"{k} {t}" for k, t in self.placeholders().items())
        said = [
            f"{type(self.hf).__name__} has no adapter of its own; the general one found a decoder "
            f"({type(decoder.model).__name__}, {len(decoder.layers)} layers) and placeholders ("
            f"{placeholders}).",
            *self._said,
            "Statistics of the language module, and hooks on all of them, are exact; statistics of "
            "the others need an adapter, as does knowing which of their layers the output depends on.",
        ]
        return " ".join(said)

    def towers(self) -> Towers:
        """The MLPs outside the decoder, grouped by where they are and how wide."""
        return self._towers

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Placeholders per row: all media of a row count as one.

        How many features a medium gives is the family's own; the Hugging Face model itself refuses
        another number of features than of placeholders.
        """
        media = any(value is not None for name, value in inputs.items() if name not in _TEXT)
        counts = {
            kind: (inputs["input_ids"] == token).sum(-1)
            for kind, token in self.placeholders().items()
        }
        return {kind: one[one > 0] if media else one[:0] for kind, one in counts.items()}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Not known.

        Raises:
            UnsupportedModelError: always.
        """
        raise UnsupportedModelError(
            f"The general adapter cannot tell which positions of module {module!r} belong to which "
            f"sample, nor which are padding, in {type(self.hf).__name__}: collect the language module, "
            f"or write an adapter for {self.hf.config.model_type!r} (docs/adding-a-family.md). Hooks "
            f"and caching on {module!r} work."
        )

    def content(self, kind: str) -> dict[str, Any]:
        """See :meth:`Adapter.content`: templates recognise a medium by its type or by its address."""
        return {"type": kind, f"{kind}_url": ""}

    def placeholder_text(self, kind: str, processor: Any) -> str:
        """The processor's token, or that of the config's id where the processor names none."""
        token = getattr(processor, f"{kind}_token", None)
        if not isinstance(token, str):
            token = processor.tokenizer.convert_ids_to_tokens(self.placeholders()[kind])
        return token

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`."""
        try:
            return super().process(processor, prompts, media, side)
        except ValueError:
            if not media.flat("image"):
                raise
        # Some processors want the pictures of each prompt in a list of their own.
        given = {**self.arguments(processor, media), **picture_rows(media)}
        padding = {"padding": True, "padding_side": side}
        return dict(processor(text=list(prompts), **given, **padding, return_tensors="pt"))

    def arguments(self, processor: Any, media: Media) -> dict[str, Any]:
        """See :meth:`Adapter.arguments`; sounds come with their rate."""
        given = super().arguments(processor, media)
        if media.flat("audio"):
            given["audio_kwargs"] = {"sampling_rate": self.sampling_rate(processor)}
        return given

    def encode_media(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs as they are: whether ``generate`` takes encoded media is the family's own."""
        return dict(inputs)

    def _check(self) -> None:
        name, config = type(self.hf).__name__, self.hf.config
        texts = [config, *(getattr(config, part, None) for part in config.sub_configs)]
        if any(getattr(one, "is_encoder_decoder", False) for one in texts):
            raise UnsupportedModelError(
                f"{name} is an encoder-decoder; only models whose text is written by a decoder alone "
                "are spliced."
            )
        if not self.placeholders():
            raise UnsupportedModelError(
                f"The config of {name} has no image_token_id, video_token_id or audio_token_id: where "
                f"media stand in a prompt is unknown. It needs an adapter for "
                f"{config.model_type!r} (docs/adding-a-family.md)."
            )
        for index, layer in enumerate(self.decoder().layers):
            experts = [n for n, _ in layer.named_modules() if n.rpartition(".")[2] == "experts"]
            if experts:
                raise UnsupportedModelError(
                    f"Layer {index} of the decoder of {name} is a mixture of experts ({experts[0]}), "
                    "which has no single MLP whose neurons could be hooked."
                )

    def decoder(self) -> Decoder:
        """See :meth:`Adapter.decoder`; errors as there."""
        found = self.hf.get_decoder() if hasattr(self.hf, "get_decoder") else None
        if found is None or found is self.hf:
            raise UnsupportedModelError(
                f"{type(self.hf).__name__} does not say where its decoder is (get_decoder)."
            )
        return super().decoder()


class _ByArchitecture:
    """An auto class that goes by ``config.architectures``."""

    @staticmethod
    def from_pretrained(source: Any, **kwargs: Any) -> PreTrainedModel:
        """As of any transformers class."""
        where = ("revision", "token", "cache_dir", "local_files_only")
        asked = {name: kwargs[name] for name in where if name in kwargs}
        config: Any = AutoConfig.from_pretrained(source, **asked)
        named = (config.architectures or [""])[0]
        loader: Any = getattr(transformers, named, AutoModelForMultimodalLM)
        return loader.from_pretrained(source, **kwargs)


def _towers(hf: Any, decoder: Decoder) -> tuple[Towers, list[str]]:
    """The towers, and a sentence on each kind of module."""
    inside = {id(module) for module in decoder.model.modules()} | {id(decoder.head)}
    outside = {n: m for n, m in hf.named_modules() if id(m) not in inside and _kind(n)}
    stacks: dict[tuple[str, Any], list[_NamedMLP]] = {}
    for path, module in outside.items():
        for found in _mlps(path, module):
            # The queries of a Q-Former have MLPs of their own, beside those of the text.
            kind = "query" if "query" in found.names[0] else _kind(path)
            stacks.setdefault((kind, found.stack), []).append(found)
    towers: dict[str, Tower] = {}
    without: dict[str, list[str]] = {}
    said = []
    for (kind, (pattern, names, width)), mlps in stacks.items():
        probed = [one.refused for one in mlps if one.refused]
        why = probed[0] if probed else _refusal(outside[mlps[0].path], mlps[0].mlp)
        if why:
            without.setdefault(kind, []).append(f"{pattern} {why}")
            continue
        number = 1 + sum(name.split("_")[0] == kind for name in towers)
        name = kind if number == 1 else f"{kind}_{number}"
        towers[name] = Tower(tuple(one.mlp for one in mlps), width, (True,) * len(mlps))
        said.append(
            f"{name}: {len(mlps)} MLP{'s' if len(mlps) > 1 else ''} of {width} neurons ({pattern}: {', '.join(names)})."
        )
    for kind in dict.fromkeys(map(_kind, outside)):
        if kind not in towers and kind not in without:
            path = next(one for one in outside if _kind(one) == kind)
            without[kind] = [f"{path} holds no two linear maps known by name to form an MLP"]
    reasons = {kind: "; ".join(whys) for kind, whys in without.items()}
    said += [f"Left out of {kind}: {why}." for kind, why in reasons.items()]
    return Towers(towers, reasons), said


def _kind(path: str) -> str:
    """What a module is, by the words of its path down to the first stack; empty if there is no such word."""
    words = re.split(r"\.\d+(?=\.|$)", path, maxsplit=1)[0].lower()
    return next((kind for kind, marks in _MODULE_WORDS if any(mark in words for mark in marks)), "")


def _mlps(path: str, module: nn.Module) -> Iterator[_NamedMLP]:
    """The MLPs that a module owns."""
    if isinstance(module, nn.Sequential):
        linear = [name for name, child in module.named_children() if _is_linear(child)]
        weighted = [
            n for n, child in module.named_children() if any(True for _ in child.parameters())
        ]
        if len(linear) == 2 and weighted[weighted.index(linear[0]) :] == linear:
            yield _named_mlp(path, module, (linear[0], None, linear[1]))
        return
    for names in _PROJECTIONS:
        parts = [_part(module, name) for name in names if name]
        if all(_is_linear(part) for part in parts):
            yield _named_mlp(path, module, names)
            if names[0] == "gate_proj":  # its up and down projections are no MLP of their own
                return


def _named_mlp(path: str, module: nn.Module, names: tuple[str, str | None, str]) -> _NamedMLP:
    first, up, second = (_part(module, name) if name else None for name in names)
    assert first is not None and second is not None
    gated: Any = _activation(module, names) if up is not None else None
    shown = tuple(name for name in names if name)
    widths = {first.out_features, second.in_features}
    if up is not None:
        widths.add(up.out_features)
    refused = ""
    if len(widths) > 1:
        refused = (
            f"has an MLP whose {shown[0]} gives {first.out_features} values of which {shown[-1]} reads "
            f"{second.in_features}"
        )
    elif up is not None and gated is None:
        refused = "has a gated MLP without an activation function of a known name"
    return _NamedMLP(path, shown, TowerMLP(first, second, up, gated), refused)


def _activation(
    module: nn.Module, names: tuple[str, str | None, str]
) -> Callable[[Tensor], Tensor] | None:
    if isinstance(module, nn.Sequential):
        children = dict(module.named_children())
        keys = list(children)
        between = keys[keys.index(names[0]) + 1 : keys.index(names[2])]
        left = [children[key] for key in between if not isinstance(children[key], nn.Dropout)]
        return left[0] if len(left) == 1 else None
    owner: Any = module
    if names[0].endswith(".dense"):
        owner, wanted = getattr(module, names[0].partition(".")[0]), ("intermediate_act_fn",)
    else:
        wanted = _ACTIVATIONS
    found: list[Any] = [one for name in wanted if callable(one := getattr(owner, name, None))]
    return found[0] if len(found) == 1 else None


def _refusal(module: nn.Module, mlp: TowerMLP) -> str:
    """Why the module does not compute what the names of its parts say; empty if it does.

    It is shown noise where it takes a single tensor; where it does not, the names are believed.
    """
    names = next(one for one in _mlps("", module) if one.mlp.first is mlp.first).names
    activation = _activation(module, (names[0], None, names[-1]))
    weight: Any = mlp.first.weight
    if activation is None or weight.is_meta or not weight.is_floating_point():
        return ""
    width: Any = mlp.first.in_features
    noise = torch.randn(1, 4, width, generator=torch.Generator().manual_seed(0))
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack, torch.no_grad():
        for name, part in (("pre", mlp.first), ("linear", mlp.up)):
            if part is not None:
                hook = part.register_forward_hook(
                    lambda _m, _a, output, name=name: seen.update({name: output})
                )
                stack.callback(hook.remove)
        hook = mlp.second.register_forward_pre_hook(lambda _m, args: seen.update(post=args[0]))
        stack.callback(hook.remove)
        needed = [
            one
            for one in inspect.signature(module.forward).parameters.values()
            if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
        ]
        with suppress(Exception):  # an error on noise says nothing of its MLP
            module(noise.to(weight.device, weight.dtype), *[None] * (len(needed) - 1))
        if not seen.keys() >= {"pre", "post"} | ({"linear"} if mlp.up is not None else set()):
            return ""
        expected = activation(seen["pre"])
        if mlp.up is not None:
            expected = expected * seen["linear"]
    post = seen["post"]
    tolerance = 1e-4 if weight.dtype == torch.float32 else 2e-2
    if post.shape != expected.shape or not torch.allclose(post, expected, tolerance, tolerance):
        return f"does more between {names[0]} and {names[-1]} than its activation function"
    return ""


def _part(module: nn.Module, path: str) -> Any:
    """A part by its path; None where there is none."""
    for name in path.split("."):
        module = getattr(module, name, None)  # type: ignore[assignment]
    return module


def _is_linear(module: Any) -> bool:
    return isinstance(module, nn.Module) and all(
        hasattr(module, name) for name in ("in_features", "out_features", "weight")
    )
