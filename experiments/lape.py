"""LAPE (arXiv 2402.16438): find language-specific neurons from text alone, silence them, report.

    python -m experiments.lape --model Qwen/Qwen2-VL-2B-Instruct --data my/texts --out runs/lape

The data are a folder with ``train`` and ``test``: as .jsonl or .parquet with the columns id, text and
language, or as folders of one {language}.txt each. The same engine as MMNeuron's, with languages in
the place of domains: activations of the language module are counted on plain text, and perplexity is
measured per language under each language's mask, beside random and frequency-matched controls. The
shipped demo models know one language only: on them this shows that it runs, not what it finds.

A second start with the same folder resumes where the first one stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from torch import Tensor

import mmlens
from experiments.shared import data, output, start
from experiments.shared.collecting import STATISTICS
from experiments.shared.config import LoadSettings
from mmlens import plots
from mmlens.ablation import tables
from mmlens.ablation.effects import effects_table
from mmlens.ablation.likelihood import evaluate_texts, likelihood_table
from mmlens.ablation.masks import domain_masks
from mmlens.ablation.plan import domain_conditions
from mmlens.ablation.questions import Questions
from mmlens.data.samples import Sample, take_per_value
from mmlens.data.texts import chunked, load_texts
from mmlens.entropy import Selection, activation_probability, select
from mmlens.errors import MMLensError
from mmlens.hook_names import LANGUAGE
from mmlens.model.prepare import PLAIN_TEXT
from mmlens.plots.frames import CONTROLS
from mmlens.selection import overlap
from mmlens.storage.fingerprint import data_fingerprint
from mmlens.streaming.batching import Batching


@dataclass(frozen=True)
class Config:
    """What to run. Everything but ``out`` decides the results and is kept in the manifest."""

    load: LoadSettings
    data: Path
    """Folder with the texts of both splits."""
    out: Path = Path("runs/lape")
    """The run folder."""
    train_split: str = "train"
    """Neurons are found on this split, ..."""
    test_split: str = "test"
    """... and silenced on this one."""
    languages: tuple[str, ...] = ()
    """Languages to compare; default: all in the training split."""
    chunk_tokens: int = 512
    """Longer texts are cut into chunks of so many tokens."""
    train_chunks: int = 0
    """Chunks per language to count activations on; 0: all."""
    test_chunks: int = 200
    """Chunks per language to measure perplexity on."""
    group: str = "prompt"
    """Tokens counted: "prompt" is all of them, "text" leaves out special ones."""
    fractions: tuple[float, ...] = (0.01,)
    """Shares of the neurons to select."""
    evaluate_fractions: tuple[float, ...] = (0.01,)
    """The ones of them to silence."""
    quantile: float = 0.95
    """Quantile of all activation probabilities that is filter and label bar."""
    seeds: int = 5
    """Control sets of each kind per mask."""
    token_budget: int = 4096
    """Tokens per batch at most, padding included."""
    max_batch: int = 64
    """Chunks per batch at most."""
    seed: int = 0
    """Of the draws of chunks."""


def main(config: Config) -> None:
    """Run the experiment, or what is left of it."""
    if unknown := set(config.evaluate_fractions) - set(config.fractions):
        raise MMLensError(f"Fraction {min(unknown):g} is to be silenced but not in --fractions.")
    train, test = (load_texts(config.data, s) for s in (config.train_split, config.test_split))
    run = start.open_run(config, lambda _: content_hash(train, test), help_collecting)
    if run is None or run.finished("report"):
        return
    with run.stage("load"):
        model = start.load(config.load, run)
        languages = chosen_languages(config, train)
        train, test = (chunks(config, model, split, languages) for split in (train, test))
    with run.stage("collect") as stage:
        statistics = counted(config, model, train)
        stage.tokens = int(statistics.modules[LANGUAGE].tokens.sum())
    with run.stage("select"):
        counts = statistics.counts(LANGUAGE, keys=languages)
        probabilities = {LANGUAGE: activation_probability(*counts)}
        selections = selected(config, model, counts, languages)
        output.save_selections(run, selections)
        neurons = tables.neurons_table(selections, probabilities, languages)
        run.write_csv("neurons.csv", neurons)

    texts = Questions.choose(test, languages, config.test_chunks, config.test_chunks, config.seed)
    masks = [
        mask
        for fraction in sorted(config.evaluate_fractions)
        for mask in domain_masks(selections[fraction], probabilities, languages, config.seeds)
    ]
    with run.stage("evaluate") as stage:
        results = evaluate_texts(
            model,
            texts.samples,
            domain_conditions(masks, texts, full=True),
            rows=run.path("likelihoods.jsonl"),
            batching=Batching(token_budget=config.token_budget, max_batch=config.max_batch),
        )
        stage.tokens = sum(map(int, results["tokens"]))
    with run.stage("report"):
        run.write_csv("likelihoods.csv", likelihood_table(results, masks, texts.samples))
        tokens = dict(zip(results["id"], map(float, results["tokens"]), strict=True))
        effects = effects_table(results, masks, texts, full=True, weights=tokens)
        run.write_csv("effects.csv", effects)
        output.write_figures(run, figures(config, selections, neurons, effects, languages))
    output.summarise(run, (), f"Tables and figures: {config.out}")


def selected(
    config: Config,
    model: mmlens.HookedMLLM,
    counts: tuple[Tensor, Tensor],
    languages: Sequence[str],
) -> dict[float, dict[str, Selection]]:
    """Fraction -> module -> that share of its neurons with the lowest entropy over languages."""
    found = {}
    for fraction in sorted(config.fractions):
        one = select(
            *counts,
            languages,
            fraction=fraction,
            quantile=config.quantile,
            model_hash=model.weight_hash,
        )
        found[fraction] = {LANGUAGE: one}
    return found


def counted(
    config: Config, model: mmlens.HookedMLLM, train: Sequence[Sample]
) -> mmlens.NeuronStatistics:
    """Activations of the language module on chunks, counted by all processes together."""
    return mmlens.collect(
        model,
        take_per_value(train, "domain", config.train_chunks or None, seed=config.seed),
        groups=(config.group,),
        batching=Batching(PLAIN_TEXT, config.token_budget, config.max_batch),
        checkpoint=config.out / STATISTICS,
    )


def help_collecting(config: Config) -> None:
    """What processes other than the first do under a launcher: their share of the chunks."""
    model, train = start.load(config.load), load_texts(config.data, config.train_split)
    counted(config, model, chunks(config, model, train, chosen_languages(config, train)))


def content_hash(train: Sequence[Sample], test: Sequence[Sample]) -> str:
    """What identifies these texts."""
    return data_fingerprint([[(t.id, t.domain, t.text) for t in split] for split in (train, test)])


def chosen_languages(config: Config, train: Sequence[Sample]) -> list[str]:
    """The requested languages, or all, checked against the data."""
    chosen = data.chosen_values(config.languages, train, "language")
    if len(chosen) < 2:
        raise MMLensError(f"Two languages or more are needed; there is {', '.join(chosen)}.")
    return chosen


def chunks(
    config: Config, model: mmlens.HookedMLLM, texts: Sequence[Sample], languages: Sequence[str]
) -> list[Sample]:
    """The texts of the languages, cut."""
    wanted = [t for t in texts if t.domain in languages]
    return chunked(wanted, model.tokenizer, config.chunk_tokens)


def figures(
    config: Config,
    selections: Mapping[float, Mapping[str, Selection]],
    neurons: pd.DataFrame,
    effects: pd.DataFrame,
    languages: Sequence[str],
) -> dict[str, go.Figure]:
    """The figures, by the names of their pages, at the smallest fraction that is silenced."""
    smallest = min(config.evaluate_fractions)
    one = selections[smallest][LANGUAGE]
    summary = output.selection_summary(LANGUAGE, languages, one, config.quantile)
    found = {"entropy": plots.entropy_histogram(summary)}
    if len(one.union):
        depth = one.entropy.shape[0]
        found |= {
            "neurons_per_language": plots.neurons_per_domain(neurons, smallest, domains=languages),
            "layer_distribution": plots.layer_distribution(
                neurons, depth, smallest, domains=languages
            ),
            "overlap": plots.overlap_heatmap(overlap.overlap_table(one.sets)),
            "combinations": plots.upset(overlap.combinations_table(one.sets), domains=languages),
        }
    found |= {
        f"matrix_{control}": plots.effect_matrix(
            effects, control, smallest, domains=languages, unit=plots.NATS, asked_of="texts"
        )
        for control in CONTROLS
        if config.seeds
    }
    return found


if __name__ == "__main__":
    start.command_line(main, Config)
