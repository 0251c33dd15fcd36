"""Token states, and what the last token takes from each group (MINER's analyses).

In the order of data: ``conditions`` (what is compared), ``geometry`` and ``indices`` (formulas),
``reduction`` (one sample, layer by layer), ``last_token`` (its attention), ``contributions``,
``store`` (the folder), ``study`` (the pass), ``projections`` and ``tables``.
"""
