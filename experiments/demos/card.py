"""Renders the measured part of a demo's model card from its `card.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.demos.evaluation import CONTROLS

START, END = "<!-- measured: start -->", "<!-- measured: end -->"
HEADS = {
    "blank": "grey picture",
    "black": "black picture",
    "shuffled": "another picture of the domain",
    "shuffled_any": "another picture of any domain",
    "guess": "best guess by question",
    "guess_domain": "best guess by question and domain",
}


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(title: str, figures: dict[str, Any]) -> list[str]:
    """Accuracy with its interval, beside the controls."""
    head = [title, "accuracy", "95 % interval", *HEADS.values(), "questions", "pictures", "sources"]
    lines = [_row(head), _row(["---"] * len(head))]
    for name, row in figures.items():
        low, high = row["interval"]
        cells = [name, f"**{row['accuracy']:.3f}**", f"{low:.3f} to {high:.3f}"]
        cells += [f"{row[control]:.3f}" for control in CONTROLS]
        lines.append(
            _row([*cells, str(row["questions"]), str(row["pictures"]), str(row["sources"])])
        )
    return lines


def render(card: dict[str, Any]) -> str:
    """The tables of a card, as Markdown."""
    results, training = card["results"], card["training"]
    recipe = training["recipe"]
    batch, seconds = recipe["batch"], training["seconds"]

    def steps(values: list[int]) -> str:
        return " and ".join(str(value) for value in values)

    lines = [
        f"Split: {card['split']}. Seed {recipe['seed']}, {training['threads']} CPU threads, torch "
        f"{training['torch']}. Warm-up of the vision tower: {steps(recipe['warmup_steps'])} steps "
        f"of {2 * batch} pictures in {steps(seconds['warmup'])} s. Joint training: "
        f"{steps(recipe['steps'])} steps of {batch} pictures in {steps(seconds['joint'])} s.",
        "",
        *_table("domain", results["domain"] | {"all": results["overall"]}),
        "",
        *_table("question", results["question"]),
        "",
    ]
    grid = results["domain_question"]
    questions = list(results["question"])
    lines += [_row(["accuracy", *questions]), _row(["---"] * (len(questions) + 1))]
    lines += [_row([d, *(f"{grid[d][q]:.3f}" for q in questions)]) for d in grid]
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Put the tables of `card.json` between the marks of the folder's `README.md`."""
    readme = folder / "README.md"
    before, rest = readme.read_text().split(START)
    after = rest.split(END)[1]
    card = json.loads((folder / "card.json").read_text())
    readme.write_text(f"{before}{START}\n{render(card)}\n{END}{after}")
