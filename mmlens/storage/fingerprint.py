"""Fingerprints: of a model's weights, of files, of settings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Values read from each tensor: enough to tell checkpoints apart, cheap for 7B models.
_VALUES = 1024


@torch.no_grad()
def weight_fingerprint(model: nn.Module) -> str:
    """A short hash of a model's parameter names, shapes and evenly spaced values.

    Values are rounded to bfloat16 first, so that a checkpoint keeps its fingerprint whether it is
    loaded in float32 or bfloat16.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in sorted(model.named_parameters()):
        step = max(1, parameter.numel() // _VALUES)
        values = parameter.detach().reshape(-1)[::step].to(torch.bfloat16).view(torch.int16)
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(values.cpu().numpy().tobytes())
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """A short hash of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def data_fingerprint(data: Any) -> str:
    """A short hash of plain data."""
    text = json.dumps(data, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
