"""The hooked multimodal model: a Hugging Face model whose decoder computes in TransformerLens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint
from transformers import PreTrainedModel, ProcessorMixin

from mmlens.adapter import Adapter, owners
from mmlens.backbone.build import BackboneName, build_backbone
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.hooks.editing import Hook, Site
from mmlens.model.batch import Batch, Inputs
from mmlens.model.generation import Generation, refuse_unseen
from mmlens.model.hook_resolution import HookName, install
from mmlens.model.modules import ModuleInfo
from mmlens.model.prepare import Preparer
from mmlens.model.tower_hooks import TowerHooks
from mmlens.neurons import NeuronSet
from mmlens.storage.fingerprint import weight_fingerprint
from mmlens.tokens.groups import TokenGroups

Hooks = Sequence[tuple[HookName, Callable[..., Any]]]
Activation = Callable[[Tensor], Tensor]


class HookedMLLM:
    """A Hugging Face multimodal model with its language backbone in TransformerLens.

    Made by :func:`mmlens.load` and :func:`mmlens.splice`.

    Attributes:
        hf: the Hugging Face model; untouched outside :meth:`spliced`.
        processor: its processor, or None.
        preparer: makes batches of samples, on the CPU, and measures prompts.
        backbone: the HookedTransformer or TransformerBridge over the same weights. On its own it is
            a plain text model; its hooks act on ``hf`` only inside :meth:`spliced`.
        cfg: the backbone's config, with the name of the backbone in ``cfg.backbone``.
        modules: name -> :class:`ModuleInfo`, for the modules that have neurons.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        processor: ProcessorMixin | None,
        adapter: Adapter,
        backbone: BackboneName = "auto",
    ) -> None:
        self.hf, self.processor, self.adapter = hf, processor, adapter
        self.preparer = Preparer(adapter, processor)
        self._backbone = build_backbone(adapter, backbone)
        self.cfg.backbone = self._backbone.name
        found = adapter.towers()
        self._towers = TowerHooks(found.towers)
        self._without_neurons = dict(found.without_neurons)
        layers, width = self.cfg.n_layers, self.cfg.d_mlp
        language = ModuleInfo(LANGUAGE, layers, width, self._backbone.gated, (True,) * layers)
        self.modules = {LANGUAGE: language} | {
            name: ModuleInfo.of_tower(name, tower) for name, tower in found.towers.items()
        }
        self.hook_dict: dict[str, HookPoint] = self._backbone.hook_dict | self._towers.hook_dict
        self._level = 0

    @property
    def backbone(self) -> Any:
        """The HookedTransformer or TransformerBridge over the same weights."""
        return self._backbone.model

    @property
    def cfg(self) -> Any:
        """The backbone's config, in TransformerLens's terms."""
        return self._backbone.cfg

    @property
    def device(self) -> torch.device:
        """Where the Hugging Face model is."""
        return self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        """The Hugging Face model's dtype."""
        return self.hf.dtype

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer.

        Raises:
            SampleError: the model was spliced without a processor.
        """
        if self.processor is None:
            raise SampleError(
                "This model was spliced without a processor, so it has no tokenizer; pass "
                "mmlens.splice(hf_model, processor=...)."
            )
        return self.processor.tokenizer

    @cached_property
    def weight_hash(self) -> str:
        """Fingerprint of architecture and weights; the same in float32 and bfloat16."""
        return weight_fingerprint(self.hf)

    def why_silent(self, name: str) -> str | None:
        """Why an existing hook point cannot fire, in a sentence; None where it can."""
        return self._backbone.why_silent(name) if name in self._backbone.hook_dict else None

    def is_tower_hook(self, name: str) -> bool:
        """Whether a hook point lies outside the language model, where text alone never fires it."""
        return name in self._towers.hook_dict

    def activation(self, module: str, layer: int) -> Activation | None:
        """What makes a neuron's activation of ``hook_pre``; None where ``hook_post`` is the activation.

        With an up branch ``hook_post`` holds the product with it, so the activation is recomputed.
        """
        if module == LANGUAGE:
            return self.adapter.decoder().activation(layer)
        return self._towers.towers[module].mlps[layer].activation

    def activation_hook(
        self,
        module: str,
        layer: int,
        read: Callable[[Tensor, Activation], None],
        site: Site = "act",
    ) -> Hook:
        """A hook that reads one layer's activations, wherever they can be had.

        Args:
            module, layer: whose.
            read: called as ``read(tensor, activation)``; ``activation(tensor)`` are the activations,
                and may be taken of a part of the tensor [..., neuron].
            site: ``glu``: the product with the up branch, as ``hook_post`` holds it; without an up
                branch that is the activation itself.
        """
        activation = self.activation(module, layer) if site == "act" else None

        def pass_on(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            read(tensor, activation or _unchanged)

        point = "post" if activation is None else "pre"
        return self.module(module).hook(layer, point), pass_on

    def on_path(self, module: str) -> NeuronSet:
        """The neurons of a module that can influence the output; the others are never read."""
        info = self.module(module)
        return NeuronSet(info.influential(), module, info.shape, self.weight_hash)

    def module(self, name: str) -> ModuleInfo:
        """The module of that name.

        Raises:
            SampleError: there is none, or it has no neurons.
        """
        if name not in self.modules:
            why = self._without_neurons.get(name, "there is no such module")
            raise SampleError(
                f"Module {name!r} has no neurons here: {why}. Modules with neurons: "
                f"{', '.join(self.modules)}."
            )
        return self.modules[name]

    def to(self, *args: Any, **kwargs: Any) -> HookedMLLM:
        """As ``torch.nn.Module.to``; the backbone's views follow."""
        self.hf.to(*args, **kwargs)
        self._backbone.refresh()
        return self

    # -- inputs --------------------------------------------------------------------------------

    def prepare(
        self,
        samples: Sample | Sequence[Sample],
        *,
        template: Literal["auto", "chat", "plain", "none"] = "auto",
        padding_side: Literal["left", "right"] = "left",
    ) -> Batch:
        """Decode the media of samples, build their prompts, process and group them.

        Args:
            samples: one or several.
            template: ``chat`` is the processor's chat template with a generation prompt,
                ``plain`` MMNeuron's bare ``<image>\\n{question}``, ``none`` the text alone, without
                media (any model takes it); ``auto``: chat where there is one.
            padding_side: generation needs ``left``.

        Raises:
            SampleError: a sample without a picture where the model cannot do without, or a kind of
                medium the model does not take.
            MediaError: a picture is missing or truncated.
        """
        samples = (samples,) if isinstance(samples, Sample) else tuple(samples)
        return self.preparer.batch(samples, template, padding_side).to(self.device)

    def as_batch(self, inputs: Inputs) -> Batch:
        """A batch as it is; a plain mapping of Hugging Face inputs with groups from its ids."""
        if isinstance(inputs, Batch):
            return inputs.to(self.device)
        if "input_ids" not in inputs:
            raise SampleError(
                f"Inputs need 'input_ids', which decide the token groups; given: "
                f"{', '.join(inputs) or 'none'}."
            )
        tokenizer = self.tokenizer if self.processor is not None else None
        groups = TokenGroups.from_input_ids(
            inputs["input_ids"], inputs.get("attention_mask"), self.adapter.token_ids(tokenizer)
        )
        return Batch(dict(inputs), groups).to(self.device)

    def media_rows(self, batch: Batch) -> dict[str, list[int]]:
        """Placeholder group -> the row of each medium; checks placeholders against features.

        Raises:
            UnsupportedModelError: a row's placeholders do not equal its media's features.
        """
        return {
            group: owners(batch.groups.mask(group).sum(-1), features, group)
            for group, features in self.adapter.feature_counts(batch.inputs).items()
        }

    def tower_rows(self, batch: Batch, module: str) -> list[Int[Tensor, " pos"]]:
        """For each run of a tower, the row of the batch that each flat position belongs to; on the CPU.

        -1 where a position is padding. A tower may run more than once, over pictures and then over
        videos; a batch of text alone reaches no tower.
        """
        media = self.media_rows(batch)
        if not any(media.values()):
            return []
        rows = self.adapter.tower_rows(module, batch.inputs, media)
        return [one.flatten().cpu() for one in rows]

    @torch.no_grad()
    def encode_media(self, inputs: Inputs) -> Batch:
        """The batch with its media passed through towers and projector already.

        Running it gives what the batch itself gives, as often as wanted, without encoding the media
        again; hooks on the towers then have nothing to fire on. Where the Hugging Face model takes
        no encoded media, the batch comes back as it is.
        """
        batch = self.as_batch(inputs)
        return replace(batch, inputs=self.adapter.encode_media(batch.inputs))

    def to_tokens(self, text: str | Sequence[str], **kwargs: Any) -> Int[Tensor, "batch pos"]:
        """Token ids of plain text, as in TransformerLens."""
        texts = [text] if isinstance(text, str) else list(text)
        encoded = self.tokenizer(texts, return_tensors="pt", padding=True, **kwargs)
        return encoded["input_ids"].to(self.device)

    def to_string(self, tokens: Int[Tensor, ...]) -> str | list[str]:
        """The text of token ids, as in TransformerLens."""
        if tokens.dim() == 2:
            return self.tokenizer.batch_decode(tokens)
        return self.tokenizer.decode(tokens)

    # -- running -------------------------------------------------------------------------------

    @contextmanager
    def spliced(self) -> Iterator[None]:
        """The exchange itself: inside, calling ``hf`` computes in the backbone, through its hooks."""
        with self._backbone(), self._towers() if self._backbone.depth == 1 else nullcontext():
            yield

    def __call__(self, inputs: Inputs, **kwargs: Any) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of a batch, through the hooked backbone."""
        return self.forward(inputs, **kwargs).logits

    def forward(self, inputs: Inputs, **kwargs: Any) -> Any:
        """The Hugging Face output of a batch, computed in the hooked backbone.

        Further arguments, such as ``logits_to_keep``, are passed to the Hugging Face model.
        """
        batch = self.as_batch(inputs)
        self.media_rows(batch)
        with self.spliced():
            run = self.adapter.runner(batch.inputs)
            return run(**batch.inputs, **{"use_cache": False, **kwargs})

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Hooks = (),
        bwd_hooks: Hooks = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[HookedMLLM]:
        """Hooks for as long as the context lasts, inside the exchange; as in TransformerLens.

        Args:
            fwd_hooks, bwd_hooks: (hook name or predicate on names, function) pairs.
            reset_hooks_end: take these hooks away on leaving.
            clear_contexts: clear the hook points' ``ctx`` on leaving.

        Raises:
            HookError: an unknown name; or, on leaving, a forward hook that never fired although
                the model ran.
        """
        self._level += 1
        before = self._backbone.passes
        try:
            with self.spliced():
                fired = install(self, fwd_hooks, bwd_hooks, self._level)
                yield self
                if self._backbone.passes > before:
                    fired.check()
        finally:
            if reset_hooks_end:
                self.reset_hooks(clear_contexts, level=self._level)
            self._level -= 1

    def run_with_hooks(
        self,
        inputs: Inputs,
        fwd_hooks: Hooks = (),
        bwd_hooks: Hooks = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **kwargs: Any,
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits under hooks; arguments as in :meth:`hooks`, errors too."""
        with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
            return self(inputs, **kwargs)

    def run_with_cache(
        self,
        inputs: Inputs,
        names_filter: None | str | Sequence[str] | Callable[[str], bool] = None,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "batch pos d_vocab"], ActivationCache]:
        """Logits and activations by hook name, as in TransformerLens.

        Args:
            inputs: a batch, or Hugging Face inputs.
            names_filter: which hooks to cache: a name, several, or a predicate; None: every one
                that fires (the attention pattern is then computed explicitly).
            device: where to keep them; default: where they arise.
            remove_batch_dim: drop the batch dimension of a batch of one.
            kwargs: passed to the Hugging Face model.

        Raises:
            HookError: a name that does not exist, or a hook that did not fire.
        """
        cached: dict[str, Tensor] = {}

        def keep(tensor: Tensor, hook: HookPoint) -> None:
            tensor = tensor.detach() if device is None else tensor.detach().to(device)
            assert hook.name is not None
            cached[hook.name] = tensor[0] if remove_batch_dim else tensor

        wanted: list[HookName]
        if names_filter is None:
            wanted = [lambda _: True]
        elif isinstance(names_filter, str) or callable(names_filter):
            wanted = [names_filter]
        else:
            wanted = list(names_filter)
        with self.hooks(fwd_hooks=[(name, keep) for name in wanted]):
            logits = self(inputs, **kwargs)
        return logits, ActivationCache(cached, self.backbone, has_batch_dim=not remove_batch_dim)

    @torch.no_grad()
    def generate(self, inputs: Inputs, max_new_tokens: int = 16, **kwargs: Any) -> Generation:
        """Hugging Face's ``generate``, through the hooked backbone.

        What a position means: hooks fire once on the whole prompt, [batch, pos, ...], then once per
        new token with one position, [batch, 1, ...], whose index in the sequence is the number of
        tokens before it; with beams, [batch x beams, ...]. The last new token is never run. Towers
        fire on the prompt alone. ``collect`` counts prompts only, and so does ``hooks.count`` unless
        it is asked for ``decode_steps``.

        Args:
            inputs: a batch, or Hugging Face inputs; a batch padded on the right is turned to the
                left, where generation needs it.
            max_new_tokens: tokens to generate at most.
            kwargs: passed to ``generate``: ``do_sample``, ``num_beams``, ``stop_strings`` (the
                tokenizer is passed along), ``cache_implementation``, ...

        Raises:
            SampleError: assisted decoding, prompt lookup or a custom loop: hooks would fire on
                candidate tokens that never become part of the answer.
        """
        refuse_unseen(kwargs)
        if "stop_strings" in kwargs and "tokenizer" not in kwargs:
            kwargs["tokenizer"] = self.tokenizer
        batch = self.as_batch(inputs).left_padded()
        self.media_rows(batch)
        # Static caches compile the forward on CUDA, and hooks cannot be compiled in.
        kwargs = {"disable_compile": True, **kwargs}
        with self.spliced():
            generate: Any = self.hf.generate
            out = generate(**batch.inputs, max_new_tokens=max_new_tokens, **kwargs)
        sequences = out if isinstance(out, Tensor) else out.sequences
        tokens = self.adapter.new_tokens(sequences, batch.shape[1])
        if self.processor is None:
            return Generation(tokens, [])
        decoded = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return Generation(tokens, [text.strip() for text in decoded])

    def reset_hooks(
        self,
        clear_contexts: bool = True,
        direction: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Take hooks away, as in TransformerLens."""
        for point in self.hook_dict.values():
            point.remove_hooks(direction, including_permanent=including_permanent, level=level)
            if clear_contexts:
                point.clear_context()

    def __repr__(self) -> str:
        modules = ", ".join(f"{m.name} {m.layers}x{m.width}" for m in self.modules.values())
        return f"HookedMLLM({type(self.hf).__name__} on {self.cfg.backbone}; neurons: {modules})"


def _unchanged(x: Tensor) -> Tensor:
    return x
