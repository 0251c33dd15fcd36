"""Hooks for neurons. They are (name, function) pairs for any TransformerLens model, adapter or not.

A neuron's activation is what the activation function gives, before the product with the up branch
of a gated MLP (methods: MMNeuron section 3, MINER stage 2). ``hook_post`` holds that product, so an
activation is changed in one of three ways:

- by a factor, at ``hook_post``: the product scales as the activation does (:func:`zero`,
  :func:`scale`, :func:`soft_scale`, :func:`keep_only`);
- to a value v, by v x ``hook_pre_linear`` at ``hook_post``: two hooks per layer of a gated MLP
  (:func:`set_to`, :func:`mean`, :func:`minimum`);
- to another activation of the same neuron or layer, by its pre-activation at ``hook_pre``
  (:func:`resample`, :func:`layer_minimum`).

**Which tokens.** Without ``positions`` every token is changed, in the prompt and while generating,
as MMNeuron and MINER do. ``positions`` is a mask over the positions of one run of the module, for
the language module ``batch.groups.mask("image")`` and its like; new tokens are in no mask, and are
changed only with ``new_tokens=True``. With beams a row's mask holds for all its beams.

**Which rows.** All of the batch; :func:`on_rows` gives each of several interventions its own.

``editing``: what all changes share. ``scaling``, ``values``, ``resampling``: the three ways. ``rows``:
interventions side by side. ``counting``: activations above zero.
"""

from mmlens.hooks.counting import Counter, count, positive_counts
from mmlens.hooks.editing import Hook, Where
from mmlens.hooks.resampling import resample
from mmlens.hooks.rows import on_rows
from mmlens.hooks.scaling import keep_only, scale, soft_factors, soft_scale, zero
from mmlens.hooks.values import layer_minimum, mean, minimum, set_to

__all__ = [
    "Counter",
    "Hook",
    "Where",
    "count",
    "keep_only",
    "layer_minimum",
    "mean",
    "minimum",
    "on_rows",
    "positive_counts",
    "resample",
    "scale",
    "set_to",
    "soft_factors",
    "soft_scale",
    "zero",
]
