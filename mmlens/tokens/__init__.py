"""What each position of a prompt is.

``groups`` (by its token's id), ``token_sets`` (the sets that MINER compares), ``places`` (where it lies
in a medium), ``text`` (how a reader sees it).
"""
