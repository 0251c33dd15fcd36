"""Settings that every experiment shares: one dataclass per topic, and what follows from them alone.

An experiment's configuration is a dataclass with a field for each topic beside its own settings. On
the command line and in the manifest all of them are flat: ``config.answers.temperature`` is
``--temperature`` and ``"temperature"``, so a name may occur once only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from mmlens.streaming.batching import Batching


@dataclass(frozen=True)
class SampleSettings:
    """The samples, and how benchmarks word and draw them."""

    data: tuple[str, ...] = ()
    """Folder with the splits, or benchmark=folder for each (python -m experiments.benchmark_data --help);
    default: the demo's own."""
    train_split: str = "train"
    """Neurons are found on this split, ..."""
    test_split: str = "test"
    """... and silenced on this one."""
    domains: tuple[str, ...] = ()
    """Domains to compare; default: all in the training split."""
    prompt: Literal["paper", "instructblip", "bare"] = "paper"
    """The benchmarks' wording."""
    subset: Literal["seed", "paper"] = "seed"
    """Which questions of a benchmark: drawn with the seed, or the first of the paper's own order."""


@dataclass(frozen=True)
class LoadSettings:
    """The model, and how it is loaded."""

    model: str
    """A shipped demo, a Hugging Face hub id, or a local folder."""
    backbone: Literal["auto", "hooked_transformer", "bridge"] = "auto"
    """The language backbone."""
    device: str | None = None
    """Default: CUDA where there is one."""
    dtype: str | None = None
    """Default: bfloat16 on CUDA, float32 on the CPU."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""


@dataclass(frozen=True)
class BatchSettings:
    """How samples become prompts and batches."""

    template: Literal["auto", "chat", "plain"] = "auto"
    """Prompt form; "plain" is the bare <image>\\n{question}."""
    token_budget: int = 4096
    """Prompt tokens per batch at most, padding included."""
    max_batch: int = 64
    """Samples per batch at most."""
    max_failures: float = 0.05
    """Share of samples that may be left out for unreadable pictures."""


@dataclass(frozen=True)
class AnswerSettings:
    """How questions are answered, and answers scored."""

    metric: str = ""
    """How an answer is scored; default: exact_match, and of a benchmark its official metric."""
    paper_metrics: bool = False
    """Score benchmarks as the paper's code does."""
    temperature: float = 0.0
    """0: greedy answers."""
    max_new_tokens: int = 8
    """Length of an answer at most."""


@dataclass(frozen=True)
class CommonConfig:
    """What the shared functions read of the settings of an experiment that asks questions.

    An experiment adds its own settings and writes a topic anew where its defaults or sentences
    differ: ``load: LoadSettings = LoadSettings("demo/qwen2-vl")``.
    """

    load: LoadSettings = LoadSettings("demo/llava-next")
    samples: SampleSettings = SampleSettings()
    batches: BatchSettings = BatchSettings()
    answers: AnswerSettings = AnswerSettings()
    out: Path = Path("runs/run")
    """The run folder."""
    quick: bool = False
    """Minutes in place of hours: fewer samples and seeds wherever no number is given."""
    seed: int = 0
    """Of the draws of samples and questions."""


AnyConfig = TypeVar("AnyConfig")
AnyCommon = TypeVar("AnyCommon", bound=CommonConfig)


def flat(config: Any) -> dict[str, Any]:
    """Every setting by its own name, whatever its topic."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        found |= flat(value) if is_dataclass(value) else {field.name: value}
    return found


def changed(config: AnyConfig, **settings: Any) -> AnyConfig:
    """The configuration with other values, given flat: ``changed(Config(), temperature=0.9, seeds=2)``.

    Raises:
        TypeError: there is no setting of that name.
    """
    if unknown := settings.keys() - flat(config).keys():
        raise TypeError(f"{type(config).__name__} has no setting {min(unknown)!r}")
    new: dict[str, Any] = {}
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if is_dataclass(value):
            inner = {name: settings[name] for name in flat(value) if name in settings}
            new[field.name] = changed(value, **inner)
        elif field.name in settings:
            new[field.name] = settings[field.name]
    return replace(config, **new)  # type: ignore[type-var]


def settled(config: AnyCommon, quick: Mapping[str, Any]) -> AnyCommon:
    """The configuration with what ``--quick`` asks for, wherever the default was left.

    Args:
        config: as it was given.
        quick: one of the experiment's own settings -> its value under ``--quick``.
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
    return {name: value for name, value in flat(config).items() if name != "out"}


def batching(config: CommonConfig) -> Batching:
    """How samples are made into prompts and batches, in every pass of the experiment."""
    return Batching(**flat(config.batches))


def generation(config: CommonConfig) -> dict[str, Any]:
    """How answers are generated: options of :func:`mmlens.ablation.evaluate.evaluate`."""
    return {
        "max_new_tokens": config.answers.max_new_tokens,
        "temperature": config.answers.temperature,
        "seed": config.seed,
    }
