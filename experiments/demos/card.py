"""Renders the measured part of a demo's model card from its `card.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

START, END = "<!-- measured: start -->", "<!-- measured: end -->"
#: What a row of figures holds beside the controls.
OTHERS = ("accuracy", "interval", "questions", "pictures", "sources")
#: Column heads of well-known controls; any other is called by its name.
HEADS = {
    "blank": "grey {medium}",
    "black": "black {medium}",
    "silence": "silence",
    "noise": "noise",
    "shuffled": "another {medium} of the domain",
    "shuffled_any": "another {medium} of any domain",
    "guess": "best guess by question",
    "guess_domain": "best guess by question and domain",
}
#: The words of a card: what a medium and the tower that was warmed up are called.
WORDS = {"medium": "picture", "media": "pictures", "tower": "vision tower"}


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(title: str, figures: dict[str, Any], words: dict[str, str]) -> list[str]:
    """Accuracy with its interval, beside the controls."""
    controls = [name for name in next(iter(figures.values())) if name not in OTHERS]
    heads = [HEADS[n].format(**words) if n in HEADS else n.replace("_", " ") for n in controls]
    head = [title, "accuracy", "95 % interval", *heads, "questions", words["media"], "sources"]
    lines = [_row(head), _row(["---"] * len(head))]
    for name, row in figures.items():
        low, high = row["interval"]
        cells = [name, f"**{row['accuracy']:.3f}**", f"{low:.3f} to {high:.3f}"]
        cells += [f"{row[control]:.3f}" for control in controls]
        lines.append(
            _row([*cells, str(row["questions"]), str(row["pictures"]), str(row["sources"])])
        )
    return lines


def _run(card: dict[str, Any], words: dict[str, str]) -> str:
    """What was trained for how long, in a sentence or two."""
    training = card["training"]
    recipe, seconds = training["recipe"], training["seconds"]
    batch = recipe["batch"]

    def listed(values: list[int]) -> str:
        return " and ".join(str(value) for value in values)

    parts = [
        f"Split: {card['split']}. Seed {recipe['seed']}, {training['threads']} CPU threads, torch "
        f"{training['torch']}."
    ]
    if seconds["warmup"]:
        parts.append(
            f"Warm-up of the {words['tower']}: {listed(recipe['warmup_steps'])} steps "
            f"of {recipe.get('warmup_batch', 2 * batch)} {words['media']} in {listed(seconds['warmup'])} s."
        )
    parts.append(
        f"Joint training: {listed(recipe['steps'])} steps of {batch} {words['media']} in "
        f"{listed(seconds['joint'])} s."
    )
    return " ".join(parts)


def render(card: dict[str, Any]) -> str:
    """The tables of a card, as Markdown.

    The card may name its controls as it likes, and its medium in `words` (see `WORDS`); tables of
    the demo's own come last, from `more`.
    """
    results, words = card["results"], WORDS | card.get("words", {})
    lines = [
        _run(card, words),
        "",
        *_table("domain", results["domain"] | {"all": results["overall"]}, words),
        "",
        *_table("question", results["question"], words),
        "",
    ]
    grid = results["domain_question"]
    questions = list(results["question"])
    lines += [_row(["accuracy", *questions]), _row(["---"] * (len(questions) + 1))]
    for domain, shares in grid.items():
        cells = [f"{shares[q]:.3f}" if q in shares else "" for q in questions]
        lines.append(_row([domain, *cells]))
    for title, table in results.get("more", {}).items():
        lines += ["", *_table(title, table, words)]
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Put the tables of `card.json` between the marks of the folder's `README.md`."""
    readme = folder / "README.md"
    before, rest = readme.read_text().split(START)
    after = rest.split(END)[1]
    card = json.loads((folder / "card.json").read_text())
    readme.write_text(f"{before}{START}\n{render(card)}\n{END}{after}")
