"""The analyses of MMNeuron's experiment, apart from a whole run."""

from types import SimpleNamespace

import pandas as pd
import pytest

from experiments.mmneuron import analyses
from mmlens.ablation.intervention import Intervention
from mmlens.neurons import NONE
from mmlens.streaming.batching import Batching
from tests.helpers.masks import DOMAINS, QUESTIONS, selected


@pytest.mark.parametrize("intervention", [Intervention(), Intervention("scale", 0.5)])
def test_modules_are_masked_as_the_study_says(tmp_path, monkeypatch, intervention):
    """Each module alone, with matched controls: what is done to them is the study's intervention."""
    found = []

    def answered(model, samples, conditions, **options):
        found.append((conditions, options))
        rows = [
            {"setting": one.name, "id": name, "prediction": "a", "score": 1.0}
            for one in conditions
            for name in one.ids
        ]
        return SimpleNamespace(frame=pd.DataFrame(rows))

    monkeypatch.setattr(analyses, "evaluate", answered)
    selections, probabilities = selected()
    study = SimpleNamespace(
        model=None,
        selections=selections,
        probabilities=probabilities,
        domains=DOMAINS,
        questions=QUESTIONS,
        seed=0,
        statistics="those of the run",
        intervention=intervention,
        batching=Batching(),
        answering={"metric_name": "exact_match"},
        run=SimpleNamespace(path=tmp_path.joinpath),
        table=lambda name, stage, make: make(),
    )
    section = analyses.modules_section(study, per_domain=2, seeds=2)
    assert section is not None
    assert len(found) == len(selections)
    for (conditions, options), module in zip(found, selections, strict=True):
        masked = [one for one in conditions if one.name != NONE]
        assert len(masked) == len(DOMAINS) * 3  # each domain's mask and two matched controls
        assert {one.intervention for one in masked} == {intervention}
        assert {neurons.module for one in masked for neurons in one.neurons} == {module}
        assert options["statistics"] == "those of the run"
        assert options["answers"] == tmp_path / f"answers-{module}.jsonl"
