"""The decoder under TransformerLens hooks: a HookedTransformer or a TransformerBridge.

``exchange``: what a backbone is, and entering and leaving it. ``layout``: where a decoder keeps its
parts. ``scores``: soft cap and mask of attention. ``hooked_transformer`` and ``bridge``: the two
backbones. ``build``: which one a model gets.
"""
