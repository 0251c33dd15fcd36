"""Run folders: one experiment's manifest, stages and results, resumable and never mixed up."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmlens.errors import RunFolderError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.storage.atomic import write_json, write_text
from mmlens.storage.fingerprint import data_fingerprint

_PACKAGES = (
    "mmlens",
    "torch",
    "transformers",
    "transformer-lens",
    "numpy",
    "pillow",
    "torchvision",
)


@dataclass
class Stage:
    """What one stage took; ``tokens`` is filled in by the stage itself.

    Attributes:
        seconds: wall time, summed over interrupted starts of the stage.
        tokens: prompt tokens run, padding left out.
        peak_memory_mb: largest resident memory of the process so far, and of CUDA where used.
    """

    name: str
    seconds: float = 0.0
    tokens: int = 0
    peak_memory_mb: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As a row of the stages table."""
        rate = self.tokens / self.seconds if self.seconds and self.tokens else None
        return {
            "stage": self.name,
            "seconds": round(self.seconds, 2),
            "tokens": self.tokens,
            "tokens_per_second": None if rate is None else round(rate, 1),
            "peak_memory_mb": round(self.peak_memory_mb, 1),
        }


@dataclass
class Run:
    """A folder that holds one experiment.

    Open it with :meth:`open`: a new folder is begun, one of the same settings is resumed, one
    of other settings is refused.

    Attributes:
        folder: where it lies.
        manifest: what it was made with, and its finished stages.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(
        cls, folder: Path, settings: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> Run:
        """Begin a run, or resume one.

        Args:
            folder: created if it is not there.
            settings: everything that decides the results; compared with the folder's.
            about: further facts for the manifest.

        Raises:
            RunFolderError: the folder holds a run of other settings, other files, or cannot be
                written.
        """
        settings = json.loads(json.dumps(dict(settings), default=str))
        path = folder / "manifest.json"
        if path.exists():
            manifest = _read_manifest(path)
            if (old := manifest.get("settings", {})) != settings:
                changed = sorted(k for k in {*old, *settings} if old.get(k) != settings.get(k))[:4]
                what = ", ".join(f"{k} ({old.get(k)!r} -> {settings.get(k)!r})" for k in changed)
                raise RunFolderError(
                    f"{folder} holds a run made with other settings: {what}. Give another folder, or "
                    "delete this one."
                )
            return cls(folder, manifest)
        if folder.exists() and not folder.is_dir():
            raise RunFolderError(f"{folder} is a file; give a folder.")
        if folder.exists() and any(not p.name.endswith(".partial") for p in folder.iterdir()):
            raise RunFolderError(f"{folder} is not empty and holds no run; give another folder.")
        manifest = {
            "settings": settings,
            "settings_hash": data_fingerprint(settings),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join([Path(sys.executable).name, *sys.argv]),
            "versions": _versions(),
            **dict(about or {}),
            "stages": {},
        }
        run = cls(folder, manifest)
        run.save()
        return run

    def path(self, *names: str) -> Path:
        """A path inside the folder."""
        return self.folder.joinpath(*names)

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.path("manifest.json"), self.manifest)

    def finished(self, stage: str) -> bool:
        """Whether a stage has been finished, in this start or an earlier one."""
        return bool(self.manifest["stages"].get(stage, {}).get("finished"))

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Time a stage; on leaving without an error it is finished."""
        before = self.manifest["stages"].get(name, {})
        stage = Stage(name, tokens=before.get("tokens", 0))
        earlier, start = before.get("seconds", 0.0), time.perf_counter()
        done = False
        try:
            yield stage
            done = True
        finally:
            stage.seconds = earlier + time.perf_counter() - start
            stage.peak_memory_mb = peak_memory_mb()
            self.manifest["stages"][name] = {**stage.to_dict(), "finished": done}
            self.save()

    def stages(self) -> pd.DataFrame:
        """A row per stage."""
        rows = [
            {k: v for k, v in s.items() if k != "finished"}
            for s in self.manifest["stages"].values()
        ]
        return pd.DataFrame(rows)

    def write_csv(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table."""
        write_text(self.path(name), frame.to_csv(index=False))


def about_model(model: HookedMLLM, name: str, revision: str | None) -> dict[str, Any]:
    """What a manifest says of the model."""
    image = getattr(model.processor, "image_processor", None)
    return {
        "model": name,
        "revision": revision or getattr(model.hf.config, "_commit_hash", None),
        "weight_hash": model.weight_hash,
        "architecture": type(model.hf).__name__,
        "backbone": model.cfg.backbone,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "image_processor": type(image).__name__ if image is not None else None,
        "image_processor_backend": getattr(image, "backend", None),
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far (and CUDA's, where used), in MB."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resident /= 1024**2 if sys.platform == "darwin" else 1024
    cuda = torch.cuda.max_memory_allocated() / 1024**2 if torch.cuda.is_available() else 0.0
    return resident + cuda


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise RunFolderError(
            f"{path} is not a run's manifest: {error}; give another folder."
        ) from error
    if not isinstance(manifest, dict) or not all(
        isinstance(manifest.get(part), dict) for part in ("settings", "stages")
    ):
        raise RunFolderError(f"{path} is not a run's manifest; give another folder.")
    return manifest


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "cpus": str(os.cpu_count())}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
