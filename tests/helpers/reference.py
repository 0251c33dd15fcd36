"""Independent ways to the same numbers: on the Hugging Face model itself, by plain hooks."""

from contextlib import contextmanager

import torch


@contextmanager
def activations(hf):
    """Records act_fn's outputs of a plain Hugging Face decoder, by layer."""
    recorded = {}
    handles = [
        layer.mlp.act_fn.register_forward_hook(
            lambda _m, _i, out, index=index: recorded.__setitem__(index, out.detach().clone())
        )
        for index, layer in enumerate(hf.model.language_model.layers)
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def zeroed_columns(hf, neurons):
    """The Hugging Face model with columns of its down projections at zero."""
    before = {}
    layers = hf.model.language_model.layers
    with torch.no_grad():
        for layer, index in neurons.per_layer().items():
            weight = layers[layer].mlp.down_proj.weight
            before[layer] = weight.clone()
            weight[:, index] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, weight in before.items():
                layers[layer].mlp.down_proj.weight.copy_(weight)


@contextmanager
def zeroed_activations(hf, neurons):
    """The papers' way: the activation function's output is set to zero, on plain Hugging Face."""
    layers = hf.model.language_model.layers

    def zeroing(index):
        return lambda _m, _i, out: out.index_fill(-1, index, 0)

    handles = [
        layers[layer].mlp.act_fn.register_forward_hook(zeroing(index))
        for layer, index in neurons.per_layer().items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def close(ours, theirs, mask, tolerance=1e-5):
    """Within ``tolerance`` x max of the reference, on real tokens."""
    difference = (ours - theirs)[mask].abs().max()
    return bool(difference <= tolerance * theirs[mask].abs().max())
