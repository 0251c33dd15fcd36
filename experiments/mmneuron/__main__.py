"""MMNeuron (arXiv 2406.11193) from end to end: find domain-specific neurons, silence them, report.

    python -m experiments.mmneuron                                   # the demo model and its data
    python -m experiments.mmneuron --model demo/instructblip --quick
    python -m experiments.mmneuron --model llava-hf/llava-v1.6-mistral-7b-hf --data my/data
    python -m experiments.mmneuron --model ... --data vqav2=/data/vqav2 docvqa=/data/docvqa

The data are a folder with ``train`` and ``test`` as .parquet or .jsonl (see mmlens.load_samples), or
any of the paper's five benchmarks (docs/benchmarks-data.md). A second start with the same folder
resumes where the first one stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

import mmlens
from experiments.mmneuron import analyses, report
from experiments.mmneuron.config import QUICK, Config
from experiments.shared import data, output, start
from experiments.shared.collecting import collect_statistics, help_with_statistics
from experiments.shared.config import batching, generation, settled
from experiments.shared.sections import CARD_SAMPLES, lens_section
from mmlens.ablation import tables
from mmlens.ablation.evaluate import Answers, evaluate
from mmlens.ablation.intervention import Intervention
from mmlens.ablation.masks import Mask, domain_masks
from mmlens.ablation.plan import domain_conditions
from mmlens.ablation.questions import Questions
from mmlens.data.halves import sum_of
from mmlens.data.samples import Sample, take_per_value
from mmlens.entropy import Selection, activation_probability, select
from mmlens.report.sections import Section
from mmlens.run.folder import Run
from mmlens.streaming.distributed import rank_and_world
from mmlens.streaming.token_limit import within


def main(config: Config) -> None:
    """Run the experiment, or what is left of it."""
    config = settled(config, QUICK)
    run = start.open_run(config, data.data_hashes, help_collecting)
    if run is None:
        return
    analyses.refuse_silenced(run, intervention(config))
    if not run.finished("report"):
        run_stages(config, run)
    output.summarise(run, report.sentences(run))


def run_stages(config: Config, run: Run) -> None:
    """Every stage, up to the report; those that an earlier start finished read what it left."""
    with run.stage("load"):
        model = start.load(config.load, run)
        train, test = found_on(config), data.read_split(config, "test", limit=config.questions)
        domains = data.chosen_values(config.samples.domains, train)
        modules = list(config.modules or model.modules)
        chosen = training_samples(config, model, train, domains)
        questions = Questions.choose(
            test, domains, config.questions, config.questions_others, config.seed
        )
    if not run.finished("collect"):
        announce(run, config, model, chosen, questions, modules)
    parts = collect_statistics(
        run,
        model,
        chosen,
        in_parts=config.stability and not config.stop_after,
        seed=config.seed,
        **counting(config, modules),
    )
    statistics = sum_of(parts)

    with run.stage("select"):
        counted = {m: statistics.counts(m, keys=domains) for m in modules}
        probabilities = {m: activation_probability(*counts) for m, counts in counted.items()}
        selections = {
            fraction: selected(config, model, counted, domains, fraction)
            for fraction in sorted(config.fractions)
        }
        output.save_selections(run, selections)
        neurons = tables.neurons_table(selections, probabilities, domains)
        run.write_csv("neurons.csv", neurons)

    study = analyses.DomainStudy(
        run=run,
        model=model,
        domains=domains,
        train=chosen,
        asked=questions.samples,
        seed=config.seed,
        batching=batching(config),
        selections=selections[min(config.evaluate_fractions)],
        probabilities=probabilities,
        questions=questions,
        statistics=statistics,
        intervention=intervention(config),
        answering={"metric_name": data.metrics(config), **generation(config)},
    )
    evaluate_and_report(config, study, selections, neurons, parts)


def evaluate_and_report(
    config: Config,
    study: analyses.DomainStudy,
    selections: Mapping[float, Mapping[str, Selection]],
    neurons: pd.DataFrame,
    parts: Sequence[Sequence[mmlens.NeuronStatistics]],
) -> None:
    """Ask every mask its questions, analyse what else was asked for, and write the report."""
    masks = [
        mask
        for fraction in sorted(config.evaluate_fractions)
        for mask in domain_masks(
            selections[fraction],
            study.probabilities,
            study.domains,
            config.seeds,
            study.intervention,
        )
    ]
    answers = asked(study, masks, full=config.full)
    sections = further_sections(config, study, masks, parts)
    with study.run.stage("report"):
        report.write_tables(study, masks, answers.frame, full=config.full)
        skipped = {**study.statistics.skipped, **answers.skipped}
        samples = output.samples_used(config, study.train, study.asked, study.domains, skipped)
        report.write(config, study, neurons, samples, sections)


def found_on(config: Config) -> list[Sample]:
    """The data that neurons are found on."""
    # The paper's statistics pass asks the bare question (methods 2.5).
    return data.read_split(config, "train", limit=config.train_samples, prompt="bare")


def training_samples(
    config: Config, model: mmlens.HookedMLLM, train: Sequence[Sample], domains: Sequence[str]
) -> list[Sample]:
    """Those of the domains, drawn as the settings say."""
    chosen = [s for s in train if s.domain in domains]
    chosen = take_per_value(chosen, "domain", config.train_samples or None, seed=config.seed)
    if not config.stop_after:
        return chosen
    limits, template = {"vision": config.stop_after}, config.batches.template
    return list(within(model, chosen, limits, "domain", template))


def counting(config: Config, modules: Sequence[str]) -> dict[str, Any]:
    """What is counted on the training samples."""
    return {
        "modules": modules,
        "groups": (config.group,),
        "site": config.site,
        "batching": batching(config),
    }


def help_collecting(config: Config) -> None:
    """What processes other than the first do under a launcher: their share of the samples."""
    model = start.load(config.load)
    train = found_on(config)
    chosen = training_samples(
        config, model, train, data.chosen_values(config.samples.domains, train)
    )
    options = counting(config, list(config.modules or model.modules))
    help_with_statistics(config.out, model, chosen, **options)


def announce(
    run: Run,
    config: Config,
    model: mmlens.HookedMLLM,
    chosen: Sequence[Sample],
    questions: Questions,
    modules: Sequence[str],
) -> None:
    """Say what the run will take: every mask and control is asked its questions."""
    domains, own = len(questions.own), sum(map(len, questions.own.values()))
    others = sum(map(len, questions.shared.values())) if not config.full else own
    sets = 1 + 2 * config.seeds
    fractions = len(config.evaluate_fractions)
    asked = own + fractions * sets * (own + (domains - 1) * others + own)
    alone = len(analyses.combinations_of(modules)) * min(own, domains * config.questions_modules)
    asked += alone * (1 + config.seeds)
    forwards = len(chosen) + domains * (
        config.lens_samples
        + config.deviation_samples * 2 * sets
        + (config.cards > 0) * CARD_SAMPLES
    )
    start.announce(
        run,
        config,
        model,
        questions.samples,
        forwards=forwards,
        answers=asked,
        keys=domains,
        modules=modules,
    )


def selected(
    config: Config,
    model: mmlens.HookedMLLM,
    counted: Mapping[str, tuple[Tensor, Tensor]],
    domains: Sequence[str],
    fraction: float,
) -> dict[str, Selection]:
    """Each module's share of neurons with the lowest entropy over domains."""
    return {
        module: select(
            *counts,
            domains,
            fraction=fraction,
            quantile=config.quantile,
            module=module,
            model_hash=model.weight_hash,
            among=model.on_path(module) if config.on_path_only else None,
        )
        for module, counts in counted.items()
    }


