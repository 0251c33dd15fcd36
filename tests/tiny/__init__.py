"""Small random models of every family, built from configs: for parity, tests and benchmarks."""

from __future__ import annotations

from importlib import import_module

import mmlens  # noqa: F401 - before transformers, which may need the operators that it declares
from tests.tiny.common import TinyFamily

#: The modules of this package that hold a family, the papers' four models first.
NAMES = (
    "llava_next",
    "instructblip",
    "qwen2_vl",
    "qwen2_audio",
    "llava",
    "llava_onevision",
    "qwen2_5_vl",
    "qwen3_vl",
    "idefics3",
    "smolvlm",
    "paligemma",
    "gemma3",
    "internvl",
    "qwen2_5_omni",
    "voxtral",
)


def family(name: str) -> TinyFamily:
    """A family by the name of its module, or its own (``qwen2-vl``)."""
    return import_module(f"tests.tiny.{name.replace('-', '_').replace('.', '_')}").FAMILY
