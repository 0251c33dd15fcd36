"""Masks beside their controls: who is asked, what is answered, what it costs.

In the order of data: ``intervention`` (what is done to neurons), ``masks`` (neurons, and controls of
them), ``questions`` (which there are), ``conditions`` (a mask and who is asked under it; what is left
of a resumed pass), ``decoding``, ``donors`` (the hooks of a condition on a batch), ``answering``. The
studies: ``evaluate`` (answers), ``likelihood`` (texts), ``deviation`` (hidden states). Their tables:
``tables``, ``effects``.
"""
