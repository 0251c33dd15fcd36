"""Lines of the lens are means over samples, their bands quantiles."""

import numpy as np
import pytest

from mmlens import plots
from tests.helpers.lens_frame import lens_frame, lines


@pytest.fixture(scope="module")
def frame():
    return lens_frame()


def test_entropy_lines_are_means_and_bands_quantiles(frame):
    figure = plots.entropy_by_layer(frame, ["image", "video", "text"], ["blue", "red"])
    assert [trace.name for trace in lines(figure)] == ["blue", "red"] * 2
    own = frame[(frame.key == "red") & (frame.group == "text")]
    np.testing.assert_allclose(lines(figure)[3].y, own.groupby("layer").entropy.mean())
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(bands) == 4
    upper = own.groupby("layer").entropy.quantile(0.9)
    np.testing.assert_allclose(bands[3].y[:6], upper)
    assert "4 samples per domain" in figure.layout.title.subtitle.text


def test_answers_are_those_of_the_last_token(frame):
    figure = plots.answer_by_layer(frame)
    own = frame[(frame.key == "red") & (frame.group == "last")]
    np.testing.assert_allclose(lines(figure)[0].y, own.groupby("layer").answer_p.mean())
    with pytest.raises(ValueError, match="no answers"):
        plots.answer_by_layer(frame.assign(answer_p=np.nan))
    with pytest.raises(ValueError, match="no tokens of audio"):
        plots.entropy_by_layer(frame, ["audio"])
