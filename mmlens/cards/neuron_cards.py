"""Neuron cards: what chosen neurons react to, shown in the media and sentences themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.cards.card import Card, CardPage, Entry
from mmlens.cards.entries import EntryMaker
from mmlens.cards.page import render
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.lens.promoted import promoted_tokens
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NeuronSet
from mmlens.statistics.top_activations import TopActivations
from mmlens.storage.atomic import write_text
from mmlens.streaming.batching import Batching, Template
from mmlens.streaming.top import top_activations
from mmlens.streaming.top_groups import top_by_group
from mmlens.tokens.text import token_text


def neuron_cards(
    model: HookedMLLM,
    samples: Sequence[Sample],
    neurons: NeuronSet | Mapping[str, NeuronSet],
    out: str | PathLike[str],
    *,
    probabilities: Float[Tensor, "layer neuron key"] | None = None,
    keys: Sequence[str] | None = None,
    per_set: int | None = 12,
    top_k: int = 6,
    n_tokens: int = 8,
    by: str = "domain",
    groups: Sequence[str] | None = None,
    title: str | None = None,
    max_bytes: int = 20_000_000,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
    **settings: Any,
) -> TopActivations:
    """Write one page of cards for neurons of one module, and return what it shows.

    Args:
        model: a hooked model.
        samples: what the neurons are shown; statistics and examples come from these alone.
        neurons: one set, or several of one module under the names of their labels (domains, or
            modalities): a card carries the names of all sets that have its neuron.
        out: the page, an ``.html`` file.
        probabilities: activation probabilities of all the module's neurons, with ``keys`` naming the
            last axis; they decide which neurons of a large set are shown.
        keys: order of the domains, or of the token groups; default: sorted, or that of ``groups``.
        per_set: neurons shown of each set at most: those most often active in the domain (or group) of
            the set's name, by ``probabilities``; without these, or where there is no such domain,
            neurons spread evenly over the set. None: all.
        top_k: examples per neuron and domain.
        n_tokens: promoted and suppressed tokens; language module only.
        by: field of the samples that the examples are sorted by.
        groups: token groups that the examples are sorted by instead, such as ``("text", "audio")``: for
            neurons of modalities; language module only, and a pass over the samples for each.
        title: of the page.
        max_bytes: weight of the page's pictures and sounds; they are made smaller to stay below it.
        batching: how samples become prompts and batches.
        settings: of :func:`mmlens.streaming.top.top_activations`: ``group``, ``distinct``.

    Raises:
        SampleError: no neurons, neurons of several modules, or what :func:`top_activations` refuses.
    """
    sets = {"": neurons} if isinstance(neurons, NeuronSet) else dict(neurons)
    module = _one_module(sets)
    shown = {name: chosen_of(one, name, probabilities, keys, per_set) for name, one in sets.items()}
    chosen = list(shown.values())
    settings["batching"] = batching
    if groups is None:
        found = top_activations(model, samples, chosen, k=top_k, by=by, **settings)[module]
    else:
        found = top_by_group(model, samples, chosen, groups, k=top_k, **settings)
        keys = keys or groups
    page = card_page(
        model,
        samples,
        found,
        sets,
        keys=keys,
        n_tokens=n_tokens,
        template=batching.template,
        title=title or f"Neurons of {module}",
        how_chosen=_rule(per_set, probabilities is not None and keys is not None, found.by),
    )
    write_text(Path(out), render(page, max_bytes))
    return found


def _one_module(sets: Mapping[str, NeuronSet]) -> str:
    modules = sorted({one.module for one in sets.values()})
    if len(modules) != 1:
        raise SampleError(
            f"A page shows neurons of one module; sets of {', '.join(modules) or 'none'} were given. "
            "Write a page for each."
        )
    if not any(len(one) for one in sets.values()):
        raise SampleError(
            "No neurons were given: the sets are empty, so there are no cards to write."
        )
    return modules[0]


def chosen_of(
    neurons: NeuronSet,
    name: str,
    probabilities: Float[Tensor, "layer neuron key"] | None,
    keys: Sequence[str] | None,
    number: int | None,
) -> NeuronSet:
    """The neurons of a set that get a card; see :func:`neuron_cards`."""
    pairs = neurons.pairs()
    if number is None or len(pairs) <= number:
        return neurons
    if probabilities is not None and keys is not None and name in keys:
        active = probabilities[pairs[:, 0], pairs[:, 1], list(keys).index(name)]
        kept = active.sort(descending=True, stable=True).indices[:number]
    else:
        kept = torch.linspace(0, len(pairs) - 1, number).round().long().unique()
    return NeuronSet(pairs[kept], neurons.module, neurons.shape, neurons.model_hash)


def card_page(
    model: HookedMLLM,
    samples: Sequence[Sample],
    found: TopActivations,
    sets: Mapping[str, NeuronSet],
    *,
    keys: Sequence[str] | None = None,
    n_tokens: int = 8,
    template: Template = "auto",
    title: str = "Neurons",
    how_chosen: str = "",
) -> CardPage:
    """The page's content from top activations that were found before.

    Args:
        model, samples: those that ``found`` is of.
        found: the top activations; every neuron of them gets a card.
        sets: label -> neurons, as in :func:`neuron_cards`.
        keys, n_tokens, title: as there.
        template: the prompt template that ``found`` was found with.
        how_chosen: a sentence on how the neurons were chosen out of the sets.

    Raises:
        SampleError: a sample that is named in ``found`` is not among the samples.
    """
    # Keys of other things than the examples' (modalities beside domains) do not order these.
    order = [key for key in keys or found.keys if key in found.keys] or list(found.keys)
    named = {sample.id: sample for sample in samples if sample.id in set(found.ids)}
    maker = EntryMaker(model, found.module, template)
    entries = maker.entries(found, named)
    tokens = _tokens(model, found, n_tokens)
    probabilities, columns = found.probabilities(), [found.keys.index(key) for key in order]
    cards = [
        Card(
            module=found.module,
            layer=layer,
            index=index,
            labels=tuple(n for n, one in sets.items() if n and (layer, index) in one),
            probabilities=tuple(probabilities[number, columns].tolist()),
            histogram=found.histogram[number, columns],
            entries={key: tuple(entries[number, found.keys.index(key)]) for key in order},
            promoted=tokens[number][0] if tokens else None,
            suppressed=tokens[number][1] if tokens else None,
        )
        for number, (layer, index) in enumerate(found.neurons.tolist())
    ]
    return CardPage(
        title=title,
        about=(
            *_about(model, found, sets, samples, how_chosen, bool(maker.crops)),
            *_about_strips(entries.values()),
        ),
        keys=tuple(order),
        by=found.by,
        cards=tuple(cards),
        pictures=maker.pictures,
        crops=maker.crops,
        strips=maker.strips.pictures,
        sounds=maker.strips.sounds,
    )


def _rule(per_set: int | None, ranked: bool, by: str) -> str:
    if per_set is None:
        return ""
    rule = f"those most often active in the {by} of its name" if ranked else "evenly spread over it"
    return f" Of each set at most {per_set} were taken: {rule}."


def _about(
    model: HookedMLLM,
    found: TopActivations,
    sets: Mapping[str, NeuronSet],
    samples: Sequence[Sample],
    how_chosen: str,
    boxes: bool,
) -> tuple[str, ...]:
    """How to read the page."""
    total = len(set().union(*(set(one) for one in sets.values())))
    positions, read = int(found.tokens.sum()), len(samples) - len(found.skipped)
    several = {
        "media": "of every picture (or other medium) only the largest activation is taken",
        "sample": "of every sample only the largest activation is taken",
        "position": "one sample may give several",
    }[found.distinct]
    language = found.module == LANGUAGE
    where = f"token group {found.group!r}" if language else "all its real positions"
    box = "The box is the part of the picture that the position's own patch was cut from. "
    parts = [
        f"Shown are {len(found.neurons)} of {total} neurons of the module {found.module!r}."
        f"{how_chosen if len(found.neurons) < total else ''} An activation is the output of the "
        "activation function, before the product with the up branch where there is one; a neuron is "
        f"active where it is above zero. Counted are {positions:,} positions ({where}) of {read:,} samples; {len(found.skipped)} were skipped.",
        "Distribution: the share of positions per bin. Bins are equally wide in the logarithm, on "
        "both sides of zero (the vertical line); pale below it, dark above. All rows of a card have "
        "one scale.",
        f"Examples: the {found.k} largest activations per {found.by}; {several}. "
        f"{box if boxes else ''}Behind a layer of attention a position knows of other places too.",
    ]
    if language:
        turn = (
            " The output is the activation times the up branch; where that is negative, the two "
            "lists change places."
            if model.module(LANGUAGE).gated
            else ""
        )
        parts.append(
            "Promotes, suppresses: the tokens whose logits the neuron's output direction raises and "
            "lowers most through the unembedding, with the final norm's gain folded in: change per "
            f"unit of output, where the residual stream's root mean square is one.{turn} What later "
            "layers make of it is not in this."
        )
    return tuple(parts)


def _about_strips(entries: Iterable[Sequence[Entry]]) -> tuple[str, ...]:
    """How to read the strips, where there are some."""
    every = [one for listed in entries for one in listed]
    units = {one.strip.unit for one in every if one.strip is not None}
    words = any(one.tokens is not None for one in every)  # beside strips alone
    if not units:
        return ()
    kinds = {
        "s": "sounds: the spectrogram (dark is loud, low frequencies below), and under it the "
        "activation at each position, over the stretch of the sound that it stands for; it reads "
        "some hundredths of a second more on both sides",
        "frames": "videos: frames of it, and under them the largest activation among the patches of "
        "each moment",
    }
    said = "; ".join(kinds[unit] for unit in sorted(units, reverse=True))
    return (
        f"Strips show what the neuron does along {said}. A frame marks what the entry is about. "
        f"{'Words of the prompt are the darker, the more active the neuron is on them. ' if words else ''}"
        f"All strips {'and words ' if words else ''}of a card have one scale.",
    )


def _tokens(
    model: HookedMLLM, found: TopActivations, k: int
) -> list[tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]]:
    """Promoted and suppressed tokens of each neuron; nothing outside the language module."""
    if found.module != LANGUAGE:
        return []
    neurons = NeuronSet(found.neurons, found.module, found.shape)
    scores = promoted_tokens(model, neurons, k)

    def listed(ids: Tensor, values: Tensor) -> list[tuple[tuple[str, float], ...]]:
        return [
            tuple((token_text(model.tokenizer, i), v) for i, v in zip(*row, strict=True))
            for row in zip(ids.tolist(), values.tolist(), strict=True)
        ]

    top = listed(scores.top_ids, scores.top)
    return list(zip(top, listed(scores.bottom_ids, scores.bottom), strict=True))
