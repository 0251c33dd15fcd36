"""Masks beside their controls: who is asked, what is answered, what it costs.

In the order of data: ``intervention`` (what is done to neurons), ``masks`` (neurons, and controls of
them), ``questions`` (which there are), ``conditions`` (an intervention and who is run under it),
``plan`` (all conditions of a study), ``passes`` (what is left of a pass), ``donors`` (the hooks of a
condition on a batch), ``decoding``, ``answering``. The studies: ``evaluate`` (answers), ``likelihood``
(texts), ``deviation`` (hidden states). Their tables: ``tables``; ``paired`` and ``effects``.
"""
