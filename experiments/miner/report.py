"""What MINER's run leaves: its figures, report.html, and its last words."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from experiments import shared as runner
from experiments.miner.analyses import ModalityStudy
from mmlens.ablation.masks import ALL, NONE
from mmlens.report import page
from mmlens.report.pictures import pictures_of
from mmlens.report.sections import Example, Examples, Packaged, Part, Section, Text
from mmlens.report.verdicts import masking_parts, masking_verdicts
from mmlens.run.folder import Run
from mmlens.storage.atomic import read_jsonl

#: Answers shown of each data set.
EXAMPLES = 3
EXAMPLES_NOTE = "Answers that changed come first: they were picked to be looked at and are no evidence; the verdicts are."
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
    told = page.Page(
        title=f"Modality-specific neurons of {run.manifest['model']}",
        subtitle=(
            f"Model {run.manifest['model']}. Modality-specific neurons found by importance scores "
            f"(MINER), {config.ratio:.2%} of the language model, and what masking them costs."
        ),
        sections=[
            Section("What masking costs", "", verdicts(study)),
            *sections,
            Section("Examples", EXAMPLES_NOTE, [examples(study)]),
            Section("How it was done", "", [Packaged("miner_method.html", words(study))]),
            page.data_section(samples),
            page.stage_section(run.stages()),
            page.manifest_section(runner.about_run(run)),
        ],
    )
    page.write(told, run.path("report.html"))
    runner.write_figures(run, {}, sections)


def verdicts(study: ModalityStudy) -> list[Part]:
    """Whether each mask costs more than its matched control, over all questions and per data set."""
    table = main_rows(study.run)
    return [
        *masking_parts(table, evaluated=ALL),
        activity_note(table),
        Text("Per data set:", "note"),
        *masking_parts(table.loc[table["evaluated"] != ALL])[1:],
    ]


def activity_note(table: pd.DataFrame) -> Text:
    """How active the matched controls are beside the masks: what "matched" is worth here."""
    rows = table.loc[(table["evaluated"] == ALL) & (table["control"] == "matched")]
    shares = rows["control_measure"] / rows["measure"]
    said = [f"{m} {share:.0%}" for m, share in zip(rows["modality"], shares, strict=True)]
    return Text(
        "How active the matched controls are, as a share of the mask's mean root mean square at the "
        f"modality's tokens: {', '.join(said) or 'no control was run'}. Where that is well below 100%, the "
        "most active neurons are all selected and have no equal: part of what the mask costs more may be due "
        "to their activity alone.",
        "note",
    )


def words(study: ModalityStudy) -> dict[str, str]:
    """What the description of the method says of this run."""
    config = study.config
    return {
        "attention": (
            "the model's own, restricted to the set"
            if config.attention_mode == "causal"
            else "computed without the causal mask and passed through a second softmax, as in the "
            "official code"
        ),
        "strategy": config.strategy,
        "weights": config.weights,
        "ratio": f"{config.ratio:.2%}",
        "seeds": str(config.seeds),
    }


def examples(study: ModalityStudy) -> Part:
    """Answers before and after all modalities' neurons, and their matched control, were masked."""
    said = {
        (row["setting"], row["id"]): row["prediction"]
        for row in read_jsonl(study.run.path("answers.jsonl"))
    }
    cells = [c for c in study.masks.cells[MAIN] if c.modality == ALL]
    mask = next(c.name for c in cells if c.kind == "mask")
    control = next((c.name for c in cells if c.kind == "matched"), None)
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
    return Examples(items) if items else Text("No question was asked.", "missing")
