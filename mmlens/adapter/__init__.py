"""The contract of a model family, and how adapters are found: the one door for adapters, ours and yours.

``parts``: what an adapter is asked for and given. ``base``: the contract, :class:`Adapter`.
``registry``: which adapter serves a model. Import from here, not from the files behind it.
"""

from mmlens.adapter.base import Adapter, owners
from mmlens.adapter.parts import Decoder, Media, MediaSizes, Tower, TowerMLP, Towers, numbered
from mmlens.adapter.registry import ENTRY_POINTS, GENERAL, adapter_for, adapters
from mmlens.tokens.places import KINDS

__all__ = [
    "ENTRY_POINTS",
    "GENERAL",
    "KINDS",
    "Adapter",
    "Decoder",
    "Media",
    "MediaSizes",
    "Tower",
    "TowerMLP",
    "Towers",
    "adapter_for",
    "adapters",
    "numbered",
    "owners",
]
