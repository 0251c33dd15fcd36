"""Made-up tables of an experiment on domains: plausible numbers, some of them clear, most of them not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mmlens import plots

DOMAINS = ["medical", "satellite", "texture", "words", "clothing", "shapes", "digits"]


LAYERS, WIDTH = 6, 896


FRACTIONS = (0.01, 0.02, 0.05, 0.1)


def make_selection(domains: list[str], module: str = "language", seed: int = 0) -> Any:
    """Probabilities of a made-up module, most neurons indifferent, some specific."""
    rng = np.random.default_rng(seed)
    k = len(domains)
    level = rng.beta(1.2, 6, size=(LAYERS, WIDTH, 1))
    spread = rng.gamma(1.0, 0.35, size=(LAYERS, WIDTH, 1))
    p = np.clip(level * np.exp(spread * rng.normal(size=(LAYERS, WIDTH, k))), 0, 1)
    p[0, :7] = 0
    tau = float(np.quantile(p, 0.95))
    total = p.sum(-1, keepdims=True)
    share = np.divide(p, total, out=np.full_like(p, 1 / k), where=total > 0)
    entropy = -np.sum(np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), 0), -1)
    entropy[0, :7] = np.nan
    passes = (p > tau).any(-1)
    n_selected = round(0.01 * LAYERS * WIDTH)
    ranked = np.sort(entropy[passes])
    cut = float(ranked[n_selected - 1])
    return plots.SelectionSummary(module, tuple(domains), entropy, passes, tau, cut, n_selected), p


def make_neurons(domains: list[str], module: str = "language", seed: int = 0) -> pd.DataFrame:
    """Neurons of made_selection, as the experiment hands them over."""
    summary, p = make_selection(domains, module, seed)
    order = np.argsort(np.where(summary.passes, summary.entropy, np.inf), axis=None)
    rows = []
    for rank, flat in enumerate(order[: round(FRACTIONS[-1] * order.size)]):
        layer, index = divmod(int(flat), WIDTH)
        labels = [
            d for d, above in zip(domains, p[layer, index] > summary.tau, strict=True) if above
        ]
        if not labels:
            continue
        rows.append(
            {
                "module": module,
                "layer": layer,
                "index": index,
                "fraction": next(f for f in FRACTIONS if rank < round(f * order.size)),
                "entropy": float(summary.entropy[layer, index]),
                "domains": ";".join(labels),
                **{f"p_{d}": float(v) for d, v in zip(domains, p[layer, index], strict=True)},
            }
        )
    return pd.DataFrame(rows)


def make_effects(
    domains: list[str], *, matrix: bool = True, fractions: tuple[float, ...] = FRACTIONS
) -> pd.DataFrame:
    """Effects with a yes, an opposite and several no among them."""
    rng = np.random.default_rng(1)
    rows = []
    for fraction in fractions:
        for mask in [*domains, "all"]:
            parts = ["all"] if mask == "all" else ["own", "others", *(domains if matrix else [])]
            for part in parts:
                for control in ("random", "matched"):
                    own = part in ("own", mask)
                    size = 0.06 if own and mask == domains[0] else 0.0
                    size = -0.05 if own and mask == domains[-1] else size
                    control_drop = abs(rng.normal(0.008, 0.004)) * (1 + 20 * fraction)
                    difference = size * (1 + 10 * fraction) + rng.normal(0, 0.003)
                    half = 0.018 if own else 0.008
                    baseline = 0.9 if own else 0.85
                    rows.append(
                        {
                            "mask": mask,
                            "fraction": fraction,
                            "n_neurons": round(1500 * fraction),
                            "evaluated": part,
                            "control": control,
                            "n_questions": 240 if own else 1440,
                            "n_seeds": 5,
                            "baseline": baseline,
                            "masked": baseline - control_drop - difference,
                            "control_mean": baseline - control_drop,
                            "control_sd": 0.006,
                            "drop": control_drop + difference,
                            "control_drop": control_drop,
                            "difference": difference,
                            "low": difference - half,
                            "high": difference + half,
                        }
                    )
    return pd.DataFrame(rows)


def make_accuracy(
    domains: list[str], fractions: tuple[float, ...] = FRACTIONS, seeds: int = 3
) -> pd.DataFrame:
    """Counts of right answers: none, every mask on every domain, controls of every mask."""
    rng = np.random.default_rng(2)
    rows = []

    def add(*row: Any) -> None:
        mask, kind, seed, fraction, evaluated, rate = row
        correct = int(rng.binomial(240, rate))
        rows.append(
            {
                "mask": mask,
                "kind": kind,
                "seed": seed,
                "fraction": fraction,
                "evaluated": evaluated,
                "n": 240,
                "correct": correct,
                "accuracy": correct / 240,
            }
        )

    for evaluated in domains:
        add("none", "none", -1, 0.0, evaluated, 0.9)
        for fraction in fractions:
            for mask in [*domains, "all"]:
                add(mask, "mask", -1, fraction, evaluated, 0.84 if mask == evaluated else 0.89)
                for kind in ("random", "matched"):
                    for seed in range(seeds):
                        add(mask, kind, seed, fraction, evaluated, 0.88)
    return pd.DataFrame(rows)
