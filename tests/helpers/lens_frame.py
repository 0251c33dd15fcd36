"""A table of the lens with random values, and the lines that a figure draws of it."""

import numpy as np
import pandas as pd


def lens_frame():
    rng = np.random.default_rng(0)
    rows = [
        (f"{key}{i}", key, group, layer, 5, rng.uniform(0, 4), 3.0, rng.uniform())
        for key in ("red", "blue")
        for i in range(4)
        for group in ("image", "text", "last")
        for layer in range(6)
    ]
    names = ["id", "key", "group", "layer", "tokens", "entropy", "answer_rank", "answer_p"]
    return pd.DataFrame(rows, columns=names)


def lines(figure):
    return [
        trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines+markers"
    ]
