"""MMNeuron (arXiv 2406.11193) from end to end: find domain-specific neurons, silence them, report.

    python -m experiments.mmneuron                                   # the demo model and its data
    python -m experiments.mmneuron --model demo/instructblip --quick
    python -m experiments.mmneuron --model llava-hf/llava-v1.6-mistral-7b-hf --data my/data
    python -m experiments.mmneuron --model ... --data vqav2=/data/vqav2 docvqa=/data/docvqa

The data are a folder with ``train`` and ``test`` as .parquet or .jsonl (see mmlens.load_samples), or
any of the paper's five benchmarks (docs/benchmarks-data.md). A second start with the same folder
goes on where the first one stopped.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import tyro

import mmlens
from experiments import mmneuron_analyses as analyses
from experiments.benchmark_data import named_folders
from mmlens import datasets, deactivation, plots, report, stability, tables
from mmlens.deactivation import Mask, Questions
from mmlens.demos import demo_data
from mmlens.distributed import from_first, rank_and_world
from mmlens.entropy import Selection, Unit, activation_probability, select
from mmlens.errors import MMLensError
from mmlens.estimate import estimate
from mmlens.evaluate import evaluate
from mmlens.files import read_jsonl, write_json
from mmlens.fingerprint import data_fingerprint, file_fingerprint
from mmlens.hooks.editing import Site
from mmlens.interventions import Intervention, Kind
from mmlens.reporting.sections import Figure, Section
from mmlens.run import Run, about_model
from mmlens.samples import Sample, data_file, load_samples, take_per_value
from mmlens.stopping import within

#: What ``--quick`` asks for, where nothing else was asked.
QUICK: Mapping[str, Any] = {
    "train_samples": 100,
    "questions": 30,
    "questions_others": 8,
    "questions_modules": 15,
    "seeds": 3,
    "deviation_samples": 6,
    "lens_samples": 12,
    "cards": 3,
}


@dataclass(frozen=True)
class Config:
    """What to run. Everything but ``out`` decides the results and is kept in the manifest."""

    model: str = "demo/llava-next"
    """A shipped demo, a Hugging Face hub id, or a local folder."""
    data: tuple[str, ...] = ()
    """Folder with the splits, or benchmark=folder for each of lingoqa, pmcvqa, rsvqa, vqav2, docvqa;
    default: the demo's own."""
    out: Path = Path("runs/mmneuron")
    """The run folder."""
    train_split: str = "train"
    """Neurons are found on this split, ..."""
    test_split: str = "test"
    """... and silenced on this one."""
    domains: tuple[str, ...] = ()
    """Domains to compare; default: all in the training split."""
    quick: bool = False
    """Minutes in place of hours: fewer samples and seeds wherever no number is given."""
    modules: tuple[str, ...] = ()
    """Modules whose neurons are analysed: language, vision, projector, qformer, query; default: all
    that the model has."""
    site: Site = "act"
    """Where a neuron counts as active: its activation, or the product with the up branch ("glu")."""
    unit: Unit = "nats"
    """Of entropies."""
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
    stop_after: int = 0
    """Vision-tower tokens after which a domain has enough; MMNeuron's code stops at 100000. 0: never."""
    questions: int = 120
    """Questions per domain that its own mask is asked."""
    questions_others: int = 30
    """How many of those the masks of the other domains are asked too."""
    seeds: int = 5
    """Control sets of each kind per mask."""
    full: bool = False
    """Ask every mask every domain's questions: the whole matrix."""
    intervention: Kind = "zero"
    """What is done to the neurons of a mask; see mmlens.Intervention."""
    amount: float | None = None
    """Factor, value or strength of interventions that take one."""
    questions_modules: int = 40
    """Questions per domain on which each module is silenced alone; 0: none."""
    deviation_samples: int = 12
    """Questions per domain on which hidden states are compared; 0: none."""
    stability: bool = True
    """Collect in parts that double, and select on each (not under a launcher, nor with stop_after)."""
    lens_samples: int = 40
    """Questions per domain that the logit lens reads; 0: none."""
    lens_pictures: int = 1
    """Pictures per domain that it is drawn over."""
    cards: int = 5
    """Neurons of each set that get a card; 0: none. Not under a launcher."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """Prompt form; "plain" is MMNeuron's bare <image>\\n{question} of its statistics pass."""
    prompt: Literal["paper", "instructblip", "bare"] = "paper"
    """The benchmarks' wording."""
    subset: Literal["seed", "paper"] = "seed"
    """Which questions of a benchmark: drawn with the seed, or the first of MMNeuron's own order."""
    metric: str = ""
    """How an answer is scored; default: exact_match, and of a benchmark its official metric."""
    paper_metrics: bool = False
    """Score benchmarks as MMNeuron's code does."""
    temperature: float = 0.0
    """0: greedy answers; MMNeuron's code samples at 0.9."""
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
    config = settled(config)
    if rank_and_world()[0] > 0:
        # The first process opens the folder, and may find nothing left to do, before others write.
        if not from_first(None):
            help_collecting(config)
        return
    settings = {k: v for k, v in asdict(config).items() if k != "out"}
    run = Run.open(config.out, {**settings, "data_hash": data_hashes(config)})
    if from_first(run.finished("report")):
        print(f"{config.out} is finished already; nothing is left to do.")
        summarise(run)
        return

    with run.stage("load"):
        model = load(config)
        run.manifest.update(about_model(model, config.model, config.revision))
        train, test = read_split(config, 0), read_split(config, 1)
        domains = chosen_domains(config, train)
        modules = list(config.modules or model.modules)
        chosen = training_samples(config, model, train, domains)
        questions = Questions.choose(
            test, domains, config.questions, config.questions_others, config.seed
        )
    if not run.finished("collect"):
        announce(run, config, model, chosen, questions, modules)
    parts = collect_statistics(run, config, model, chosen, modules)
    statistics = stability.sum_of(parts)
    statistics.save(run.path("statistics.safetensors"))
    statistics.check_model(model.weight_hash)

    counted = {m: statistics.counts(m, keys=domains) for m in modules}
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

    done = Intervention(config.intervention, config.amount)
    masks = [
        mask
        for fraction in sorted(config.evaluate_fractions)
        for mask in deactivation.masks_and_controls(
            selections[fraction], probabilities, domains, config.seeds, done
        )
    ]
    options = batching(config)
    answering = {
        "metric_name": metrics(config),
        "max_new_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "seed": config.seed,
        "statistics": statistics,
    }
    with run.stage("evaluate") as stage:
        answers = evaluate(
            model,
            questions.samples,
            deactivation.study_settings(masks, questions, config.full),
            answers=run.path("answers.jsonl"),
            **options,
            **answering,
        )
        stage.tokens += answers.tokens
    study = analyses.Study(
        run=run,
        model=model,
        domains=domains,
        selections=selections[min(config.evaluate_fractions)],
        probabilities=probabilities,
        train=chosen,
        questions=questions,
        seed=config.seed,
        options=options,
        answering=answering,
    )
    sections = further_sections(config, study, masks, neurons, parts)
    with run.stage("report"):
        write_tables(run, config, masks, questions, answers.frame)
        skipped = {**statistics.skipped, **answers.skipped}
        write_report(
            run, config, selections, neurons, chosen, questions, skipped, domains, sections
        )
    summarise(run)


