"""Loading a model by name, and splicing one that is already in memory."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, PreTrainedModel, ProcessorMixin

from mmlens.adapter import adapter_for
from mmlens.backbone.build import BackboneName
from mmlens.data.demos import demo_path
from mmlens.errors import UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.self_check import self_check

logger = logging.getLogger(__name__)


def default_device() -> str:
    """CUDA where there is one (under a launcher: this process's), else the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def load(
    name: str | Path,
    *,
    backbone: BackboneName = "auto",
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    check: bool = True,
    **kwargs: Any,
) -> HookedMLLM:
    """Load a multimodal model with its processor, and splice it.

    Args:
        name: a shipped demo (``demo/llava-next``), a Hugging Face hub id, or a local folder.
        backbone: ``hooked_transformer``, ``bridge``, or ``auto``: the first wherever it is exact.
        device: default: CUDA where there is one, else the CPU.
        dtype: default: bfloat16 on CUDA, float32 on the CPU.
        revision: branch, tag or commit of a hub id.
        check: run :func:`mmlens.model.self_check.self_check` on a small probe.
        kwargs: passed to ``from_pretrained`` of the model, e.g. ``local_files_only``, or
            ``device_map="auto"`` and ``quantization_config``, which the bridge serves.

    Raises:
        UnsupportedModelError: no such model, no processor beside it, no adapter for it, or no
            backbone that represents its decoder exactly.
    """
    source = demo_path(str(name)) or name
    if isinstance(source, Path) and not source.is_dir():
        raise UnsupportedModelError(f"The folder {source} does not exist.")
    device = torch.device(device or default_device())
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    where = {"revision": revision} if revision else {}
    local = {k: v for k, v in kwargs.items() if k in ("local_files_only", "cache_dir", "token")}
    try:
        config = AutoConfig.from_pretrained(source, **where, **local)
        adapter = adapter_for(config)
        processor = AutoProcessor.from_pretrained(source, **where, **local)
        if not isinstance(processor, ProcessorMixin):
            raise UnsupportedModelError(
                f"{name} has no processor (preprocessor_config.json or processor_config.json), only "
                f"a {type(processor).__name__}; save it there with processor.save_pretrained."
            )
        hf = adapter.auto_class().from_pretrained(source, dtype=dtype, **where, **kwargs)
    except UnsupportedModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedModelError(
            f"{name} could not be loaded: {first} Give a shipped demo, a hub id, or a folder that "
            "save_pretrained of the model and of its processor wrote."
        ) from error
    if "device_map" not in kwargs and "quantization_config" not in kwargs:
        hf = hf.to(device)  # those place the weights themselves
    return splice(hf, processor, backbone=backbone, check=check)


def splice(
    hf_model: PreTrainedModel,
    processor: ProcessorMixin | None = None,
    *,
    backbone: BackboneName = "auto",
    check: bool = True,
) -> HookedMLLM:
    """Splice a Hugging Face model in memory: hooked backbone over its weights, none copied.

    The model is put into eval mode; nothing else of it changes outside ``model.spliced()``.

    Args:
        hf_model: a multimodal model of a family that an adapter serves.
        processor: its processor; without one, give Hugging Face inputs instead of samples.
        backbone: ``hooked_transformer``, ``bridge``, or ``auto``: the first wherever it is exact.
        check: run :func:`mmlens.model.self_check.self_check` on a small probe; of text alone where there is no
            processor.

    Raises:
        UnsupportedModelError: no adapter, or no backbone that represents the decoder exactly.
        SelfCheckError: the spliced model does not compute what the Hugging Face model does.
    """
    model = HookedMLLM(hf_model.eval(), processor, adapter_for(hf_model.config)(hf_model), backbone)
    logger.info("%r", model)
    if check:
        self_check(model)
    return model
