"""How an experiment starts: the command line, the run folder, the model, what it will take."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import tyro

import mmlens
from experiments.shared.config import CommonConfig, LoadSettings, batching, flat, settings
from mmlens.data.samples import Sample
from mmlens.errors import MMLensError
from mmlens.run.estimate import estimate
from mmlens.run.folder import Run, about_model
from mmlens.streaming.distributed import from_first, rank_and_world

QUOTES = "\"'"
#: A parameter in a sentence: `name`, name=value, or a word that stands neither in quotes nor in a path.
_PARAMETER = re.compile(
    r"""`(?P<code>[a-z_]+)`
    |(?<![\w/.'"-])(?:(?P<assigned>[a-z_]+)=(?P<value>'[^']*'|"[^"]*"|[\w.]*\w)
    |(?P<bare>[a-z_]+)(?![\w/'"=-]|\.\w))""",
    re.VERBOSE,
)


class HasOut(Protocol):
    """Settings that name a run folder."""

    @property
    def out(self) -> Path:
        """The run folder."""
        ...


AnyConfig = TypeVar("AnyConfig")
AnyOut = TypeVar("AnyOut", bound=HasOut)


def command_line(main: Callable[[AnyConfig], Any], settings_class: type[AnyConfig]) -> None:
    """Run an experiment with the settings of the command line; an error is one sentence.

    Args:
        main: the experiment.
        settings_class: of its settings, a dataclass whose fields have docstrings; those of a nested
            dataclass are options like any other.
    """
    logging.basicConfig(level=logging.WARNING)
    config = tyro.cli(settings_class, config=(tyro.conf.OmitArgPrefixes,))
    try:
        main(config)
    except MMLensError as error:
        sys.exit(f"error: {as_typed(str(error), flat(config))}")


def as_typed(sentence: str, names: Collection[str]) -> str:
    """An error of the library with parameters named as the options that were typed.

    Names with an underscore are parameters wherever they occur; others are words, unless they are
    written as code. What stands in quotation marks or in a path is no parameter.

    Args:
        sentence: of the error.
        names: of the settings.

    >>> as_typed("raise max_failures, or use template='plain'.", ("max_failures", "template"))
    'raise --max-failures, or use --template plain.'
    """

    def option(match: re.Match[str]) -> str:
        name, value = match["code"] or match["assigned"] or match["bare"], match["value"]
        if name not in names or (match["bare"] and "_" not in name):
            return match[0]
        typed = name.replace("_", "-")
        if value in ("True", "False"):
            return f"--{typed}" if value == "True" else f"--no-{typed}"
        return f"--{typed}" + (f" {value.strip(QUOTES)}" if value else "")

    return _PARAMETER.sub(option, sentence)


def open_run(
    config: AnyOut, data_hash: Callable[[AnyOut], Any], helping: Callable[[AnyOut], None]
) -> Run | None:
    """Begin a run folder or resume one; under a launcher the first process alone writes there.

    Args:
        config: the settings, a dataclass. All but ``out`` stand in the manifest and must be the
            folder's own on a further start.
        data_hash: config -> identifies the data, for the manifest.
        helping: what the other processes of a launcher do: their share of what processes do
            together, with the same arguments as the first.

    Returns:
        The run; None on the other processes, which have done all they do. Where
        ``run.finished("report")`` nothing is left to do, and a line on the terminal says so.

    Raises:
        RunFolderError: the folder holds a run of other settings or data, or other files.
    """
    if rank_and_world()[0] > 0:
        # The first process opens the folder, and may find nothing left to do, before others write.
        if not from_first(None):
            helping(config)
        return None
    run = Run.open(config.out, {**settings(config), "data_hash": data_hash(config)})
    if from_first(run.finished("report")):
        print(f"{config.out} is finished already; nothing is left to do.")
    return run


def load(settings: LoadSettings, run: Run | None = None) -> mmlens.HookedMLLM:
    """The model; where a run is given, its manifest says what it is."""
    model = mmlens.load(
        settings.model,
        backbone=settings.backbone,
        device=settings.device,
        dtype=settings.dtype,
        revision=settings.revision,
    )
    if run is not None:
        run.manifest.update(about_model(model, settings.model, settings.revision))
    return model


def announce(
    run: Run,
    config: CommonConfig,
    model: mmlens.HookedMLLM,
    samples: Sequence[Sample],
    *,
    forwards: int,
    answers: int,
    keys: int,
    modules: Sequence[str],
) -> None:
    """Say what the run will take before it takes it, and keep it in the manifest.

    Args:
        run, config, model: the run.
        samples: like those of the run; one batch of them is timed.
        forwards: how many prompts will be run.
        answers: how many answers will be generated.
        keys: domains of the statistics.
        modules: modules of the statistics.
    """
    found = estimate(
        model,
        samples,
        forwards=forwards,
        answers=answers,
        keys=keys,
        modules=modules,
        max_new_tokens=config.answers.max_new_tokens,
        batching=batching(config),
    )
    run.manifest["estimate"] = asdict(found)
    run.save()
    print(found.sentence, flush=True)
