"""Interventions as values: what goes together, and names that tell them apart."""

import pytest

from mmlens.ablation.intervention import Intervention
from mmlens.errors import SampleError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "shrink"}, "no such kind"),
        ({"kind": "scale"}, "needs an amount"),
        ({"kind": "zero", "amount": 1.0}, "takes no amount"),
        ({"kind": "zero", "site": "glu"}, "takes no site"),
        ({"kind": "zero", "keys": ("a",)}, "reads no statistics"),
        ({"kind": "zero", "new_tokens": True}, "only where a group"),
        ({"kind": "resample", "group": "image", "new_tokens": True}, "never when resampling"),
    ],
)
def test_fields_that_do_not_go_together(fields, message):
    kind = fields.pop("kind")
    if kind == "shrink":
        with pytest.raises(Exception, match="kind"):  # beartype's in tests, ours elsewhere
            Intervention(kind)
        return
    with pytest.raises(SampleError, match=message):
        Intervention(kind, **fields)


def test_names_tell_interventions_apart():
    names = {
        Intervention(): "zero",
        Intervention("scale", 0.5): "scale-0.5",
        Intervention("soft_scale"): "soft_scale-1",
        Intervention("set_to", 0.0, site="glu"): "set_to-0.glu",
        Intervention("mean", counted="image", keys=("a", "b")): "mean(image+a+b)",
        Intervention("zero", group="image", new_tokens=True): "zero@image+new",
    }
    for intervention, name in names.items():
        assert intervention.name == name
