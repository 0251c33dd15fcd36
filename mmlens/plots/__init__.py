"""Figures of an experiment on neurons, drawn from tables alone.

Every function is pure: frames or arrays in, a ``plotly.graph_objects.Figure`` out. Nothing here
needs a model. A domain keeps one colour, marker and dash in every figure, by its place in the order
of domains: pass the same ``domains`` to all. Colour alone carries no meaning. Accuracies come in as
shares (0..1) and are drawn in per cent, differences between them in percentage points.

``frames`` names the columns of all tables, ``numbers`` writes numbers, ``style`` is the look.
MMNeuron's figures: ``neurons``, ``entropy``, ``overlap``, ``upset``, ``stability``; ``accuracy`` and
``effects``, drawn with ``effect_marks``; ``deviation``, with ``traces``; ``lens``. MINER's:
``importance``, ``correlation``, ``convergence``, ``selected``; ``masking``, ``masking_maps``,
``ratios`` and ``methods``, which read a table through ``masking_frames`` and draw rows with
``cost_rows``; ``states`` and ``contributions``, with ``state_panels``.
"""

from mmlens.plots.accuracy import CONDITIONS, accuracy_bars, accuracy_summary
from mmlens.plots.contributions import contributions_by_layer
from mmlens.plots.convergence import convergence_curves
from mmlens.plots.correlation import score_correlations
from mmlens.plots.deviation import deviation_by_layer
from mmlens.plots.effects import effect_matrix, effects_against_controls, effects_by_modules
from mmlens.plots.entropy import SelectionSummary, entropy_histogram
from mmlens.plots.frames import (
    ACCURACY_COLUMNS,
    COMBINATION_COLUMNS,
    CONVERGENCE_COLUMNS,
    CORRELATION_COLUMNS,
    DEVIATION_COLUMNS,
    EFFECT_COLUMNS,
    LENS_COLUMNS,
    MASKING_COLUMNS,
    METHOD_COLUMNS,
    METHOD_OVERLAP_COLUMNS,
    NEURON_COLUMNS,
    OVERLAP_COLUMNS,
    PAIR_COLUMNS,
    SPLIT_COLUMNS,
    STABILITY_COLUMNS,
)
from mmlens.plots.importance import importance_maps
from mmlens.plots.lens import answer_by_layer, entropy_by_layer
from mmlens.plots.masking import masking_effects, split_types_figure, treatments_figure
from mmlens.plots.masking_frames import choose
from mmlens.plots.masking_maps import masking_grid, mining_matrix
from mmlens.plots.methods import method_overlap, method_pairs, methods_comparison
from mmlens.plots.neurons import layer_distribution, neuron_domains, neurons_per_domain
from mmlens.plots.numbers import NATS, POINTS, Unit
from mmlens.plots.overlap import overlap_heatmap
from mmlens.plots.ratios import ratio_curves
from mmlens.plots.selected import selected_by_layer
from mmlens.plots.stability import stability_curves
from mmlens.plots.states import indices_by_layer, separation_by_layer, state_scatter
from mmlens.plots.upset import upset

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
    "Unit",
    "accuracy_bars",
    "accuracy_summary",
    "answer_by_layer",
    "choose",
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
    "masking_effects",
    "masking_grid",
    "method_overlap",
    "method_pairs",
    "methods_comparison",
    "mining_matrix",
    "neuron_domains",
    "neurons_per_domain",
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
