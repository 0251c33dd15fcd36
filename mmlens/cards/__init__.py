"""Neuron cards: what activates a neuron most, in place, on one page.

``neuron_cards`` makes a page of a model's neurons: ``entries`` and ``strips`` find what its largest
activations are of, ``card`` holds it, ``page`` writes it, with ``spread`` (histograms) and
``strip_svg`` (curves along a sound or a video).
"""
