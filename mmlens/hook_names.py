"""Hook-point names: TransformerLens's own, behind the module's name for every module but language."""

from typing import Literal

LANGUAGE = "language"
Point = Literal["pre", "post", "pre_linear"]


def mlp_hook(module: str, layer: int, point: Point) -> str:
    """The name of an MLP hook point.

    ``hook_pre`` holds the input of the activation function, ``hook_post`` what the output
    projection reads (for a gated MLP: activation x up branch).

    >>> mlp_hook("language", 3, "post")
    'blocks.3.mlp.hook_post'
    >>> mlp_hook("vision", 0, "pre")
    'vision.blocks.0.mlp.hook_pre'
    """
    prefix = "" if module == LANGUAGE else f"{module}."
    return f"{prefix}blocks.{layer}.mlp.hook_{point}"
