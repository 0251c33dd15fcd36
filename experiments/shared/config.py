"""Settings that every experiment shares, and what follows from them alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar


@dataclass(frozen=True)
class What:
    """What an experiment looks at; the first settings of every ``--help``."""

    model: str = "demo/llava-next"
    """A shipped demo, a Hugging Face hub id, or a local folder."""
    data: tuple[str, ...] = ()
    """Folder with the splits, or benchmark=folder for each (python -m experiments.benchmark_data --help);
    default: the demo's own."""
    out: Path = Path("runs/run")
    """The run folder."""
    train_split: str = "train"
    """Neurons are found on this split, ..."""
    test_split: str = "test"
    """... and silenced on this one."""
    domains: tuple[str, ...] = ()
    """Domains to compare; default: all in the training split."""
    quick: bool = False
    """Minutes in place of hours: fewer samples and seeds wherever no number is given."""


@dataclass(frozen=True)
class How:
    """How samples are asked and models run; the last settings of every ``--help``."""

    template: Literal["auto", "chat", "plain"] = "auto"
    """Prompt form; "plain" is the bare <image>\\n{question}."""
    prompt: Literal["paper", "instructblip", "bare"] = "paper"
    """The benchmarks' wording."""
    subset: Literal["seed", "paper"] = "seed"
    """Which questions of a benchmark: drawn with the seed, or the first of the paper's own order."""
    metric: str = ""
    """How an answer is scored; default: exact_match, and of a benchmark its official metric."""
    paper_metrics: bool = False
    """Score benchmarks as the paper's code does."""
    temperature: float = 0.0
    """0: greedy answers."""
    max_new_tokens: int = 8
    """Length of an answer at most."""
    token_budget: int = 4096
    """Prompt tokens per batch at most, padding included."""
    max_batch: int = 64
    """Samples per batch at most."""
    max_failures: float = 0.05
    """Share of samples that may be left out for unreadable pictures."""
    seed: int = 0
    """Of the draws of samples and questions."""
    backbone: Literal["auto", "hooked_transformer", "bridge"] = "auto"
    """The language backbone."""
    device: str | None = None
    """Default: CUDA where there is one."""
    dtype: str | None = None
    """Default: bfloat16 on CUDA, float32 on the CPU."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""


@dataclass(frozen=True)
class CommonConfig(How, What):
    """Everything that the shared functions read of an experiment's settings.

    The settings of an experiment stand between these two parts in its ``--help``: they are fields of
    a class that inherits from :class:`What`, and that the experiment's configuration puts second::

        @dataclass(frozen=True)
        class Own(What):
            ratio: float = 0.02

        @dataclass(frozen=True)
        class Config(CommonConfig, Own):
            out: Path = Path("runs/miner")     # another default or sentence of a shared field

    A shared field is written anew in ``Config``, never in ``Own``, where ``CommonConfig`` would win.
    """


class HasModel(Protocol):
    """Settings that name a model."""

    @property
    def model(self) -> str:
        """A shipped demo, a hub id, or a local folder."""
        ...

    @property
    def backbone(self) -> Literal["auto", "hooked_transformer", "bridge"]:
        """The language backbone."""
        ...

    @property
    def device(self) -> str | None:
        """Where it runs."""
        ...

    @property
    def dtype(self) -> str | None:
        """Its precision."""
        ...

    @property
    def revision(self) -> str | None:
        """Of a hub id."""
        ...


AnyConfig = TypeVar("AnyConfig", bound=CommonConfig)


def settled(config: AnyConfig, quick: Mapping[str, Any]) -> AnyConfig:
    """The configuration with what ``--quick`` asks for, wherever the default was left.

    Args:
        config: as it was given.
        quick: field -> its value under ``--quick``.
    """
    if not config.quick:
        return config
    plain = {field.name: field.default for field in fields(config)}
    return replace(
        config,
        **{
            name: value
            for name, value in quick.items()
            if plain[name] is not MISSING and getattr(config, name) == plain[name]
        },
    )


def settings(config: Any) -> dict[str, Any]:
    """What the manifest keeps of a configuration: everything but the run folder's own place."""
    return {name: value for name, value in asdict(config).items() if name != "out"}


def batching(config: CommonConfig) -> dict[str, Any]:
    """How samples are made into prompts and batches: options of collect, evaluate, lens, cards, ..."""
    return {
        "template": config.template,
        "token_budget": config.token_budget,
        "max_batch": config.max_batch,
        "max_failures": config.max_failures,
    }


def generation(config: CommonConfig) -> dict[str, Any]:
    """How answers are generated: options of :func:`mmlens.ablation.evaluate.evaluate`."""
    return {
        "max_new_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "seed": config.seed,
    }
