"""Train a shipped demo model from the shipped data: `python -m experiments.demos.train llava-next`.

The data is read from the demo's folder; nothing is downloaded. `--rebuild-data SOURCES` makes the
data anew instead, from installed packages and the files in the folder SOURCES
(`experiments/demos/llava_next/sources.py` says which).
"""

from __future__ import annotations

import copy
import json
import os
import platform
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from safetensors.torch import load_model, save_model

from experiments.demos import evaluation
from experiments.demos.card import write as write_tables
from experiments.demos.demo import Demo, Name, demo_named
from experiments.demos.trainee import Trainee
from experiments.demos.training import Progress, Recipe, train, warm_up

DEMOS = Path(__file__).resolve().parents[2] / "mmlens" / "demo"


@dataclass
class Options:
    """Train a demo model, or evaluate or rebuild parts of it."""

    name: Annotated[Name, tyro.conf.Positional]
    """The demo."""
    out: Path | None = None
    """Folder of the model; the demo's own by default."""
    seed: int = 0
    steps: tuple[int, ...] = Recipe.steps
    """Steps of each cycle of joint training."""
    warmup_steps: tuple[int, ...] = Recipe.warmup_steps
    """Steps of each cycle of the vision tower's warm-up."""
    keep: Path | None = None
    """Folder of the weights after each cycle: read where there, written otherwise."""
    lr: tuple[float, ...] = Recipe.lr
    """Peak learning rate of each cycle of joint training."""
    threads: int = 2
    """CPU threads; a run repeats exactly for the same seed and number of threads."""
    split: Literal["validation", "test"] = "validation"
    """What to evaluate on at the end; settings are chosen on validation."""
    evaluate_only: bool = False
    """Evaluate `out` with all controls; write its `card.json` and the tables of its README."""
    rebuild_data: Path | None = None
    """Rebuild the data from installed packages and this folder of source files."""


def save(trainee: Trainee, out: Path) -> None:
    """Write model (fp16) and processor; each file is replaced in one step, never seen half."""
    half = copy.deepcopy(trainee.model).to(torch.float16)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        half.save_pretrained(folder)  # type: ignore[operator]
        trainee.processor.save_pretrained(folder)  # type: ignore[attr-defined]
        for file in (found for found in Path(folder).rglob("*") if found.is_file()):
            target = out / file.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            shutil.move(file, target.with_name(f".{target.name}.new"))
            os.replace(target.with_name(f".{target.name}.new"), target)


def run(options: Options, demo: Demo, recipe: Recipe, out: Path) -> dict[str, Any]:
    """Warm up the tower, train the whole, save; returns the facts of the run."""
    torch.manual_seed(options.seed)
    trainee, packer, pictures = demo.prepared(DEMOS)
    progress = Progress(log=lambda line: print(line, flush=True), save=lambda: save(trainee, out))
    seconds: dict[str, list[int]] = {"warmup": [], "joint": []}
    phases = [("warmup", cycle) for cycle in range(len(recipe.warmup_steps))]
    phases += [("joint", cycle) for cycle in range(len(recipe.steps))]
    for name, cycle in phases:
        torch.manual_seed(options.seed + 1000 * (cycle + 1))
        done = options.keep / f"{name}{cycle}.safetensors" if options.keep is not None else None
        if done is not None and done.exists():
            load_model(trainee.model, done)
            continue
        started = time.monotonic()
        if name == "warmup":
            warm_up(trainee, pictures, recipe, progress, cycle)
        else:
            if cycle == 0:
                demo.before_joint(trainee, pictures, options.seed)
            train(trainee, packer, pictures, recipe, progress, cycle)
        seconds[name].append(round(time.monotonic() - started))
        if done is not None:
            done.parent.mkdir(parents=True, exist_ok=True)
            save_model(trainee.model, str(done))
    save(trainee, out)
    return {
        "recipe": asdict(recipe),
        "threads": options.threads,
        "seconds": seconds,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, CPU",
        "parameters": sum(parameter.numel() for parameter in trainee.model.parameters()),
        "loss": progress.history[-5:],
    }


def evaluate(out: Path, demo: Demo, split: str, controls: bool) -> dict[str, Any]:
    """Evaluate the saved checkpoint; returns its tables."""
    result = demo.judge(out, DEMOS / demo.data / "data", split, controls)
    found = evaluation.tables(result)
    if demo.more_tables is not None:
        found["more"] = demo.more_tables(result)
    for domain, figures in found["domain"].items():
        shares = found["domain_question"][domain]
        print(domain, figures["accuracy"], figures["interval"], shares, flush=True)
    return found


def main(options: Options) -> None:
    """Do what the options say."""
    torch.set_num_threads(options.threads)
    demo = demo_named(options.name)
    out = options.out or DEMOS / options.name
    if options.rebuild_data is not None:
        demo.rebuild(DEMOS / demo.data / "data", options.rebuild_data)
        return
    facts_file = out / "training.json"
    if not options.evaluate_only:
        recipe = replace(
            Recipe(),
            seed=options.seed,
            steps=options.steps,
            warmup_steps=options.warmup_steps,
            lr=options.lr,
            **demo.recipe,
        )
        facts = run(options, demo, recipe, out)
        facts_file.write_text(json.dumps(facts, indent=2) + "\n")
    found = evaluate(out, demo, options.split, controls=options.evaluate_only)
    if options.evaluate_only:
        facts = json.loads(facts_file.read_text()) if facts_file.exists() else {}
        card = {"demo": options.name, "split": options.split, "training": facts, "results": found}
        card["words"] = dict(demo.words)
        (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        if (out / "README.md").exists():
            write_tables(out)


if __name__ == "__main__":
    main(tyro.cli(Options))
