"""The page of MINER's experiment, from frames alone."""

from __future__ import annotations

import pandas as pd

from mmlens.report.miner import activity_note


def test_the_report_says_how_active_matched_controls_are():
    rows = [
        {"modality": "text", "evaluated": "all", "control": "matched", "measure": 2.0},
        {"modality": "text", "evaluated": "all", "control": "random", "measure": 2.0},
        {"modality": "text", "evaluated": "video", "control": "matched", "measure": 9.0},
        {"modality": "all", "evaluated": "all", "control": "matched", "measure": 1.0},
    ]
    note = activity_note(pd.DataFrame(rows).assign(control_measure=0.5)).text
    assert "tokens: text 25%, all 50%. Where" in note
