"""Frames of a video have panels of their own."""

import numpy as np
import pytest

import mmlens
from mmlens.model.places import places_of
from tests.tiny import family


def test_frames_of_a_video_have_panels_of_their_own():
    tiny = family("qwen2_vl")
    hf = next(iter(tiny.variants.values()))(0)
    model = mmlens.splice(hf, tiny.processor(), check=False)
    sample = next(s for s in tiny.samples() if s.videos)
    found = mmlens.logit_lens(model, model.prepare(sample))
    places = places_of(model, found.batch, 0)
    moments = sorted({tuple(pair) for pair in places.frames[places.kind == 1].tolist()})
    figure = found.plot_picture(model, kind="video")
    titles = [note.text.split(" (")[0] for note in figure.layout.annotations]
    assert titles == [f"frames {a + 1} to {b}" if b - a > 1 else f"frame {b}" for a, b in moments]
    # Every token's entropy is drawn once, in the lower panel of its moment, where it lies.
    size = mmlens.data.media.videos.video_size(sample.videos[0])
    for number, (first, _) in enumerate(moments):
        (trace,) = [t for t in figure.data if t.type == "heatmap"][number : number + 1]
        own = ((places.kind == 1) & (places.frames[:, 0] == first)).nonzero()[:, 0].tolist()
        for pos in own:
            left, top, right, bottom = places.boxes[pos].tolist()
            column = np.searchsorted(trace.x, (left + right) / 2 * size[2]) - 1
            line = np.searchsorted(trace.y, (top + bottom) / 2 * size[1]) - 1
            assert trace.z[line][column] == pytest.approx(float(found.entropy[0, 0, pos]))
        assert np.size(trace.z) == len(own)
    drawn = [i for i in figure.layout.images if i.yref == "y"]  # the first moment's own frames
    assert len(drawn) == moments[0][1] - moments[0][0]
