"""The small random models, spliced, and the demos: each made once in a process, shared by all tests.

Who changes a model builds its own. A file that leaves a shared one changed fails
(`unchanged`, which tests/conftest.py puts around every file).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mmlens
from mmlens.model.hooked_mllm import HookedMLLM
from tests.tiny import family

_SHARED: dict[tuple[str, str, str], HookedMLLM] = {}
_WEIGHTS: dict[tuple[str, str, str], str] = {}


def spliced(name: str, variant: str | None = None, backbone: str = "auto") -> HookedMLLM:
    """A family's model with its processor; of weights that seed 0 draws.

    Args:
        name: of the family or its module.
        variant: of the family; its first one by default.
        backbone: ``auto``, ``hooked_transformer`` or ``bridge``.
    """
    tiny = family(name)
    key = (tiny.name, variant or next(iter(tiny.variants)), backbone)
    if key not in _SHARED:
        model = mmlens.splice(tiny.variants[key[1]](0), tiny.processor(), backbone=backbone)
        _SHARED[key], _WEIGHTS[key] = model, model.weight_hash
    return _SHARED[key]


def demo(name: str) -> HookedMLLM:
    """A shipped demo, ``llava-next``, on the CPU."""
    key = (f"demo/{name}", "", "auto")
    if key not in _SHARED:
        model = mmlens.load(key[0], device="cpu")
        _SHARED[key], _WEIGHTS[key] = model, model.weight_hash
    return _SHARED[key]


@contextmanager
def unchanged() -> Iterator[None]:
    """Within it, no shared model may come to other weights, into training, or to hooks that stay."""
    before = {key: _state(model) for key, model in _SHARED.items()}
    yield
    for key, model in _SHARED.items():
        writes, *state = _state(model)
        old_writes, *old = before.get(key, (-1, *state))
        assert state == old, f"The shared model {key} was left in another state."
        if writes != old_writes:
            assert model.weight_hash == _WEIGHTS[key], f"The shared model {key} has other weights."


def _state(model: HookedMLLM) -> tuple[int, bool, str, int]:
    """(writes to its weights, whether in training, its attention's implementation, its hooks)."""
    hf = model.hf
    hooks = 0
    for module in hf.modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            # transformers leaves its own when it is asked for attention or hidden states.
            made = getattr(getattr(hook, "func", hook), "__module__", None) or ""
            hooks += not made.startswith("transformers.")
    hooks += sum(
        len(point.fwd_hooks) + len(point.bwd_hooks) for point in model._backbone.hook_dict.values()
    )
    writes = sum(parameter._version for parameter in hf.parameters())
    return writes, hf.training, hf.config._attn_implementation, hooks
