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
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
import tyro
from safetensors.torch import load_model, save_model

from experiments.demos import evaluation
from experiments.demos.card import write as write_tables
from experiments.demos.training import (
    Packer,
    Pictures,
    Progress,
    Recipe,
    Trainee,
    train,
    warm_up,
)
from mmlens.data.demos import demo_data

#: What cards call the medium and the tower, where they are no picture and no vision tower.
WORDS = {
    "qwen2-audio": {"medium": "sound", "media": "sounds", "tower": "audio tower"},
    "qwen2-vl": {"medium": "medium", "media": "media"},
}
DEMOS = Path(__file__).resolve().parents[2] / "mmlens" / "demo"


@dataclass
class Options:
    """Train a demo model, or evaluate or rebuild parts of it."""

    name: Annotated[
        Literal["llava-next", "instructblip", "qwen2-audio", "qwen2-vl"], tyro.conf.Positional
    ]
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


def train_llava_next(options: Options, out: Path, recipe: Recipe) -> dict[str, Any]:
    """Train `demo/llava-next`."""
    from experiments.demos.llava_next.data import TrainingPictures
    from experiments.demos.llava_next.model import LlavaNextTrainee

    torch.manual_seed(options.seed)
    pictures = TrainingPictures(DEMOS / options.name / "data" / "train.parquet")
    texts = [text for wordings in pictures.wordings.values() for text in wordings]
    trainee = LlavaNextTrainee([*texts, *pictures.answers])
    packer = Packer(trainee, pictures.wordings, pictures.answers)
    return run(options, out, recipe, trainee, packer, pictures)


def train_instructblip(options: Options, out: Path, recipe: Recipe) -> dict[str, Any]:
    """Train `demo/instructblip`, on the pictures of `demo/llava-next`."""
    from experiments.demos.instructblip.model import InstructBlipTrainee, QuestionRows
    from experiments.demos.llava_next.data import TrainingPictures

    torch.manual_seed(options.seed)
    pictures = TrainingPictures(DEMOS / "llava-next" / "data" / "train.parquet")
    texts = [text for wordings in pictures.wordings.values() for text in wordings]
    trainee = InstructBlipTrainee([*texts, *pictures.answers])
    packer = QuestionRows(trainee, pictures.wordings, pictures.answers)
    recipe = replace(recipe, tower="vision_model")
    return run(options, out, recipe, trainee, packer, pictures)


def train_qwen2_audio(options: Options, out: Path, recipe: Recipe) -> dict[str, Any]:
    """Train `demo/qwen2-audio`."""
    from experiments.demos.qwen2_audio.data import TrainingSounds
    from experiments.demos.qwen2_audio.model import Qwen2AudioTrainee

    torch.manual_seed(options.seed)
    sounds = TrainingSounds(DEMOS / options.name / "data" / "train.parquet")
    texts = [text for wordings in sounds.wordings.values() for text in wordings]
    trainee = Qwen2AudioTrainee([*texts, *sounds.answers])
    packer = Packer(trainee, sounds.wordings, sounds.answers)
    recipe = replace(recipe, tower="audio_tower", packed=6, tower_share=0.3)
    return run(options, out, recipe, trainee, packer, sounds)


def train_qwen2_vl(options: Options, out: Path, recipe: Recipe) -> dict[str, Any]:
    """Train `demo/qwen2-vl`."""
    from experiments.demos.qwen2_vl.model import trainee_of

    torch.manual_seed(options.seed)
    trainee, packer, media = trainee_of(DEMOS / options.name / "data" / "train.parquet")
    recipe = replace(recipe, tower="visual.blocks", batch=16, packed=4, tower_share=0.3)

    def whiten_merger() -> None:
        rng = np.random.default_rng(options.seed)
        chosen = rng.integers(len(media), size=500)
        trainee.whiten_merger([media.draw(int(index), rng).medium for index in chosen])

    return run(options, out, recipe, trainee, packer, media, before_joint=whiten_merger)


