"""What the experiments share: settings, data, run folder, launcher, estimate, analyses, output.

An experiment is a dataclass of settings and a ``main(config)``, readable top to bottom::

    @dataclass(frozen=True)
    class Own(What):                       # its own settings, between the shared ones in --help
        ratio: float = 0.02
        ...

    @dataclass(frozen=True)
    class Config(CommonConfig, Own):       # other defaults and sentences of shared settings
        out: Path = Path("runs/miner")
        ...

    def main(config: Config) -> None:
        config = settled(config, QUICK)                         # --quick
        run = open_run(config, data_hashes, help_collecting)    # launcher: the first process alone
        if run is None:                                         # ... goes on
            return
        if run.finished("report"):                              # said already
            summarise(run, sentences)
            return
        with run.stage("load"):
            model = load(config, run)                           # about_model into the manifest
            train = read_split(config, "train", limit=..., prompt=...)
            test = read_split(config, "test", limit=...)
            domains = chosen_values(config.domains, train)
        announce(run, config, model, test, forwards=..., answers=..., keys=..., modules=...)
        ...                                                     # stages and tables, its own
        study = Study(run, model, domains, train, test, config.seed, batching(config))
        sections = [overlap_section(study, sets, labels, text), lens_section(study, ...), ...]
        with run.stage("report"):
            samples_used(...), about_run(run), run.stages()     # for the report
            write_figures(run, figures, sections)
        summarise(run, sentences)

    if __name__ == "__main__":
        command_line(main, Config)                              # errors are one sentence, exit 1

Settings (:mod:`experiments.shared.config`)
    ``CommonConfig``: model, data, out, train_split, test_split, domains, quick (``What``); template,
    prompt, subset, metric, paper_metrics, temperature, max_new_tokens, token_budget, max_batch,
    max_failures, seed, backbone, device, dtype, revision (``How``). How many samples, questions and
    control seeds is each experiment's own. A shared setting with another default is written in
    ``Config``, never in ``Own``, where it would be lost.
    ``settled(config, quick)``; ``settings(config)`` for the manifest; ``batching(config)``: options
    of collect, lens, cards; with ``generation(config)`` and ``metric_name=metrics(config)`` those of
    :func:`mmlens.ablation.evaluate.evaluate`.
Data, whatever the model (:mod:`experiments.shared.data`)
    ``benchmarks(config)``, ``data_folder(config)``, ``data_hashes(config)``,
    ``read_split(config, "train" | "test", *, limit, prompt, options)``, ``metrics(config)``,
    ``chosen_values(asked, samples, what="domain")``.
Start (:mod:`experiments.shared.start`)
    ``command_line(main, Config)``, ``open_run(config, data_hash, helping)``, ``load(config, run)``,
    ``announce(run, config, model, samples, *, forwards, answers, keys, modules)``.
Activation statistics (:mod:`experiments.shared.collecting`)
    ``collect_statistics(run, model, samples, *, modules, in_parts, seed, **options)``: stage
    ``collect``; ``help_with_statistics(out, model, samples, **options)`` on other processes. Both
    write ``STATISTICS``.
Analyses (:mod:`experiments.shared.study`, :mod:`experiments.shared.sections`)
    ``Study(run, model, domains, train, asked, seed, options)`` with ``.some(per_domain)`` and
    ``.table(name, stage, make)``: a table that is read where its stage is finished.
    Sets go by page (a module, or any name fit for a file's) and label (a domain, a modality, ...):
    ``overlap_section(study, sets, labels, text)``,
    ``stability_section(study, modules, labels, make, text)``,
    ``lens_section(study, per_domain, pictures, *, sets, whose)``,
    ``cards_section(study, per_set, sets, *, title, probabilities, **options)``, on ``CARD_SAMPLES``
    samples per domain.
Output (:mod:`experiments.shared.output`)
    ``save_sets(run, name, sets)``, ``save_selections(run, selections)``, ``about_run(run)``,
    ``samples_used(splits, found_on, asked, domains, skipped)``,
    ``write_figures(run, figures, sections)``, ``summarise(run, sentences, where)``.

Answers before and after a mask, side by side: :func:`mmlens.ablation.tables.before_and_after`.
"""

from experiments.shared.collecting import STATISTICS, collect_statistics, help_with_statistics
from experiments.shared.config import (
    CommonConfig,
    How,
    What,
    batching,
    generation,
    settings,
    settled,
)
from experiments.shared.data import (
    benchmarks,
    chosen_values,
    data_folder,
    data_hashes,
    metrics,
    read_split,
)
from experiments.shared.output import (
    about_run,
    samples_used,
    save_selections,
    save_sets,
    summarise,
    write_figures,
)
from experiments.shared.sections import (
    CARD_SAMPLES,
    cards_section,
    lens_section,
    overlap_section,
    stability_section,
)
from experiments.shared.start import announce, command_line, load, open_run
from experiments.shared.study import Study

__all__ = [
    "CARD_SAMPLES",
    "STATISTICS",
    "CommonConfig",
    "How",
    "Study",
    "What",
    "about_run",
    "announce",
    "batching",
    "benchmarks",
    "cards_section",
    "chosen_values",
    "collect_statistics",
    "command_line",
    "data_folder",
    "data_hashes",
    "generation",
    "help_with_statistics",
    "lens_section",
    "load",
    "metrics",
    "open_run",
    "overlap_section",
    "read_split",
    "samples_used",
    "save_selections",
    "save_sets",
    "settings",
    "settled",
    "stability_section",
    "summarise",
    "write_figures",
]
