"""Data, models, training and evaluation of the shipped demo models.

A particular demo is known in its own folder alone; `training` and `evaluation` serve all of them.
"""
