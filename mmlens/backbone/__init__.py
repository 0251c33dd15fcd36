"""The decoder under TransformerLens hooks: a HookedTransformer or a TransformerBridge."""
