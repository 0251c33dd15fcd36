"""MMNeuron (arXiv 2406.11193) from end to end: find domain-specific neurons, silence them, report.

    python -m experiments.mmneuron                                   # the demo model and its data
    python -m experiments.mmneuron --model llava-hf/llava-v1.6-mistral-7b-hf --data my/data

The data are a folder with ``train`` and ``test`` as .parquet or .jsonl (see mmlens.load_samples).
A second start with the same folder goes on where the first one stopped.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import tyro

import mmlens
from mmlens import deactivation, plots, report, tables
from mmlens.deactivation import Mask, Questions
from mmlens.demos import demo_data
from mmlens.distributed import from_first, rank_and_world
from mmlens.entropy import Selection, activation_probability, select
from mmlens.errors import MMLensError
from mmlens.evaluate import evaluate
from mmlens.files import read_jsonl, write_json
from mmlens.fingerprint import file_fingerprint
from mmlens.run import Run, about_model
from mmlens.samples import Sample, data_file, load_samples, take_per_value


@dataclass(frozen=True)
class Config:
    """What to run. Everything but ``out`` decides the results and is kept in the manifest."""

    model: str = "demo/llava-next"
    """A shipped demo, a Hugging Face hub id, or a local folder."""
    data: Path | None = None
    """Folder with the splits; default: the demo's own."""
    out: Path = Path("runs/mmneuron")
    """The run folder."""
    train_split: str = "train"
    """Neurons are found on this split, ..."""
    test_split: str = "test"
    """... and silenced on this one."""
    domains: tuple[str, ...] = ()
    """Domains to compare; default: all in the training split."""
    modules: tuple[str, ...] = ("language",)
    """Modules whose neurons are analysed: language, vision, projector."""
    on_path_only: bool = False
    """Leave out neurons that cannot influence the output, such as LLaVA's last CLIP layer."""
    group: str = "prompt"
    """Token group counted in the language module; MMNeuron counts the whole prompt."""
    fractions: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1)
    """Shares of each module's neurons to select."""
    evaluate_fractions: tuple[float, ...] = (0.01,)
    """The ones of them to silence."""
    quantile: float = 0.95
    """Quantile of all activation probabilities that is filter and label bar."""
    train_samples: int = 400
    """Samples per domain to collect on; 0: all."""
    questions: int = 120
    """Questions per domain that its own mask is asked."""
    questions_others: int = 30
    """How many of those the masks of the other domains are asked too."""
    seeds: int = 5
    """Control sets of each kind per mask."""
    full: bool = False
    """Ask every mask every domain's questions: the whole matrix."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """Prompt form; "plain" is MMNeuron's bare <image>\\n{question} of its statistics pass."""
    metric: str = "exact_match"
    """How an answer is scored."""
    max_new_tokens: int = 8
    """Length of an answer at most."""
    token_budget: int = 4096
    """Prompt tokens per batch at most, padding included."""
    max_batch: int = 64
    """Samples per batch at most."""
    max_failures: float = 0.05
    """Share of samples that may be left out for unreadable pictures."""
    seed: int = 0
    """Of the draws of samples and questions."""
    backbone: Literal["auto", "hooked_transformer", "bridge"] = "auto"
    """The language backbone."""
    device: str | None = None
    """Default: CUDA where there is one."""
    dtype: str | None = None
    """Default: bfloat16 on CUDA, float32 on the CPU."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""


def main(config: Config) -> None:
    """Run the experiment, or what is left of it."""
    if rank_and_world()[0] > 0:
        # The first process opens the folder, and may find nothing left to do, before others write.
        if not from_first(None):
            help_collecting(config)
        return
    files = data_files(config)
    settings = {k: v for k, v in asdict(config).items() if k != "out"}
    hashes = {name: file_fingerprint(path) for name, path in files.items()}
    run = Run.open(config.out, {**settings, "data_hash": hashes})
    if from_first(run.finished("report")):
        print(f"{config.out} is finished already; nothing is left to do.")
        summarise(run)
        return

    with run.stage("load"):
        model = load(config)
        run.manifest.update(about_model(model, config.model, config.revision))
        train, test = (load_samples(path) for path in files.values())
        domains = chosen_domains(config, train)
    statistics = collect_statistics(run, config, model, train, domains)
    statistics.check_model(model.weight_hash)

    counted = {m: statistics.counts(m, keys=domains) for m in config.modules}
    probabilities = {m: activation_probability(*counts) for m, counts in counted.items()}
    with run.stage("select"):
        selections = {
            fraction: {
                m: select(
                    *counts,
                    domains,
                    fraction=fraction,
                    quantile=config.quantile,
                    module=m,
                    model_hash=model.weight_hash,
                    among=model.on_path(m) if config.on_path_only else None,
                )
                for m, counts in counted.items()
            }
            for fraction in sorted(config.fractions)
        }
        save_sets(run, selections)
        neurons = tables.neurons_table(selections, probabilities, domains)
        run.write_csv("neurons.csv", neurons)

    questions = Questions.choose(
        test, domains, config.questions, config.questions_others, config.seed
    )
    masks = [
        mask
        for fraction in sorted(config.evaluate_fractions)
        for mask in deactivation.masks_and_controls(
            selections[fraction], probabilities, domains, config.seeds
        )
    ]
    with run.stage("evaluate") as stage:
        answers = evaluate(
            model,
            questions.samples,
            deactivation.study_settings(masks, questions, config.full),
            answers=run.path("answers.jsonl"),
            metric_name=config.metric,
            max_new_tokens=config.max_new_tokens,
            template=config.template,
            token_budget=config.token_budget,
            max_batch=config.max_batch,
            max_failures=config.max_failures,
        )
        stage.tokens += answers.tokens

    with run.stage("report"):
        write_tables(run, config, masks, questions, answers.frame)
        skipped = {**statistics.skipped, **answers.skipped}
        write_report(run, config, selections, neurons, train, questions, skipped, domains)
    summarise(run)


def load(config: Config) -> mmlens.HookedMLLM:
    """The model."""
    return mmlens.load(
        config.model,
        backbone=config.backbone,
        device=config.device,
        dtype=config.dtype,
        revision=config.revision,
    )


def data_files(config: Config) -> dict[str, Path]:
    """The files of both splits."""
    folder = config.data
    if folder is None and (folder := demo_data(config.model)) is None:
        raise MMLensError(f"{config.model} is no demo, so it has no data of its own: give --data.")
    return {split: data_file(folder, split) for split in (config.train_split, config.test_split)}


def chosen_domains(config: Config, train: Sequence[Sample]) -> list[str]:
    """The domains asked for, or all, checked against the data."""
    present = sorted({str(s.get("domain")) for s in train})
    if unknown := [d for d in config.domains if d not in present]:
        raise MMLensError(
            f"There is no domain {unknown[0]!r} in the data; there are {', '.join(present)}."
        )
    return list(config.domains) or present


def collect_statistics(
    run: Run,
    config: Config,
    model: mmlens.HookedMLLM,
    train: Sequence[Sample],
    domains: Sequence[str],
) -> mmlens.NeuronStatistics:
    """Stream the training split once, or read what an earlier start has left."""
    path = run.path("statistics.safetensors")
    alone = rank_and_world()[1] == 1
    if run.finished("collect") and alone:
        return mmlens.NeuronStatistics.load(path)
    with run.stage("collect") as stage:
        statistics = collect(config, model, train, domains)
        if not alone:
            statistics.save(path)
        first = statistics.modules[config.modules[0]]
        stage.tokens = int(first.tokens.sum())
    return statistics


def collect(
    config: Config, model: mmlens.HookedMLLM, train: Sequence[Sample], domains: Sequence[str]
) -> mmlens.NeuronStatistics:
    """One pass over the training split, all processes together."""
    return mmlens.collect(
        model,
        training_samples(config, train, domains),
        modules=config.modules,
        groups=(config.group,),
        template=config.template,
        token_budget=config.token_budget,
        max_batch=config.max_batch,
        max_failures=config.max_failures,
        checkpoint=config.out / "statistics.safetensors",
    )


def training_samples(
    config: Config, train: Sequence[Sample], domains: Sequence[str]
) -> list[Sample]:
    """The samples that neurons are found on."""
    chosen = [s for s in train if s.domain in domains]
    return take_per_value(chosen, "domain", config.train_samples or None, seed=config.seed)


def help_collecting(config: Config) -> None:
    """What processes other than the first do under a launcher: their share of the samples."""
    model = load(config)
    train = load_samples(data_files(config)[config.train_split])
    collect(config, model, train, chosen_domains(config, train))


def save_sets(run: Run, selections: Mapping[float, Mapping[str, Selection]]) -> None:
    """One file per module, fraction and domain, and the thresholds."""
    thresholds = []
    for fraction, by_module in selections.items():
        for module, selection in by_module.items():
            for domain, neurons in selection.sets.items():
                neurons.save(run.path("neurons", f"{module}-{fraction:g}-{domain}.json"))
            thresholds.append(
                {
                    "module": module,
                    "fraction": fraction,
                    "tau": selection.tau,
                    "entropy_cut": selection.cut,
                    "passing": int(selection.passes.sum()),
                    "selected": len(selection.union),
                }
            )
    write_json(run.path("neurons", "thresholds.json"), {"thresholds": thresholds})


def write_tables(
    run: Run, config: Config, masks: Sequence[Mask], questions: Questions, answers: pd.DataFrame
) -> None:
    """accuracy.csv and effects.csv."""
    run.write_csv("accuracy.csv", tables.accuracy_table(answers, masks, questions.samples))
    has_source = all("source" in s.fields for s in questions.samples)
    effects = deactivation.effects_table(
        answers, masks, questions, full=config.full, cluster="source" if has_source else None
    )
    run.write_csv("effects.csv", effects)


def write_report(
    run: Run,
    config: Config,
    selections: Mapping[float, Mapping[str, Selection]],
    neurons: pd.DataFrame,
    train: Sequence[Sample],
    questions: Questions,
    skipped: Mapping[str, str],
    domains: Sequence[str],
) -> None:
    """Figures as pages of their own, and report.html with all of them."""
    smallest = min(config.evaluate_fractions)
    summaries = {
        module: plots.SelectionSummary(
            module=module,
            domains=tuple(domains),
            entropy=one.entropy.numpy(),
            passes=one.passes.numpy(),
            tau=one.tau,
            cut=one.cut,
            n_selected=len(one.union),
        )
        for module, one in selections[smallest].items()
    }
    data = report.ReportData(
        title=f"Domain-specific neurons of {config.model}",
        manifest={k: v for k, v in run.manifest.items() if k != "stages"},
        effects=pd.read_csv(run.path("effects.csv")),
        accuracy=pd.read_csv(run.path("accuracy.csv"), keep_default_na=False),
        neurons=neurons,
        selection=summaries,
        samples=tables.samples_table(
            {
                config.train_split: training_samples(config, train, domains),
                config.test_split: questions.samples,
            },
            domains,
            skipped,
        ),
        stages=run.stages(),
        examples=tables.examples_table(read_jsonl(run.path("answers.jsonl")), questions, smallest),
        domains=list(domains),
        fraction=smallest,
    )
    report.write(data, run.path("report.html"))
    figures = {
        "neurons_per_domain": plots.neurons_per_domain(neurons, smallest, domains=domains),
        "layer_distribution": plots.layer_distribution(
            neurons,
            {module: one.entropy.shape[0] for module, one in summaries.items()},
            smallest,
            domains=domains,
        ),
        **{f"entropy_{m}": plots.entropy_histogram(one) for m, one in summaries.items()},
        **{
            f"effects_{control}": plots.effects_against_controls(
                data.effects, control, domains=domains
            )
            for control in deactivation.CONTROLS
            if data.effects is not None
        },
    }
    run.path("figures").mkdir(exist_ok=True)
    for name, figure in figures.items():
        # plotly.js lies once beside them, so that they open offline.
        figure.write_html(
            run.path("figures", f"{name}.html"), include_plotlyjs="directory", config=report.CONFIG
        )


def summarise(run: Run) -> None:
    """Say what was found, and where it lies."""
    print()
    for verdict in report.verdicts(pd.read_csv(run.path("effects.csv")), fraction=None):
        print(verdict.sentence)
    print(f"\nReport: {run.path('report.html')}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    try:
        main(tyro.cli(Config))
    except MMLensError as error:
        sys.exit(f"error: {error}")
