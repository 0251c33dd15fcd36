"""What masking modality-specific neurons costs (MINER), beside the controls: by data set, treatment, split.

Each figure is drawn from the masking table (:data:`mmlens.plots.MASKING_COLUMNS`): a row per setting,
evaluated data set and control. A column that a figure does not vary has one value in the frame
(:func:`mmlens.plots.choose`); the subtitle says which. ValueError for a missing column, an empty
frame, several values of such a column, a control that is not there, or a name that an order lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import pandas as pd
import plotly.graph_objects as go

from mmlens.plots.cost_rows import cost_figure
from mmlens.plots.frames import TREATMENTS, Row, in_order, ordered
from mmlens.plots.masking_frames import (
    TREATMENT_NAMES,
    against,
    described,
    masking_rows,
    modality_name,
)

SPLITS = {
    "prompt": "prompt (one set)",
    "special_text_as_one": "special and text as one",
    "special_text_separate": "special and text separate",
}


def masking_effects(
    masking: pd.DataFrame,
    control: str = "matched",
    *,
    modalities: Sequence[str] | None = None,
    evaluated: Sequence[str] | None = None,
) -> go.Figure:
    """What masking each modality's neurons costs on each data set, against the control.

    Panels and marks as in :func:`mmlens.plots.cost_rows.cost_figure`. ``modalities`` and
    ``evaluated`` give the order. Errors as for the module.
    """
    rows = against(masking_rows(masking, ("modality", "evaluated")), control)
    order, asked = ordered(rows, "modality", modalities), ordered(rows, "evaluated", evaluated)
    drawn = [
        row | {"owner": modality_name(m), "inner": "all data sets" if e == "all" else e, "mask": m}
        for m, e, row in _crossed(rows, ("modality", order), ("evaluated", asked))
    ]
    title = "What masking a modality's neurons costs, by data set"
    subtitle = described(rows, control, ["modality"])
    return cost_figure(drawn, modalities or order, control, title, subtitle)


def treatments_figure(
    masking: pd.DataFrame,
    control: str = "matched",
    *,
    modalities: Sequence[str] | None = None,
) -> go.Figure:
    """What each way of treating a modality's neurons costs, side by side, against the control.

    Per modality: set to 0, set to the layer's minimum, set to 0 on the modality's own tokens alone,
    and all other neurons set to 0. Panels, marks and errors as :func:`masking_effects`; a control is
    treated as the mask is.
    """
    rows = against(masking_rows(masking, ("modality", "treatment")), control)
    order = ordered(rows, "modality", modalities)
    treatments = dict.fromkeys((*TREATMENTS, *in_order(rows, "treatment")))
    drawn = [
        row | {"owner": modality_name(m), "inner": TREATMENT_NAMES.get(done, done), "mask": m}
        for m, done, row in _crossed(rows, ("modality", order), ("treatment", treatments))
    ]
    title = "What each treatment of a modality's neurons costs"
    subtitle = described(rows, control, ["modality", "treatment"])
    return cost_figure(drawn, modalities or order, control, title, subtitle)


def split_types_figure(
    masking: pd.DataFrame,
    control: str = "matched",
    *,
    modalities: Sequence[str] | None = None,
) -> go.Figure:
    """What each way of splitting the prompt into token sets finds, and what masking it costs.

    Per split type (methods 3.1) its modalities, with the number of neurons in brackets. Panels, marks
    and errors as :func:`masking_effects`; columns: :data:`mmlens.plots.SPLIT_COLUMNS`, the masking
    table's and ``split``.
    """
    rows = against(masking_rows(masking, ("modality", "split"), ("split",)), control, ("split",))
    order = ordered(rows, "modality", modalities)
    splits = dict.fromkeys((*SPLITS, *in_order(rows, "split")))
    drawn = [
        row
        | {
            "owner": SPLITS.get(split, split),
            "inner": f"{modality_name(m)} ({int(row['n_neurons']):,})",
            "mask": m,
        }
        for split, m, row in _crossed(rows, ("split", splits), ("modality", order))
    ]
    title = "Ways of splitting the prompt: what masking costs"
    subtitle = described(rows, control, ["modality"], "neurons in brackets; ")
    return cost_figure(drawn, modalities or order, control, title, subtitle)


def _crossed(
    rows: Sequence[Row], outer: tuple[str, Iterable[str]], inner: tuple[str, Iterable[str]]
) -> list[tuple[str, str, Row]]:
    """The row of every pair of values of two columns that has one, the first column outermost."""
    by_pair = {(row[outer[0]], row[inner[0]]): row for row in rows}
    return [(a, b, by_pair[a, b]) for a, b in product(outer[1], inner[1]) if (a, b) in by_pair]
