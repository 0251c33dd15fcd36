"""From samples to statistics in one pass, batch by batch.

In the order of data: ``batching`` (options of a pass, batches of similar length), ``distributed`` (one
process's share), ``token_limit`` (which samples count), ``plan`` (what will run), ``sweep`` (the one
loop over batches), ``stream`` (a sweep that reduces inside hooks and resumes), ``runs`` (which run of a
tower it is), ``collect`` (activation statistics), ``top`` and ``top_groups`` (the largest activations),
``activations`` (of some neurons along one sample).
"""