def run(
    options: Options,
    out: Path,
    recipe: Recipe,
    trainee: Trainee,
    packer: Packer,
    pictures: Pictures,
    before_joint: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Warm up the tower, train the whole, save; returns the facts of the run.

    `before_joint`: what else is to be done between the two.
    """
    progress = Progress(log=lambda line: print(line, flush=True), save=lambda _: save(trainee, out))
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
                before_joint()
            train(trainee, packer, pictures, recipe, progress, cycle=cycle)
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


def judge_pictures(out: Path, data: Path, split: str, controls: bool) -> pd.DataFrame:
    """Judge a saved checkpoint that answers questions on pictures, in float32."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(out)
    train_table = evaluation.read(data / "train.parquet")
    table = evaluation.read(data / f"{split}.parquet")
    shown = (
        evaluation.plain_pictures(list(table.medium)) | evaluation.shuffles(table)
        if controls
        else {}
    )
    answer = partial(evaluation.answer, model, processor)
    return evaluation.evaluate(train_table, table, answer, shown)


def judge_sounds(out: Path, data: Path, split: str, controls: bool) -> pd.DataFrame:
    """Judge a saved checkpoint of `demo/qwen2-audio`."""
    from experiments.demos.qwen2_audio import model as model_qwen2_audio

    return model_qwen2_audio.evaluate(out, data, split, controls)


def judge_media(out: Path, data: Path, split: str, controls: bool) -> pd.DataFrame:
    """Judge a saved checkpoint of `demo/qwen2-vl`."""
    from experiments.demos.qwen2_vl import model as model_qwen2_vl

    return model_qwen2_vl.evaluate(out, data, split, controls)


def more_tables(name: str, result: pd.DataFrame) -> dict[str, Any]:
    """A demo's own tables, under `more`."""
    if name != "qwen2-vl":
        return {}
    from experiments.demos.qwen2_vl import model as model_qwen2_vl

    return {"more": model_qwen2_vl.more_tables(result)}


def evaluate(out: Path, demo: Path, split: str, controls: bool) -> dict[str, Any]:
    """Evaluate the saved checkpoint; returns its tables."""
    data = demo_data(f"demo/{demo.name}") or demo / "data"
    own = {"qwen2-audio": judge_sounds, "qwen2-vl": judge_media}
    result = own.get(demo.name, judge_pictures)(out, data, split, controls)
    found = evaluation.tables(result) | more_tables(demo.name, result)
    for domain, figures in found["domain"].items():
        print(
            domain,
            figures["accuracy"],
            figures["interval"],
            found["domain_question"][domain],
            flush=True,
        )
    return found


def rebuild_data(name: str, out: Path, sources: Path) -> None:
    """Rebuild a demo's data from installed packages and a folder of source files."""
    from experiments.demos.llava_next import data as data_llava_next
    from experiments.demos.qwen2_audio import data as data_qwen2_audio
    from experiments.demos.qwen2_vl import data as data_qwen2_vl

    if name == "qwen2-audio":
        data_qwen2_audio.build(out)  # needs no files
    elif name == "qwen2-vl":
        data_qwen2_vl.build(out, DEMOS / "llava-next" / "data")  # needs no others
    else:
        data_llava_next.build(out, sources)


def main(options: Options) -> None:
    """Do what the options say."""
    torch.set_num_threads(options.threads)
    demo = DEMOS / options.name
    out = options.out or demo
    if options.rebuild_data is not None:
        rebuild_data(options.name, demo / "data", options.rebuild_data)
        return
    facts_file = out / "training.json"
    if not options.evaluate_only:
        recipe = replace(
            Recipe(),
            seed=options.seed,
            steps=options.steps,
            warmup_steps=options.warmup_steps,
            lr=options.lr,
        )
        trained = {
            "llava-next": train_llava_next,
            "instructblip": train_instructblip,
            "qwen2-audio": train_qwen2_audio,
            "qwen2-vl": train_qwen2_vl,
        }
        facts = trained[options.name](options, out, recipe)
        facts_file.write_text(json.dumps(facts, indent=2) + "\n")
    found = evaluate(out, demo, options.split, controls=options.evaluate_only)
    if options.evaluate_only:
        facts = json.loads(facts_file.read_text()) if facts_file.exists() else {}
        card = {"demo": options.name, "split": options.split, "training": facts, "results": found}
        card["words"] = WORDS.get(options.name, {})
        (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        if (out / "README.md").exists():
            write_tables(out)


if __name__ == "__main__":
    main(tyro.cli(Options))
