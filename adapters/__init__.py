"""Adapters: one file per family of Hugging Face models, found by mmlens through entry points.

What families share: ``base`` (decoders, processors, towers by the path of their MLPs), ``decoders``
(which decoders a HookedTransformer represents), ``squares`` and ``anyres`` (pictures as one square, or
as tiles), ``sounds``, ``expansion`` (placeholders that an adapter replaces itself). ``general`` serves
families without a file of their own. mmlens is imported through ``mmlens.adapter`` and the packages of
plain data: ``errors``, ``hook_names``, ``data``, ``tokens``.
"""