def settled(config: Config) -> Config:
    """The configuration with what ``--quick`` asks for."""
    if not config.quick:
        return config
    plain = {field.name: field.default for field in fields(Config)}
    return replace(config, **{k: v for k, v in QUICK.items() if getattr(config, k) == plain[k]})


def batching(config: Config) -> dict[str, Any]:
    """How samples are made into prompts and batches."""
    return {
        "template": config.template,
        "token_budget": config.token_budget,
        "max_batch": config.max_batch,
        "max_failures": config.max_failures,
    }


def announce(
    run: Run,
    config: Config,
    model: mmlens.HookedMLLM,
    chosen: Sequence[Sample],
    questions: Questions,
    modules: Sequence[str],
) -> None:
    """Say what the run will take before it takes it."""
    domains, own = len(questions.own), sum(map(len, questions.own.values()))
    others = sum(map(len, questions.shared.values())) if not config.full else own
    sets = 1 + 2 * config.seeds
    fractions = len(config.evaluate_fractions)
    asked = own + fractions * sets * (own + (domains - 1) * others + own)
    alone = len(analyses.combinations_of(modules)) * min(own, domains * config.questions_modules)
    asked += alone * (1 + config.seeds)
    forwards = len(chosen) + domains * (
        config.lens_samples
        + config.deviation_samples * (2 * sets)
        + (config.cards > 0) * analyses.CARD_SAMPLES
    )
    found = estimate(
        model,
        questions.samples,
        forwards=forwards,
        answers=asked,
        keys=domains,
        modules=modules,
        max_new_tokens=config.max_new_tokens,
        **batching(config),
    )
    run.manifest["estimate"] = asdict(found)
    run.save()
    print(found.sentence, flush=True)


def further_sections(
    config: Config,
    study: analyses.Study,
    masks: Sequence[Mask],
    neurons: pd.DataFrame,
    parts: Sequence[Sequence[mmlens.NeuronStatistics]],
) -> list[Section]:
    """Every analysis that was asked for, in the order of the report."""
    sections: list[Section | None] = [analyses.sets_section(study)]
    if config.questions_modules:
        sections.append(analyses.modules_section(study, config.questions_modules, config.seeds))
    if config.deviation_samples:
        sections.append(analyses.deviation_section(study, masks, config.deviation_samples))
    if config.lens_samples:
        sections.append(
            analyses.lens_section(study, neurons, config.lens_samples, config.lens_pictures)
        )
    if len(parts) > 1:
        sections.append(analyses.stability_section(study, parts, config.group, config.quantile))
    # Cards are gathered by all processes together, and the others have gone.
    if config.cards and rank_and_world()[1] == 1:
        sections.append(analyses.cards_section(study, config.cards))
    return [section for section in sections if section is not None]


