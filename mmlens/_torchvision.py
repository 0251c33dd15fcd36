"""Stand-ins for torchvision's compiled operators where they cannot be loaded.

Video processors are written with torchvision's transforms, which are plain Python. Where
torchvision was built for another torch (its CUDA wheel beside a CPU torch, say) importing it fails
all the same, because its compiled operators are missing, and with it fails all of transformers.
Once those operators are declared, torchvision and its transforms import and work; only what
computes with the operators themselves (boxes, regions of interest, deformable convolutions) does
not.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import torch

#: Arguments shared by several operators.
_BOXES = "Tensor dets, Tensor scores, float iou_threshold"
_REGIONS = "Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_SIZES = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_CONVOLUTION = (
    "Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, "
    "SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask"
)
_SCALE = "float spatial_scale, SymInt pooled_height, SymInt pooled_width"
#: What torchvision's Python parts refer to when they are imported.
_SCHEMAS = (
    f"nms({_BOXES}) -> Tensor",
    f"qnms({_BOXES}) -> Tensor",
    f"roi_align(Tensor input, {_REGIONS}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, {_REGIONS}, {_SIZES}, int sampling_ratio, bool aligned) "
    "-> Tensor",
    f"ps_roi_align(Tensor input, {_REGIONS}, int sampling_ratio) -> (Tensor, Tensor)",
    f"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_SCALE}, "
    f"int sampling_ratio, {_SIZES}) -> Tensor",
    f"roi_pool(Tensor input, {_REGIONS}) -> (Tensor, Tensor)",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_SCALE}, {_SIZES}) -> Tensor",
    f"ps_roi_pool(Tensor input, {_REGIONS}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_SCALE}, "
    f"{_SIZES}) -> Tensor",
    f"deform_conv2d(Tensor input, {_CONVOLUTION}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, Tensor input, {_CONVOLUTION}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def declare_missing_operators() -> bool:
    """Make torchvision importable beside this torch; says whether it had to.

    To be called before anything imports torchvision. The operators get their schemas only: calling
    one raises torch's own `NotImplementedError`. Nothing is done where torchvision is not
    installed, or works, or its operators were declared by somebody else. Calling it again does
    nothing more.
    """
    return _declared() is not None


@functools.cache
def _declared() -> torch.library.Library | None:
    """The library of the declarations, alive as long as the process; None if none is needed."""
    if "torchvision" in sys.modules or hasattr(torch.ops.torchvision, "nms"):
        return None
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _loads(Path(spec.origin).parent):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    return library


def _loads(folder: Path) -> bool:
    """Whether the compiled operators of the torchvision in `folder` can be loaded."""
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    found = next((folder / f"_C{s}" for s in suffixes if (folder / f"_C{s}").is_file()), None)
    if found is None:
        return False
    try:
        torch.ops.load_library(found)  # as torchvision itself does when it is imported
    except OSError:
        return False
    return True
