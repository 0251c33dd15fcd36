"""Modality separation, MINER's first stage: a prompt's token groups, shown and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd
import torch

from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.model.batch import Inputs
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.prepare import PLAIN_TEXT
from mmlens.plots.frames import GROUP_COUNT_COLUMNS, Row, checked_rows
from mmlens.report.prompt import WRITTEN, Prompt, visible
from mmlens.report.prompt import Piece as PromptPiece
from mmlens.report.sections import Cell, Section, Table, Text
from mmlens.streaming.batching import Batching
from mmlens.streaming.plan import prepared_or_skipped
from mmlens.streaming.sweep import Piece, Sweep
from mmlens.tokens.groups import TokenGroups
from mmlens.tokens.text import token_text
from mmlens.tokens.token_sets import MEDIA_GROUPS, SLOTS, SPLIT_TYPES, split_groups

#: Prompts that the section of a report shows at most.
MOST_PROMPTS = 8


def show_groups(
    model: HookedMLLM, batch: Inputs, row: int = 0, *, title: str | None = None
) -> Prompt:
    """The prompt of one row with its token groups highlighted (methods 3.1).

    Tokens are decoded one by one; a run of placeholders is one piece with its number of tokens;
    padding is left out. A notebook shows it in colours, ``print`` as text, and it is a part that the
    section of a report can hold.

    Args:
        model: the model whose tokenizer and groups are meant.
        batch: a batch, or plain Hugging Face inputs.
        row: the row of the batch.
        title: above it; default: the id of the sample.

    Raises:
        SampleError: no such row, or the model has no tokenizer.
    """
    batch = model.as_batch(batch)
    if not 0 <= row < len(batch):
        raise SampleError(f"The batch has rows 0 to {len(batch) - 1}, and row {row} was asked for.")
    if title is None:
        title = "" if batch.samples is None else f"Sample {batch.samples[row].id}"
    groups, tokenizer = batch.groups, model.tokenizer
    named = _group_names(groups, row)
    pieces: list[PromptPiece] = []
    for position, token in enumerate(batch.input_ids[row].tolist()):
        group = named[position]
        if group is None:
            continue
        last = pieces[-1] if pieces else None
        if group in WRITTEN:
            pieces.append(PromptPiece(group, visible(token_text(tokenizer, token)), position))
        elif last and last.group == group and last.position + last.count == position:
            pieces[-1] = PromptPiece(group, group, last.position, last.count + 1)
        else:
            pieces.append(PromptPiece(group, group, position))
    template = groups.template_text
    return Prompt(title, tuple(pieces), None if template is None else int(template[row].sum()))


def _group_names(groups: TokenGroups, row: int) -> list[str | None]:
    """The base group of each position of a row; None for padding."""
    named: list[str | None] = [None] * groups.shape[1]
    for name, mask in groups.base.items():
        for position in mask[row].nonzero()[:, 0].tolist():
            named[position] = name
    return named


def group_counts(
    model: HookedMLLM,
    samples: Sequence[Sample],
    *,
    by: str = "domain",
    batching: Batching = Batching(),  # noqa: B008  (frozen)
) -> pd.DataFrame:
    """Tokens of each group in the prompts of each data set; prompts are made, nothing is run.

    Columns: ``dataset``, ``group``, ``n_samples``, ``n_skipped`` (unreadable samples, left out),
    ``tokens`` (their sum), ``mean_tokens`` (per sample, those without the group counted as 0),
    ``share`` (of the prompts' tokens), ``n_without`` (samples without the group). A row per data set
    and group that the model has, and per union ``special_text`` and ``prompt``, in the order of
    :data:`mmlens.tokens.token_sets.SLOTS` (methods 3.1); data sets in alphabetical order.

    Args:
        model: makes the prompts.
        samples: of any number of data sets; each is prepared by itself and not kept.
        by: the field of the samples whose values are the data sets.
        batching: prompt form, allowed failures and progress bar.

    Raises:
        SampleError: no samples, or one without the field.
        TooManyFailuresError: more samples unreadable than the cap allows.
    """
    if not samples:
        raise SampleError("Groups are counted in samples; none was given.")
    names = {sample.id: str(sample.get(by)) for sample in samples}
    found: dict[str, list[dict[str, int]]] = {name: [] for name in names.values()}
    alone = [Piece(names[sample.id], (sample,), 1) for sample in samples]
    sweep = Sweep(model, alone, batching, samples=len(samples), description="groups")
    for piece, batch in sweep:
        kept = [s for s in SLOTS if s not in MEDIA_GROUPS or s in batch.groups.base]
        counts = batch.groups.stack(kept).sum((1, 2)).tolist()
        found[piece.work].append(dict(zip(kept, counts, strict=True)))
    left = Counter(names[one] for one in sweep.skipped)
    lines = [line for name in sorted(found) for line in _counted(name, found[name], left[name])]
    return pd.DataFrame(lines, columns=list(GROUP_COUNT_COLUMNS))


def _counted(dataset: str, rows: Sequence[dict[str, int]], skipped: int) -> list[dict[str, object]]:
    """The rows of one data set."""
    lines = []
    for group in rows[0] if rows else ():
        counts = torch.tensor([row[group] for row in rows])
        tokens, prompt = int(counts.sum()), sum(row["prompt"] for row in rows)
        lines.append(
            {
                "dataset": dataset,
                "group": group,
                "n_samples": len(rows),
                "n_skipped": skipped,
                "tokens": tokens,
                "mean_tokens": tokens / len(rows),
                "share": tokens / prompt,
                "n_without": int((counts == 0).sum()),
            }
        )
    return lines


# In a report


def separation_section(
    model: HookedMLLM,
    samples: Sequence[Sample],
    *,
    by: str = "domain",
    batching: Batching = Batching(),  # noqa: B008  (frozen)
) -> Section:
    """The first stage in a report: tokens per group and data set, the split types, some prompts.

    Prompts: the first sample of each data set, and the first of each further combination of media,
    at most :data:`MOST_PROMPTS`. Arguments and errors as in :func:`group_counts`.
    """
    counts = group_counts(model, samples, by=by, batching=batching)
    prompts: list[Prompt] = []
    for sample in _shown(samples, by):
        batch, _ = prepared_or_skipped(model, [sample], batching.template)
        if batch is not None and len(prompts) < MOST_PROMPTS:
            title = f"{sample.get(by)}, sample {sample.id}"
            prompts.append(show_groups(model, batch, title=title))
    text = "Every token of a prompt is in one group, by its id alone."
    if batching.template != PLAIN_TEXT:
        text += " Text includes what the chat template writes: role names, line ends and the system prompt."
    note = (
        "Tokens per sample, and their share of all the prompts' tokens in brackets; without: samples "
        "that have no token of the group. special_text is the union of special and text, prompt that "
        "of all groups."
    )
    return Section(
        "Tokens and their groups",
        text,
        [
            Table("Tokens per group", counts_table(counts)),
            Text(note, "note"),
            Table("Split types, tokens per sample", splits_table(counts)),
            *prompts,
        ],
    )


def _shown(samples: Sequence[Sample], by: str) -> list[Sample]:
    """The first sample of each data set, then the first of each other combination of media."""
    firsts = {str(sample.get(by)): sample for sample in reversed(samples)}
    chosen = [firsts[name] for name in sorted(firsts)]
    kinds = {_media(sample) for sample in chosen}
    for sample in samples:
        if _media(sample) not in kinds:
            kinds.add(_media(sample))
            chosen.append(sample)
    return chosen


def _media(sample: Sample) -> tuple[int, int, int]:
    return len(sample.images), len(sample.videos), len(sample.audios)


def counts_table(counts: pd.DataFrame) -> pd.DataFrame:
    """The frame of :func:`group_counts` as it is read: a row per data set, a column per group."""
    rows = checked_rows(counts, GROUP_COUNT_COLUMNS, "group counts")
    groups = list(dict.fromkeys(row["group"] for row in rows))
    cells = {(row["dataset"], row["group"]): row for row in rows}
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        here = [cells[dataset, group] for group in groups]
        lines.append([dataset, f"{here[0]['n_samples']:,}", *map(_count_cell, here)])
    return pd.DataFrame(lines, columns=["data set", "samples", *groups])


def _count_cell(row: Row) -> Cell:
    without = f"\n{row['n_without']:,} without" if row["n_without"] else ""
    return Cell(f"{row['mean_tokens']:,.1f} ({100 * row['share']:.0f}%){without}", "lines")


def splits_table(counts: pd.DataFrame) -> pd.DataFrame:
    """The split types, and the mean tokens per sample of each of their sets over all data."""
    tokens: dict[str, int] = {}
    samples = 0
    for row in checked_rows(counts, GROUP_COUNT_COLUMNS, "group counts"):
        tokens[row["group"]] = tokens.get(row["group"], 0) + row["tokens"]
        samples += row["n_samples"] if row["group"] == "prompt" else 0
    media = [name for name in MEDIA_GROUPS if tokens.get(name)]
    lines = []
    for split in SPLIT_TYPES:
        sets = [f"{name} {tokens[name] / samples:,.1f}" for name in split_groups(split, media)]
        lines.append([split, str(len(sets)), Cell(", ".join(sets), "text")])
    return pd.DataFrame(lines, columns=["split type", "sets", "tokens per sample"])
