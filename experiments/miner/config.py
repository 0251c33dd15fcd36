"""The settings of MINER's experiment (``python -m experiments.miner --help``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.shared.config import AnswerSettings, CommonConfig, LoadSettings, SampleSettings
from mmlens.errors import MMLensError
from mmlens.importance import WEIGHTS, AttentionMode, weight_vector
from mmlens.selection.strategies import RANDOM, Strategy
from mmlens.tokens.token_sets import SPLIT_TYPES

#: What ``--quick`` asks for, where nothing else was asked.
QUICK: Mapping[str, Any] = {
    "train_samples": 40,
    "questions": 20,
    "questions_few": 8,
    "seeds": 2,
    "states_samples": 4,
    "contribution_samples": 20,
    "lens_samples": 8,
    "cards": 2,
}


@dataclass(frozen=True)
class Samples(SampleSettings):
    """The samples; data sets stand in the place of MMNeuron's domains."""

    data: tuple[str, ...] = ()
    """Folder with the splits, or benchmark=folder for each of textvqa, coco, mmlu, msvd_qa, librispeech,
    vocalsound (or MMNeuron's five); default: the demo's own."""
    domains: tuple[str, ...] = ()
    """Data sets to use; default: all in the training split."""


@dataclass(frozen=True)
class Answers(AnswerSettings):
    """How questions are answered, and answers scored."""

    max_new_tokens: int = 8
    """Length of an answer at most; MINER's code allows 128."""


@dataclass(frozen=True)
class Config(CommonConfig):
    """What to run. Everything but ``out`` decides the results and is kept in the manifest."""

    load: LoadSettings = LoadSettings("demo/qwen2-vl")
    samples: SampleSettings = Samples()
    answers: AnswerSettings = Answers()
    out: Path = Path("runs/miner")
    """The run folder."""
    by: str = ""
    """Field whose values are the data sets that are mined and asked; "media": the kinds of media of a
    question. Default: media where questions differ in it, else the domain."""
    attention_mode: AttentionMode = "causal"
    """What attention scores weigh tokens by: "causal", the model's own attention; "paper", the official
    code's, without the causal mask and with a second softmax."""
    split: str = "special_text_separate"
    """How prompts are split into token sets: special_text_separate, special_text_as_one or prompt."""
    strategy: Strategy = "LA_MU"
    """How neurons are selected: adaptive, LA_MU, LU_MA or uniform. (Random is of no modality: a control.)"""
    weights: str = "paper"
    """Weights of the five scores, by name; see mmlens.importance.WEIGHTS."""
    ratio: float = 0.02
    """Share of the language model's neurons that is selected, all modalities together."""
    unions: tuple[str, ...] = ()
    """Further unions to mask, such as text+image; each modality and all together are masked anyhow."""
    ratios: tuple[float, ...] = (0.001, 0.005, 0.01, 0.015, 0.02, 0.05, 0.1)
    """Shares to compare; none: no comparison."""
    strategies: tuple[Strategy, ...] = ("adaptive", "LA_MU", "LU_MA", "uniform")
    """Strategies to compare with every one of --all-weights; none: no comparison."""
    all_weights: tuple[str, ...] = tuple(WEIGHTS)
    """Weights to compare."""
    train_samples: int = 200
    """Samples per data set that importance is collected on; 0: all."""
    questions: int = 80
    """Questions per data set that the main masks are asked."""
    questions_few: int = 24
    """How many of those every comparison is asked."""
    seeds: int = 4
    """Control sets of each kind per main mask; comparisons have one or two."""
    treatments: bool = True
    """Also write the layer's minimum, silence all others, and silence at the modality's tokens alone."""
    mining: bool = True
    """Also mine every data set alone and ask all of them."""
    comparison: bool = True
    """Also select by entropy over the token groups, as many neurons, and compare."""
    convergence: bool = True
    """Collect in parts that double, and compare what they give (not under a launcher)."""
    states_samples: int = 10
    """Questions per data set whose token states are compared under masks; 0: none."""
    contribution_samples: int = 100
    """Questions in all on which contributions to the last token are measured; 0: none."""
    lens_samples: int = 24
    """Questions per data set that the logit lens reads; 0: none."""
    lens_pictures: int = 1
    """Of them drawn over, per data set."""
    cards: int = 4
    """Neurons of each set that get a card; 0: none. Not under a launcher."""


def check(config: Config) -> None:
    """Refuse settings that could only fail once importance is collected.

    Raises:
        MMLensError: an unknown split type or weights, a share that is none, or strategy random.
    """
    if config.split not in SPLIT_TYPES:
        raise MMLensError(
            f"There is no split type {config.split!r}; there are {', '.join(SPLIT_TYPES)}."
        )
    if config.strategy == RANDOM:
        raise MMLensError(
            "Strategy random draws neurons of no modality, so it cannot be the main one; name it in "
            "--strategies, beside the others."
        )
    for name in (config.weights, *config.all_weights):
        weight_vector(name)
    if wrong := [share for share in (config.ratio, *config.ratios) if not 0 < share <= 1]:
        raise MMLensError(
            f"--ratio and --ratios are shares of all neurons, above 0 and at most 1; {wrong[0]} was given."
        )
