"""The lens over a data set: against the lens of single samples; order, batches and restarts."""

import json

import numpy as np
import pandas as pd
import pytest

import mmlens
from mmlens.errors import SampleError
from mmlens.lens.study import study_lens
from mmlens.streaming.batching import Batching
from tests.helpers import models


@pytest.fixture(scope="module")
def demo():
    return models.demo("llava-next")


@pytest.fixture(scope="module")
def samples():
    every = mmlens.load_samples("demo/llava-next", "validation")
    return [every[i] for i in (0, 3, 700, 701, 1900, 2600)]


@pytest.fixture(scope="module")
def study(demo, samples):
    return study_lens(
        demo, samples, groups=("image", "text", "last"), batching=Batching(progress=False)
    )


def test_rows_are_means_of_single_samples(demo, samples, study):
    for sample in samples:
        batch = demo.prepare([sample])
        result = mmlens.logit_lens(demo, batch)
        frame = result.frame()
        own = study.frame[study.frame.id == sample.id]
        assert set(own.key) == {sample.domain}
        for group in ("image", "text"):
            expected = frame[frame.group == group].groupby("layer").entropy
            rows = own[own.group == group].set_index("layer")
            np.testing.assert_allclose(rows.entropy, expected.mean(), rtol=1e-4)
            assert (rows.tokens == expected.size()).all()


def test_the_answer_is_read_at_the_last_position(demo, samples, study):
    for sample in samples:
        batch = demo.prepare([sample])
        token = demo.tokenizer.convert_tokens_to_ids(sample.answers[0])
        logits = demo(batch)[0, -1].detach().double()
        rows = study.frame.query("id == @sample.id and group == 'last'").set_index("layer")
        last = rows.loc[demo.cfg.n_layers - 1]
        assert last.answer_p == pytest.approx(float(logits.softmax(-1)[token]), rel=1e-3)
        assert last.answer_rank == int((logits > logits[token]).sum())
    assert study.frame[study.frame.group != "last"].answer_p.isna().all()


def test_curves(study):
    curves = study.curves("image")
    assert curves.shape == (6, 6)
    own = study.curves("image", study.frame.key.iloc[0])
    assert len(own) < 6
    assert {tuple(row) for row in own} <= {tuple(row) for row in curves}


def test_batches_and_order_do_not_matter(demo, samples, study):
    other = study_lens(demo, samples[::-1], batching=Batching(max_batch=1, progress=False))
    keys = ["id", "group", "layer"]
    a, b = (one.frame.sort_values(keys).reset_index(drop=True) for one in (study, other))
    pd.testing.assert_frame_equal(a, b, rtol=1e-3, atol=1e-4)


def test_goes_on_where_it_stopped(demo, samples, study, tmp_path):
    path = tmp_path / "lens.jsonl"
    study_lens(demo, samples[:2], rows=path, batching=Batching(progress=False))
    assert len(path.read_text().splitlines()) == 2
    whole = study_lens(demo, samples, rows=path, batching=Batching(progress=False))
    again = study_lens(demo, samples, rows=path, batching=Batching(progress=False))
    assert again.tokens == 0 < whole.tokens
    pd.testing.assert_frame_equal(whole.frame, again.frame)
    pd.testing.assert_frame_equal(whole.frame, study.frame, rtol=1e-3, atol=1e-4)
    assert all(json.loads(line)["layers"] == list(range(6)) for line in path.open())


def test_a_group_that_does_not_occur_and_answers_that_are_not_there(demo, samples):
    bare = [mmlens.Sample(s.id, s.text, images=s.images, domain=s.domain) for s in samples[:2]]
    found = study_lens(demo, bare, groups=("video", "last"), batching=Batching(progress=False))
    assert found.frame[found.frame.group == "video"].entropy.isna().all()
    assert found.frame.answer_p.isna().all()
    assert found.frame[found.frame.group == "last"].entropy.notna().all()


def test_an_unreadable_picture_is_left_out(demo, samples, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = mmlens.Sample("broken", "what?", images=(str(tmp_path / "broken.png"),), domain="x")
    found = study_lens(
        demo, [*samples, broken], batching=Batching(max_failures=0.5, progress=False)
    )
    assert list(found.skipped) == ["broken"]
    assert set(found.frame.id) == {s.id for s in samples}


def test_a_sample_without_a_key_is_refused(demo, samples):
    with pytest.raises(SampleError, match="no value for field 'language'"):
        study_lens(demo, samples, by="language", batching=Batching(progress=False))
