"""Verdicts in words: a row of effects, or of the masking table, as a sentence with its numbers."""

from __future__ import annotations

import math

from mmlens.plots.frames import Row
from mmlens.plots.numbers import bound, interval, points
from mmlens.report.sections import Answer

_CONTROL_PHRASES = {
    "random": "as many random neurons of the same layers",
    "matched": "as many neurons matched in layer and activation frequency",
}


_CONTROL_NOUNS = {"matched": "matched random", "random": "random"}


#: What is done to the neurons; {} is which ones.
_DONE = {
    "zero": "Silencing {}",
    "layer_minimum": "Setting {} to the least value of their layer",
    "keep_only": "Keeping {} alone",
    "own_tokens": "Silencing {} at tokens of their own modality alone",
}


def domain_sentence(row: Row, answer: Answer) -> str:
    """What silencing a domain's neurons costs its own questions: both drops, their difference with its interval, and the answer."""
    domain, n, control = row["mask"], int(row["n_neurons"]), str(row["control"])
    if n == 0:
        return f"No neuron carries the label {domain}, so there was nothing to silence."
    size = f"{points(abs(row['drop']))} percentage points"
    cost = f"costs {domain} questions {size}"
    if row["drop"] < 0:
        cost = f"raises accuracy on {domain} questions by {size}"
    change = "costs" if row["control_drop"] >= 0 else "gains"
    ending = {
        "yes": "yes, it costs more than the control",
        "no": "no, the interval includes 0",
        "opposite": "no, on the contrary, silencing the control costs more",
    }[answer]
    if answer == "yes" and row["drop"] <= 0:
        ending += " (though accuracy itself did not fall)"
    return (
        f"Silencing the {n} {domain} {'neuron' if n == 1 else 'neurons'} {cost}; silencing "
        f"{_CONTROL_PHRASES.get(control, f'the {control} control')} {change} "
        f"{points(abs(row['control_drop']))}. Difference {points(row['difference'], sign=True)} "
        f"{interval(row['low'], row['high'])}: {ending}."
    )


def masking_sentence(row: Row, control: str) -> str:
    """What masking a modality's neurons costs beside the control, its interval, and accuracy.

    ``difference``, ``low`` and ``high`` of the row are NaN where this control was not run.
    """
    n, modality, evaluated = int(row["n_neurons"]), str(row["modality"]), str(row["evaluated"])
    if n == 0:
        named = "any modality" if modality == "all" else f"the modality {modality}"
        return f"No neuron was selected for {named}, so there was nothing to mask."
    noun = "neuron" if n == 1 else "neurons"
    which = f"the {n:,} {noun} of all modalities"
    if modality != "all":
        which = f"the {n:,} {modality} {noun}"
    done = _DONE.get(str(row["treatment"]), f"{row['treatment']} of {{}}").format(which)
    asked = "all questions" if evaluated == "all" else f"questions of {evaluated}"
    kind = _CONTROL_NOUNS.get(control, control)
    others = f"{'a ' if n == 1 else ''}{kind} {noun}"
    if math.isnan(row["difference"]):
        return (
            f"{done} {_accuracy(row, asked)}; no {control} control was run, so nothing is known of "
            "what other neurons would have cost."
        )
    return f"{done} costs {asked} {_compared(row, others)}. Accuracy {_change(row)}."


def _compared(row: Row, others: str) -> str:
    """How much more than the control, and its interval."""
    difference, low, high = (float(row[name]) for name in ("difference", "low", "high"))
    size = bound(abs(difference))
    noun = "point" if size == "1.0" else "points"
    if abs(difference) <= 1e-12:
        said = f"as much as {others}"
    else:
        said = f"{size} {noun} {'more' if difference > 0 else 'less'} than {others}"
    if math.isnan(low) or math.isnan(high):
        return f"{said}; there is no interval, so this may be chance"
    between = interval(low, high)
    if abs(difference) <= 1e-12:
        return f"{said} {between}"
    if low <= 0 <= high:
        return f"{said}, but the interval of the difference includes 0 {between}"
    # The interval is that of the difference, whose sign "less" has turned.
    turned = "" if difference > 0 else f", difference {points(difference)}"
    return f"{said}{turned} {between}"


def _accuracy(row: Row, asked: str) -> str:
    drop = float(row["drop"])
    size = bound(abs(drop))
    noun = "percentage point" if size == "1.0" else "percentage points"
    if abs(drop) <= 1e-12:
        return f"leaves accuracy on {asked} at {100 * row['baseline']:.1f}%"
    verb = "lowers" if drop > 0 else "raises"
    return f"{verb} accuracy on {asked} by {size} {noun}, {_from_to(row)}"


def _change(row: Row) -> str:
    drop = float(row["drop"])
    if abs(drop) <= 1e-12:
        return f"stays at {100 * row['baseline']:.1f}%"
    return f"{'falls' if drop > 0 else 'rises'} {_from_to(row)}"


def _from_to(row: Row) -> str:
    return f"from {100 * row['baseline']:.1f}% to {100 * row['masked']:.1f}%"
