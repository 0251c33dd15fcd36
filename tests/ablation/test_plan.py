"""The conditions of a study."""

from mmlens.ablation.plan import domain_conditions
from tests.helpers.masks import QUESTIONS, SCORES, hand_made


def test_settings_of_a_study():
    settings = {s.name: s for s in domain_conditions(hand_made(), QUESTIONS, full=False)}
    assert set(settings) == set(SCORES)
    for name, parts in SCORES.items():
        asked = {
            f"{letter}{i}"
            for letter, part in zip("rb", parts, strict=True)
            for i, score in enumerate(part)
            if score is not None
        }
        assert settings[name].ids == asked
    assert settings["none"].neurons == ()
    assert [len(n) for n in settings["mask/red/0.01"].neurons] == [2]
    everything = {"r0", "r1", "r2", "r3", "b0", "b1", "b2"}
    assert {s.ids for s in domain_conditions(hand_made(), QUESTIONS, full=True)} == {
        frozenset(everything)
    }
