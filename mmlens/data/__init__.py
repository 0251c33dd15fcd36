"""Samples and their media, before any model sees them.

- ``media``: pictures, videos and sounds, decoded
- ``samples``: one question with its media and answers, and the files samples are read from
- ``texts``: texts by language
- ``identity``: which samples show the same media
- ``halves``: two disjoint halves of the data, in parts that double
- ``demos``: the demo models that ship with the package, and their data
"""
