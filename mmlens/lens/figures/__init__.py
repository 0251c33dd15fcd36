"""The lens drawn: one prompt's table, the stages, and tokens over pictures, videos and sounds.

``table`` and ``stages`` stand alone; ``cells`` is what ``picture``, ``video`` and ``sound`` share.
"""
