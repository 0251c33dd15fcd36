"""What every analysis of an experiment works on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

import mmlens
from mmlens.data.samples import Sample, take_per_value
from mmlens.run.folder import Run
from mmlens.streaming.batching import Batching


@dataclass(frozen=True, eq=False)
class Study:
    """What all analyses work on; an experiment's own inherits from it.

    Attributes:
        run: the run folder.
        model: the model.
        domains: of the samples (data sets where those are compared), in their order.
        train: the samples that neurons were found on.
        asked: the samples that were asked.
        seed: of draws.
        batching: how samples become prompts and batches.
    """

    run: Run
    model: mmlens.HookedMLLM
    domains: Sequence[str]
    train: Sequence[Sample]
    asked: Sequence[Sample]
    seed: int
    batching: Batching

    def some(self, per_domain: int) -> list[Sample]:
        """Some of the samples that were asked, at most so many per domain."""
        return take_per_value(self.asked, "domain", per_domain, seed=self.seed)

    def table(self, name: str, stage: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table of the run folder: read where its stage is finished, made and written otherwise.

        Args:
            name: the file, ``*.csv``.
            stage: finished once the table is written.
            make: computes it; should resume from files of its own where it takes long.
        """
        if not self.run.finished(stage):
            with self.run.stage(stage):
                self.run.write_csv(name, make())
        return pd.read_csv(self.run.path(name), keep_default_na=False, na_values=[""])
