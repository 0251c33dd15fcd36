"""A HookedTransformer in the decoder's place, over the same weights.

``attention``: attention that follows what Hugging Face hands to a layer. ``build``: a HookedTransformer
of it, without a copy of the weights. ``splice``: the exchange.
"""
