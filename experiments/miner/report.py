"""What MINER's run leaves: its figures, report.html, and its last words."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from experiments.miner.analyses import ModalityStudy
from experiments.shared import output
from mmlens.ablation.masks import MASK
from mmlens.neurons import ALL, NONE
from mmlens.report import miner
from mmlens.report.pictures import pictures_of
from mmlens.report.sections import Example, Section
from mmlens.report.verdicts import masking_verdicts
from mmlens.run.folder import Run
from mmlens.storage.atomic import read_jsonl

#: Answers shown of each data set.
EXAMPLES = 3
#: What the main masks are for, as the masking table names it.
MAIN = "main"


def main_rows(run: Run) -> pd.DataFrame:
    """The masking table of the main masks."""
    table = pd.read_csv(run.path("masking.csv"), keep_default_na=False, na_values=[""])
    return table.loc[table["purpose"] == MAIN]


def sentences(run: Run) -> list[str]:
    """What was found over all questions, a sentence for each mask."""
    return [one.sentence for one in masking_verdicts(main_rows(run), evaluated=ALL)]


def write(study: ModalityStudy, sections: Sequence[Section], samples: pd.DataFrame) -> None:
    """Figures as pages of their own, and report.html with all of them."""
    run, config = study.run, study.config
    report = miner.MinerReport(
        model=run.manifest["model"],
        masking=main_rows(run),
        ratio=config.ratio,
        method=miner.method_words(
            config.attention_mode, config.strategy, config.weights, config.ratio, config.seeds
        ),
        examples=examples(study),
        more=sections,
        manifest=output.about_run(run),
        samples=samples,
        stages=run.stages(),
    )
    miner.write(report, run.path("report.html"))
    output.write_figures(run, {}, sections)


def examples(study: ModalityStudy) -> list[Example]:
    """Answers before and after all modalities' neurons, and their matched control, were masked."""
    said = {
        (row["setting"], row["id"]): row["prediction"]
        for row in read_jsonl(study.run.path("answers.jsonl"))
    }
    names = {m.kind: m.name for m in reversed(study.masks.plan.masks[MAIN]) if m.label == ALL}
    mask, control = names[MASK], names.get("matched")
    shown = {"modality neurons masked": mask}
    if control:
        shown["matched neurons masked"] = control
    items = []
    for domain in study.domains:
        asked = [s for s in study.asked if s.domain == domain and (NONE, s.id) in said]
        asked.sort(key=lambda s: said[NONE, s.id] == said.get((mask, s.id)))
        for sample in asked[:EXAMPLES]:
            after = {
                name: said[setting, sample.id]
                for name, setting in shown.items()
                if (setting, sample.id) in said
            }
            items.append(
                Example(
                    question=sample.text,
                    true=sample.answers[0],
                    before=said[NONE, sample.id],
                    after=after,
                    label=domain,
                    pictures=pictures_of(sample),
                )
            )
    return items
