"""HookedMLLM: a Hugging Face model whose decoder runs on a hooked backbone.

In the order of data: ``loading`` and ``self_check`` (a model that proves itself), ``prepare`` (samples to
``batch``), ``hooked_mllm`` (the model; ``modules``, ``hook_resolution`` and ``tower_hooks`` are its
hook points, ``generation`` its answers), ``places`` (where positions lie in the media),
``attention_reader`` (what a layer's attention computes from).
"""
