"""How neurons were selected, as a small value that names of masks and rows of tables hold."""

from __future__ import annotations

from dataclasses import dataclass

from mmlens.neurons import ALL

#: The strategy of MMNeuron: lowest entropy over domains, in every module.
DOMAIN_ENTROPY = "domain_entropy"


@dataclass(frozen=True)
class Recipe:
    """How neurons were selected.

    Attributes:
        mined: the data set whose importance they come from, or ``all``.
        strategy: of :func:`mmlens.selection.select_neurons`, or another method's name.
        weights: name of the weight vector of the scores.
        ratio: share of the neurons of each module.
        split: how the prompt was split into token sets (methods 3.1).
    """

    mined: str = ALL
    strategy: str = "LA_MU"
    weights: str = "paper"
    ratio: float = 0.02
    split: str = "special_text_separate"

    @classmethod
    def of_domains(cls, fraction: float) -> Recipe:
        """MMNeuron's: a fraction of each module by entropy over domains, which knows no scores."""
        return cls(ALL, DOMAIN_ENTROPY, "", fraction, "")

    @property
    def name(self) -> str:
        """Unique among recipes of one study, for names of masks."""
        if self.strategy == DOMAIN_ENTROPY:
            return f"{self.ratio:g}"
        return "/".join((self.mined, self.strategy, self.weights, f"{self.ratio:g}", self.split))
