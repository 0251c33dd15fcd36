"""The Hugging Face decoder itself, under the hook points of a TransformerBridge.

``wiring``: PyTorch hooks that lead tensors through hook points. ``attention``: the same between an
attention's projections. ``twin``: the bridge, built on a twin of the decoder. ``splice``: the exchange.
"""
