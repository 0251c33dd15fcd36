"""What a shipped demo is made of: everything in which one differs from another, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from experiments.demos import evaluation
from experiments.demos.trainee import Trainee
from experiments.demos.training import Packer, Pictures

Name = Literal["llava-next", "instructblip", "qwen2-audio", "qwen2-vl"]


@dataclass(frozen=True)
class Demo:
    """How a demo is made and judged; its module ``experiments.demos.<name>.model`` has it as ``DEMO``.

    Attributes:
        data: name of the demo in whose folder the data lie.
        rebuild: makes the data anew: (folder of the data, folder of source files).
        media: a training split -> its media, drawn with augmentation.
        trainee: all texts -> the untrained model.
        packer: how questions are put behind a medium.
        recipe: what differs from the defaults of :class:`experiments.demos.training.Recipe`.
        before_joint: what is done between the two phases of training, with (trainee, media, seed).
        judge: (checkpoint, folder of the data, split, whether with controls) -> right and wrong.
        more_tables: tables of its own of what ``judge`` returned.
        words: what its card calls a medium and the tower, where they are no picture and no vision tower.
    """

    data: str
    rebuild: Callable[[Path, Path], None]
    media: Callable[[Path], Pictures]
    trainee: Callable[[Sequence[str]], Trainee]
    packer: type[Packer] = Packer
    recipe: Mapping[str, Any] = field(default_factory=dict)
    before_joint: Callable[[Any, Any, int], None] = lambda *_: None
    judge: Callable[[Path, Path, str, bool], pd.DataFrame] = evaluation.judge
    more_tables: Callable[[pd.DataFrame], dict[str, Any]] | None = None
    words: Mapping[str, str] = field(default_factory=dict)

    def prepared(self, demos: Path) -> tuple[Trainee, Packer, Pictures]:
        """The untrained model with its packer and training media; ``demos``: folder of all demos."""
        media = self.media(demos / self.data / "data" / "train.parquet")
        texts = [text for wordings in media.wordings.values() for text in wordings]
        trainee = self.trainee([*texts, *media.answers])
        return trainee, self.packer(trainee, media.wordings, media.answers), media


def demo_named(name: Name) -> Demo:
    """The demo of that name."""
    return import_module(f"experiments.demos.{name.replace('-', '_')}.model").DEMO
