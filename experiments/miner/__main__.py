"""MINER (arXiv 2410.04819) from end to end: find modality-specific neurons, mask them, report.

    python -m experiments.miner                                      # demo/qwen2-vl and its data
    python -m experiments.miner --model demo/qwen2-audio --quick
    python -m experiments.miner --model Qwen/Qwen2-VL-7B-Instruct --data textvqa=/data/textvqa msvd_qa=/data/msvd

The data are a folder with ``train`` and ``test`` as .parquet or .jsonl (see mmlens.load_samples), or
any of the paper's benchmarks (docs/benchmarks-data.md). A second start with the same folder resumes
where the first one stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mmlens
from experiments.miner import analyses, report
from experiments.miner.config import QUICK, Config, check
from experiments.miner.masks import planned_masks
from experiments.shared import data, output, start
from experiments.shared.collecting import collect_statistics, help_with_statistics
from experiments.shared.config import batching, generation, settled
from mmlens import importance
from mmlens.ablation.effects import plan_table
from mmlens.ablation.evaluate import evaluate
from mmlens.ablation.questions import Questions
from mmlens.data.halves import split, sum_of
from mmlens.data.samples import Sample, take_per_value
from mmlens.errors import MMLensError
from mmlens.hook_names import LANGUAGE
from mmlens.importance import ImportanceScores
from mmlens.importance.mined import Mined
from mmlens.run.folder import Run
from mmlens.streaming.collect import collect_parts
from mmlens.streaming.distributed import rank_and_world
from mmlens.tokens.token_sets import MEDIA_GROUPS, SLOTS

SCORES_FILE = "importance.safetensors"
#: Where a collection in one piece is saved while it runs.
CHECKPOINT = "parts/importance.safetensors"


def main(config: Config) -> None:
    """Run the experiment, or what is left of it."""
    config = settled(config, QUICK)
    check(config)
    run = start.open_run(config, data.data_hashes, help_collecting)
    if run is None:
        return
    if not run.finished("report"):
        run_stages(config, run)
    output.summarise(run, report.sentences(run))


def run_stages(config: Config, run: Run) -> None:
    """Every stage, up to the report; those that an earlier start finished read what it left."""
    with run.stage("load"):
        model = start.load(config.load, run)
        by, chosen = found_on(config)
        datasets = data.chosen_values(config.samples.domains, chosen, "data set")
        questions = asked_of(config, by, datasets)
    if not run.finished("importance"):
        announce(run, config, model, chosen, questions)
    parts = mined_in_parts(run, config, model, chosen)
    scores = sum_of(parts)
    scores.save(run.path(SCORES_FILE))
    statistics = sum_of(
        collect_statistics(
            run, model, chosen, in_parts=False, seed=config.seed, **counting(config, model)
        )
    )

    with run.stage("select"):
        mined = Mined(scores, statistics, model.weight_hash)
        masks = planned_masks(config, model, mined, questions)
        output.save_sets(run, f"{LANGUAGE}-{config.ratio:g}", masks.sets)
    evaluate_and_report(
        analyses.ModalityStudy(
            run=run,
            model=model,
            domains=datasets,
            train=chosen,
            asked=questions.samples,
            seed=config.seed,
            batching=batching(config),
            config=config,
            mined=mined,
            sets=masks.sets,
            masks=masks,
            questions=questions,
        ),
        parts,
    )


def evaluate_and_report(
    study: analyses.ModalityStudy, parts: Sequence[Sequence[ImportanceScores]]
) -> None:
    """Ask every mask its questions, analyse what else was asked for, and write the report."""
    run, config, questions = study.run, study.config, study.questions
    with run.stage("evaluate") as stage:
        answers = evaluate(
            study.model,
            questions.samples,
            study.masks.plan.conditions(),
            answers=run.path("answers.jsonl"),
            metric_name=data.metrics(config),
            batching=study.batching,
            **generation(config),
        )
        stage.tokens += answers.tokens
    with run.stage("masking"):
        table = plan_table(answers.frame, study.masks.plan, questions, questions.cluster_field)
        run.write_csv("masking.csv", table.assign(model=config.load.model))
    sections = analyses.sections(study, parts, answers.frame)
    with run.stage("report"):
        skipped = {**study.mined.scores.skipped, **answers.skipped}
        samples = output.samples_used(
            config, study.train, questions.samples, study.domains, skipped
        )
        report.write(study, sections, samples)


def found_on(config: Config) -> tuple[str, list[Sample]]:
    """The field of the data sets, and the samples that are mined, keyed by it."""
    train = data.read_split(config, "train", limit=config.train_samples)
    by = config.by
    if not by:
        kinds = {media_of(sample) for sample in train}
        by = "media" if len(kinds) > 1 and not data.benchmarks(config) else "domain"
    chosen = keyed(train, by)
    if wanted := config.samples.domains:
        chosen = [sample for sample in chosen if sample.domain in wanted] or chosen
    return by, take_per_value(chosen, "domain", config.train_samples or None, seed=config.seed)


def asked_of(config: Config, by: str, datasets: Sequence[str]) -> Questions:
    """The questions of the data sets that were mined.

    Raises:
        MMLensError: there is none.
    """
    test = keyed(data.read_split(config, "test", limit=config.questions), by)
    asked = [sample for sample in test if sample.domain in datasets]
    if not asked:
        raise MMLensError(
            f"No question of split {config.samples.test_split!r} is of {', '.join(datasets)}, which neurons are found "
            f"on; its questions are of {', '.join(sorted({str(s.domain) for s in test})) or 'nothing'}."
        )
    asked = take_per_value(asked, "domain", config.questions or None, seed=config.seed)
    return Questions.by_field(asked, "domain")


def keyed(samples: Sequence[Sample], by: str) -> list[Sample]:
    """The samples with the name of their data set as their domain."""
    if by == "domain":
        return list(samples)
    name = media_of if by == "media" else lambda sample: str(sample.get(by))
    return [replace(sample, domain=name(sample)) for sample in samples]


def media_of(sample: Sample) -> str:
    """What a question is asked about, in a word: ``image``, ``2 images``, ``video``, ``text``, ..."""
    words = []
    for kind in MEDIA_GROUPS:
        if number := len(getattr(sample, f"{kind}s")):
            words.append(kind if number == 1 else f"{number} {kind}s")
    return " and ".join(words) or "text"


def counting(config: Config, model: mmlens.HookedMLLM) -> dict[str, Any]:
    """What activation statistics count: MINER's seven token sets, as far as the model has them."""
    groups = tuple(g for g in SLOTS if g not in MEDIA_GROUPS or g in model.adapter.modalities)
    return {"modules": (LANGUAGE,), "groups": groups, "batching": batching(config)}


