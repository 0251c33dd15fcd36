"""Made-up masking tables: plausible numbers, each row's columns consistent with one another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

MODALITIES = ("text", "special", "image", "video")
DATA = ("TextVQA", "COCO", "MMLU", "MSVD-QA")
SIZES = {"zero": 1.0, "own_tokens": 0.7, "layer_minimum": 1.3, "keep_only": 3.0}
COLUMNS = (
    *("mined", "strategy", "weights", "ratio", "modality", "treatment", "evaluated", "control"),
    *("n_neurons", "n_questions", "n_seeds", "baseline", "masked", "control_mean", "control_sd"),
    *("drop", "control_drop", "difference", "low", "high"),
)


def masking_frame(
    modalities: Sequence[str] = (*MODALITIES, "all"),
    evaluated: Sequence[str] = (*DATA, "all"),
    *,
    mined: Sequence[str] = ("all",),
    strategies: Sequence[str] = ("LA_MU",),
    weights: Sequence[str] = ("paper",),
    ratios: Sequence[float] = (0.02,),
    treatments: Sequence[str] = ("zero",),
    controls: Sequence[str] = ("matched", "random"),
    seed: int = 0,
) -> pd.DataFrame:
    """A row per setting, evaluated data set and control; "" as the only control: none was run."""
    rng = np.random.default_rng(seed)
    baselines = {name: 0.45 + 0.4 * rng.random() for name in evaluated}
    rows = []
    settings = [
        (a, b, c, d, e, f)
        for a in mined
        for b in strategies
        for c in weights
        for d in ratios
        for e in modalities
        for f in treatments
    ]
    for one in settings:
        place = list(modalities).index(one[4])
        for asked in evaluated:
            size = (0.02 + 0.05 * place) * SIZES[one[5]] * math.sqrt(one[3] / 0.02)
            size *= 0.6 if one[1] == "random" else 1 + 0.3 * (one[0] == asked)
            baseline = baselines[asked]
            masked = max(0.02, baseline - size - 0.01 * rng.standard_normal())
            for control in controls:
                cost = abs(0.01 + 0.006 * rng.standard_normal()) * SIZES[one[5]]
                difference = baseline - cost - masked
                half = 0.02 + 0.01 * rng.random()
                fair = (baseline - cost, 0.008, cost, difference, difference - half)
                fair = (*fair, difference + half) if control else (math.nan,) * 6
                mean, sd, lost, difference, low, high = fair
                n = round(one[3] * 28 * 512 / 3)
                values = (*one, asked, control, n, 400, 3 if control else 0, baseline, masked)
                values = (*values, mean, sd, baseline - masked, lost, difference, low, high)
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    return pd.DataFrame(rows)
