"""Figures of an experiment on neurons, drawn from tables alone.

Every function is pure: frames or arrays in, a ``plotly.graph_objects.Figure`` out. Nothing here
needs a model. A domain keeps one colour, marker and dash in every figure, by its place in the order
of domains: pass the same ``domains`` to all. Nothing is told by colour alone. Accuracies come in as
shares (0..1) and are drawn in per cent, differences between them in percentage points.
"""

from mmlens.plots.correlation import (
    CONVERGENCE_COLUMNS,
    CORRELATION_COLUMNS,
    convergence_curves,
    score_correlations,
)
from mmlens.plots.deviation import (
    DEVIATION_COLUMNS,
    STABILITY_COLUMNS,
    deviation_by_layer,
    stability_curves,
)
from mmlens.plots.effects import (
    ACCURACY_COLUMNS,
    CONDITIONS,
    EFFECT_COLUMNS,
    NATS,
    POINTS,
    Unit,
    accuracy_bars,
    accuracy_summary,
    effect_matrix,
    effects_against_controls,
    effects_by_modules,
)
from mmlens.plots.importance import importance_maps, selected_by_layer
from mmlens.plots.lens import (
    LENS_COLUMNS,
    answer_by_layer,
    entropy_by_layer,
    lens_table,
    stages_figure,
)
from mmlens.plots.masking import masking_effects, ratio_curves, treatments_figure
from mmlens.plots.masking_frames import MASKING_COLUMNS
from mmlens.plots.masking_maps import masking_grid, mining_matrix
from mmlens.plots.methods import (
    METHOD_COLUMNS,
    METHOD_OVERLAP_COLUMNS,
    PAIR_COLUMNS,
    SPLIT_COLUMNS,
    method_overlap,
    method_pairs,
    methods_comparison,
    split_types_figure,
)
from mmlens.plots.neurons import (
    NEURON_COLUMNS,
    SelectionSummary,
    entropy_histogram,
    layer_distribution,
    neuron_domains,
    neurons_per_domain,
)
from mmlens.plots.overlap import COMBINATION_COLUMNS, OVERLAP_COLUMNS, overlap_heatmap, upset
from mmlens.plots.states import (
    contributions_by_layer,
    indices_by_layer,
    separation_by_layer,
    state_scatter,
)

__all__ = [
    "ACCURACY_COLUMNS",
    "COMBINATION_COLUMNS",
    "CONDITIONS",
    "CONVERGENCE_COLUMNS",
    "CORRELATION_COLUMNS",
    "DEVIATION_COLUMNS",
    "EFFECT_COLUMNS",
    "LENS_COLUMNS",
    "MASKING_COLUMNS",
    "METHOD_COLUMNS",
    "METHOD_OVERLAP_COLUMNS",
    "NATS",
    "NEURON_COLUMNS",
    "OVERLAP_COLUMNS",
    "PAIR_COLUMNS",
    "POINTS",
    "SPLIT_COLUMNS",
    "STABILITY_COLUMNS",
    "SelectionSummary",
    "answer_by_layer",
    "Unit",
    "accuracy_bars",
    "accuracy_summary",
    "contributions_by_layer",
    "convergence_curves",
    "deviation_by_layer",
    "effect_matrix",
    "effects_against_controls",
    "effects_by_modules",
    "entropy_by_layer",
    "entropy_histogram",
    "importance_maps",
    "indices_by_layer",
    "layer_distribution",
    "lens_table",
    "masking_effects",
    "masking_grid",
    "method_overlap",
    "method_pairs",
    "methods_comparison",
    "mining_matrix",
    "neuron_domains",
    "neurons_per_domain",
    "stages_figure",
    "overlap_heatmap",
    "ratio_curves",
    "score_correlations",
    "selected_by_layer",
    "separation_by_layer",
    "split_types_figure",
    "stability_curves",
    "state_scatter",
    "treatments_figure",
    "upset",
]
