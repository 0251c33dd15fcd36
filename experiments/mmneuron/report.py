"""What MMNeuron's run leaves: its tables, its figures, report.html, and its last words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from experiments.mmneuron.analyses import DomainStudy
from experiments.mmneuron.config import Config
from experiments.shared import output
from mmlens import plots
from mmlens.ablation import tables
from mmlens.ablation.effects import effects_table
from mmlens.ablation.intervention import Intervention
from mmlens.ablation.masks import Mask
from mmlens.plots.frames import CONTROLS
from mmlens.report import mmneuron as report
from mmlens.report.sections import Section
from mmlens.report.verdicts import domain_verdicts
from mmlens.run.folder import Run
from mmlens.storage.atomic import read_jsonl


def write_tables(
    study: DomainStudy, masks: Sequence[Mask], answers: pd.DataFrame, *, full: bool
) -> None:
    """accuracy.csv and effects.csv."""
    samples = study.questions.samples
    study.run.write_csv("accuracy.csv", tables.accuracy_table(answers, masks, samples))
    cluster = study.questions.cluster_field
    effects = effects_table(answers, masks, study.questions, full=full, cluster=cluster)
    study.run.write_csv("effects.csv", effects)


def write(
    config: Config,
    study: DomainStudy,
    neurons: pd.DataFrame,
    samples: pd.DataFrame,
    sections: Sequence[Section],
) -> None:
    """Figures as pages of their own, and report.html with all of them."""
    run, domains = study.run, study.domains
    summaries = {
        module: output.selection_summary(module, domains, one.in_unit(config.unit), config.quantile)
        for module, one in study.selections.items()
    }
    effects = pd.read_csv(run.path("effects.csv"))
    data = report.ReportData(
        title=f"Domain-specific neurons of {run.manifest['model']}",
        manifest=output.about_run(run),
        intervention="" if study.intervention == Intervention() else study.intervention.name,
        effects=effects,
        accuracy=pd.read_csv(run.path("accuracy.csv"), keep_default_na=False),
        neurons=neurons,
        selection=summaries,
        samples=samples,
        stages=run.stages(),
        examples=tables.examples_table(
            read_jsonl(run.path("answers.jsonl")),
            study.questions,
            study.fraction,
            intervention=study.intervention,
        ),
        domains=list(domains),
        fraction=study.fraction,
        more=sections,
    )
    report.write(data, run.path("report.html"))
    output.write_figures(run, figures(study, neurons, effects, summaries), sections)


def figures(
    study: DomainStudy,
    neurons: pd.DataFrame,
    effects: pd.DataFrame,
    summaries: Mapping[str, plots.SelectionSummary],
) -> dict[str, go.Figure]:
    """The report's own figures, by the names of their pages."""
    domains, layers = study.domains, {m: one.entropy.shape[0] for m, one in summaries.items()}
    return {
        "neurons_per_domain": plots.neurons_per_domain(neurons, study.fraction, domains=domains),
        "layer_distribution": plots.layer_distribution(
            neurons, layers, study.fraction, domains=domains
        ),
        **{f"entropy_{m}": plots.entropy_histogram(one) for m, one in summaries.items()},
        **{
            f"effects_{control}": plots.effects_against_controls(effects, control, domains=domains)
            for control in CONTROLS
        },
    }


def sentences(run: Run) -> list[str]:
    """What was found, a sentence for each domain and fraction."""
    found = domain_verdicts(pd.read_csv(run.path("effects.csv")), fraction=None)
    return [verdict.sentence for verdict in found]