def scoring(config: Config, model: mmlens.HookedMLLM) -> dict[str, Any]:
    """What importance is collected of: the same sets."""
    return {
        "groups": counting(config, model)["groups"],
        "attention_mode": config.attention_mode,
        "batching": batching(config),
    }


def mined_in_parts(
    run: Run, config: Config, model: mmlens.HookedMLLM, samples: Sequence[Sample]
) -> list[list[ImportanceScores]]:
    """Importance in two halves of doubling parts, or in one piece under a launcher."""
    options = scoring(config, model)
    with run.stage("importance"):
        # Two halves need two samples of every data set.
        enough = min(Counter(sample.domain for sample in samples).values()) > 1
        if config.convergence and enough and rank_and_world()[1] == 1:
            run.path("parts").mkdir(exist_ok=True)
            halves = split(samples, levels=4, seed=config.seed)
            return collect_parts(
                model, halves, run.path("parts"), collector=importance.collect, **options
            )
        return [[importance.collect(model, samples, checkpoint=run.path(CHECKPOINT), **options)]]


def help_collecting(config: Config) -> None:
    """What processes other than the first do under a launcher: their share of the samples."""
    model = start.load(config.load)
    _, samples = found_on(config)
    options = scoring(config, model)
    importance.collect(model, samples, checkpoint=config.out / CHECKPOINT, **options)
    help_with_statistics(config.out, model, samples, **counting(config, model))


def announce(
    run: Run,
    config: Config,
    model: mmlens.HookedMLLM,
    samples: Sequence[Sample],
    questions: Questions,
) -> None:
    """Say what the run will take, before the masks are known: as many as will be made."""
    sets, few = len(model.adapter.modalities) + 2, config.questions_few * len(questions.own)
    main = (sets + 1) * (1 + 2 * config.seeds) + 13 * 3 * config.comparison
    compared = 2 * len(config.strategies) * len(config.all_weights) + 3 * len(config.ratios)
    compared += 3 * (3 * (sets + 1) * config.treatments + (sets + 6) * config.mining)
    states = config.states_samples * len(questions.own) + config.contribution_samples
    start.announce(
        run,
        config,
        model,
        questions.samples,
        forwards=2 * len(samples) + 4 * states + config.lens_samples * len(questions.own),
        answers=(1 + main) * len(questions.samples) + compared * few,
        keys=len(questions.own),
        modules=(LANGUAGE,),
    )


if __name__ == "__main__":
    start.command_line(main, Config)
