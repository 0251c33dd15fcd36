"""Data, models, training and evaluation of the shipped demo models.

Only `data_*` and `model_*` know a particular demo; `training` and `evaluation` serve all of them.
"""