def intervention(config: Config) -> Intervention:
    """What is done to the neurons of every mask."""
    return Intervention(config.intervention, config.amount)


def asked(study: analyses.DomainStudy, masks: Sequence[Mask], *, full: bool) -> Answers:
    """Every question, put to the untouched model and under every mask that it is for."""
    with study.run.stage("evaluate") as stage:
        answers = evaluate(
            study.model,
            study.asked,
            domain_conditions(masks, study.questions, full),
            answers=study.run.path("answers.jsonl"),
            statistics=study.statistics,
            batching=study.batching,
            **study.answering,
        )
        stage.tokens += answers.tokens
    return answers


def further_sections(
    config: Config,
    study: analyses.DomainStudy,
    masks: Sequence[Mask],
    parts: Sequence[Sequence[mmlens.NeuronStatistics]],
) -> list[Section]:
    """Every requested analysis, in the order of the report."""
    sections: list[Section | None] = [analyses.sets_section(study)]
    if config.questions_modules:
        sections.append(analyses.modules_section(study, config.questions_modules, config.seeds))
    if config.deviation_samples:
        sections.append(analyses.deviation_section(study, masks, config.deviation_samples))
    if config.lens_samples:
        sets = analyses.language_sets(study)
        sections.append(lens_section(study, config.lens_samples, config.lens_pictures, sets=sets))
    if len(parts) > 1:
        sections.append(analyses.stability_section(study, parts, config.group, config.quantile))
    # Cards are gathered by all processes together, but the others have finished.
    if config.cards and rank_and_world()[1] == 1:
        sections.append(analyses.cards_section(study, config.cards))
    return [section for section in sections if section is not None]


if __name__ == "__main__":
    start.command_line(main, Config)
