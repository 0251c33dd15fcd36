"""A HookedTransformer in the decoder's place, over the same weights."""
