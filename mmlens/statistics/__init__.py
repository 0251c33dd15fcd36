"""Plain mergeable numbers, free of any model.

``accumulator`` (reduces a layer's activations), ``neuron_statistics`` (what it gives, on disk too),
``top_activations`` (the largest, and histograms), ``moments`` (mean and standard error of parts),
``bootstrap`` (intervals by resampling).
"""
