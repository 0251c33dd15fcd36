"""The settings of MMNeuron's experiment (``python -m experiments.mmneuron --help``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.shared.config import AnswerSettings, BatchSettings, CommonConfig, SampleSettings
from mmlens.ablation.intervention import Kind
from mmlens.entropy import Unit
from mmlens.hooks.editing import Site

#: What ``--quick`` asks for, where nothing else was asked.
QUICK: Mapping[str, Any] = {
    "train_samples": 100,
    "questions": 30,
    "questions_others": 8,
    "questions_modules": 15,
    "seeds": 3,
    "deviation_samples": 6,
    "lens_samples": 12,
    "cards": 3,
}


@dataclass(frozen=True)
class Samples(SampleSettings):
    """The samples; the paper's benchmarks are five."""

    data: tuple[str, ...] = ()
    """Folder with the splits, or benchmark=folder for each of lingoqa, pmcvqa, rsvqa, vqav2, docvqa;
    default: the demo's own."""
    subset: Literal["seed", "paper"] = "seed"
    """Which questions of a benchmark: drawn with the seed, or the first of MMNeuron's own order."""


@dataclass(frozen=True)
class Batches(BatchSettings):
    """How samples become prompts and batches."""

    template: Literal["auto", "chat", "plain"] = "auto"
    """Prompt form; "plain" is MMNeuron's bare <image>\\n{question} of its statistics pass."""


@dataclass(frozen=True)
class Answers(AnswerSettings):
    """How questions are answered, and answers scored."""

    paper_metrics: bool = False
    """Score benchmarks as MMNeuron's code does."""
    temperature: float = 0.0
    """0: greedy answers; MMNeuron's code samples at 0.9."""


@dataclass(frozen=True)
class Config(CommonConfig):
    """What to run. Everything but ``out`` decides the results and is kept in the manifest."""

    samples: SampleSettings = Samples()
    batches: BatchSettings = Batches()
    answers: AnswerSettings = Answers()
    out: Path = Path("runs/mmneuron")
    """The run folder."""
    modules: tuple[str, ...] = ()
    """Modules whose neurons are analysed: language, vision, projector, qformer, query; default: all
    that the model has."""
    site: Site = "act"
    """Where a neuron counts as active: its activation, or the product with the up branch ("glu")."""
    unit: Unit = "nats"
    """Of entropies."""
    on_path_only: bool = False
    """Leave out neurons that cannot influence the output, such as LLaVA's last CLIP layer."""
    group: str = "prompt"
    """Token group counted in the language module; MMNeuron counts the whole prompt."""
    fractions: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1)
    """Shares of each module's neurons to select."""
    evaluate_fractions: tuple[float, ...] = (0.01,)
    """The ones of them to silence."""
    quantile: float = 0.95
    """Quantile of all activation probabilities that is filter and label bar."""
    train_samples: int = 400
    """Samples per domain to collect on; 0: all."""
    stop_after: int = 0
    """Vision-tower tokens after which a domain has enough; MMNeuron's code stops at 100000. 0: never."""
    questions: int = 120
    """Questions per domain that its own mask is asked."""
    questions_others: int = 30
    """How many of those the masks of the other domains are asked too."""
    seeds: int = 5
    """Control sets of each kind per mask."""
    full: bool = False
    """Ask every mask every domain's questions: the whole matrix."""
    intervention: Kind = "zero"
    """What is done to the neurons of a mask; see mmlens.Intervention."""
    amount: float | None = None
    """Factor, value or strength of interventions that take one."""
    questions_modules: int = 40
    """Questions per domain on which each module is silenced alone; 0: none."""
    deviation_samples: int = 12
    """Questions per domain on which hidden states are compared; 0: none."""
    stability: bool = True
    """Collect in parts that double, and select on each (not under a launcher, nor with stop_after)."""
    lens_samples: int = 40
    """Questions per domain that the logit lens reads; 0: none."""
    lens_pictures: int = 1
    """Pictures per domain that it is drawn over."""
    cards: int = 5
    """Neurons of each set that get a card; 0: none. Not under a launcher."""
