"""The logit lens: what a layer would say, over positions, layers and media.

In the order of data: ``readout`` (norm and unembedding), ``readings`` (what is read, as data),
``logit_lens`` (of a batch), ``result`` (readings that draw themselves by ``figures``), ``study`` (over a
data set), ``stages`` (bends of its curves), ``promoted`` (the tokens a neuron writes for).
"""
