"""The table has the lens's words."""

import numpy as np
import pytest

import mmlens
from tests.helpers import models


@pytest.fixture(scope="module")
def demo():
    return models.demo("llava-next")


@pytest.fixture(scope="module")
def result(demo):
    samples = mmlens.load_samples("demo/llava-next", "validation")
    wide = next(s for s in samples if s.domain == "document")
    return mmlens.logit_lens(demo, demo.prepare([wide, samples[0]]))


def test_the_table_shows_the_words_of_the_lens(demo, result):
    (table,) = result.plot(1).data
    groups = result.batch.groups
    shown = (groups.mask("text") | groups.mask("special"))[1].nonzero()[:, 0].tolist()
    assert len(table.x) == len(shown)
    np.testing.assert_allclose(table.z, result.entropy[:, 1, shown])
    ids = [i for i in result.top_ids[2, 1, shown[-1]].tolist() if i not in result.special]
    assert table.text[2][-1] == demo.tokenizer.decode([ids[0]])
    with pytest.raises(ValueError, match="No position of video"):
        result.plot(1, groups=["video"])