def load(config: Config) -> mmlens.HookedMLLM:
    """The model."""
    return mmlens.load(
        config.model,
        backbone=config.backbone,
        device=config.device,
        dtype=config.dtype,
        revision=config.revision,
    )


def benchmarks(config: Config) -> Mapping[str, Path]:
    """The benchmarks that ``--data`` names, with their folders."""
    if not any("=" in one for one in config.data):
        return {}
    return named_folders(config.data)


def data_folder(config: Config) -> Path:
    """The one folder of the data, where they are no benchmarks."""
    if len(config.data) > 1:
        raise MMLensError(
            f"--data takes one folder, or benchmark=folder for each; given: {' '.join(config.data)}."
        )
    if config.data:
        return Path(config.data[0])
    if (folder := demo_data(config.model)) is None:
        raise MMLensError(f"{config.model} is no demo, so it has no data of its own: give --data.")
    return folder


def data_hashes(config: Config) -> dict[str, str]:
    """What tells these data from others: the files' contents; of a benchmark its small files'."""
    found = {}
    for name, folder in benchmarks(config).items():
        files = sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".csv", ".parquet"))
        found[name] = data_fingerprint([[p.name, p.stat().st_size] for p in files])
    if found:
        return found
    splits = (config.train_split, config.test_split)
    folder = data_folder(config)
    return {split: file_fingerprint(data_file(folder, split)) for split in splits}


def read_split(config: Config, which: Literal[0, 1]) -> list[Sample]:
    """The samples that neurons are found on (0), or that are asked (1)."""
    named = benchmarks(config)
    if not named:
        return load_samples(data_folder(config), (config.train_split, config.test_split)[which])
    samples = []
    for name, folder in named.items():
        samples += datasets.read(
            name,
            folder,
            datasets.DATASETS[name].paper_splits[which],
            # The paper's statistics pass asks the bare question (methods 2.5).
            prompt="bare" if which == 0 else config.prompt,
            subset=config.subset,
            limit=(config.train_samples, config.questions)[which] or None,
            seed=config.seed,
            scored=which == 1,
        )
    return samples


def metrics(config: Config) -> str | dict[str, str]:
    """How answers are scored."""
    named = benchmarks(config)
    if config.metric or not named:
        return config.metric or "exact_match"
    return datasets.metrics_of(named, as_paper=config.paper_metrics)


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
    chosen: Sequence[Sample],
    modules: Sequence[str],
) -> list[list[mmlens.NeuronStatistics]]:
    """Stream the training samples once: in two halves of doubling parts, or in one piece."""
    alone = rank_and_world()[1] == 1
    options = {**batching(config), "modules": modules, "groups": (config.group,)}
    options["site"] = config.site
    with run.stage("collect") as stage:
        if alone and config.stability and not config.stop_after:
            run.path("parts").mkdir(exist_ok=True)
            halves = stability.split(chosen, seed=config.seed)
            parts = stability.collect_parts(model, halves, run.path("parts"), **options)
        else:
            path = run.path("statistics.safetensors")
            parts = [[mmlens.collect(model, chosen, checkpoint=path, **options)]]
        first = stability.sum_of(parts).modules[modules[0]]
        stage.tokens = int(first.tokens.sum())
    return parts


def training_samples(
    config: Config, model: mmlens.HookedMLLM, train: Sequence[Sample], domains: Sequence[str]
) -> list[Sample]:
    """The samples that neurons are found on."""
    chosen = [s for s in train if s.domain in domains]
    chosen = take_per_value(chosen, "domain", config.train_samples or None, seed=config.seed)
    if not config.stop_after:
        return chosen
    return list(within(model, chosen, {"vision": config.stop_after}, "domain", config.template))


def help_collecting(config: Config) -> None:
    """What processes other than the first do under a launcher: their share of the samples."""
    model = load(config)
    train = read_split(config, 0)
    mmlens.collect(
        model,
        training_samples(config, model, train, chosen_domains(config, train)),
        modules=list(config.modules or model.modules),
        groups=(config.group,),
        site=config.site,
        checkpoint=config.out / "statistics.safetensors",
        **batching(config),
    )


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
    chosen: Sequence[Sample],
    questions: Questions,
    skipped: Mapping[str, str],
    domains: Sequence[str],
    sections: Sequence[Section],
) -> None:
    """Figures as pages of their own, and report.html with all of them."""
    smallest = min(config.evaluate_fractions)
    summaries = {
        module: plots.SelectionSummary(
            module=module,
            domains=tuple(domains),
            entropy=one.in_unit(config.unit).entropy.numpy(),
            passes=one.passes.numpy(),
            tau=one.tau,
            cut=one.in_unit(config.unit).cut,
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
                config.train_split: chosen,
                config.test_split: questions.samples,
            },
            domains,
            skipped,
        ),
        stages=run.stages(),
        examples=tables.examples_table(read_jsonl(run.path("answers.jsonl")), questions, smallest),
        domains=list(domains),
        fraction=smallest,
        more=sections,
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
        **{p.name: p.figure for s in sections for p in s.parts if isinstance(p, Figure)},
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
