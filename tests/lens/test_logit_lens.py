"""The logit lens against the straightforward computation, all logits kept, in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

import mmlens
from mmlens.errors import HookError, SampleError, SelfCheckError
from mmlens.lens import readout
from mmlens.lens.logit_lens import POINTS
from mmlens.lens.readout import read
from tests.helpers import models
from tests.tiny import family


@pytest.fixture(scope="module")
def demo():
    return models.demo("llava-next")


@pytest.fixture(scope="module")
def batch(demo):
    samples = mmlens.load_samples("demo/llava-next", "validation")
    return demo.prepare([samples[0], samples[700], samples[1900]])


def none(rows=1):
    return torch.empty(rows, 0, dtype=torch.long)


# -- one distribution ---------------------------------------------------------------------------


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(2, 30)),
        elements=st.floats(-60, 60, width=32),
    ),
    st.integers(0, 1),
)
@settings(deadline=None)
def test_entropy_and_top_tokens_agree_with_scipy(logits, token):
    tokens = torch.full((len(logits), 1), token)
    found = read(torch.tensor(logits), 2, tokens)
    p = special.softmax(logits.astype(np.float64), axis=-1)
    np.testing.assert_allclose(found.entropy, stats.entropy(p, axis=-1), atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(found.top_probabilities, -np.sort(-p)[:, :2], rtol=2e-5, atol=1e-12)
    at_top = np.take_along_axis(p, found.top_ids.numpy(), 1)
    np.testing.assert_allclose(found.top_probabilities, at_top, rtol=2e-5, atol=1e-12)
    np.testing.assert_allclose(found.token_probabilities[:, 0], p[:, token], rtol=2e-5, atol=1e-12)
    ranks = (logits > logits[:, [token]]).sum(1)
    assert found.token_ranks[:, 0].tolist() == ranks.tolist()


@pytest.mark.parametrize(
    ("logits", "entropy"),
    [
        ([0.0, 0.0, 0.0, 0.0], math.log(4)),
        ([1e4, 0.0, 0.0, 0.0], 0.0),
        ([5.0, 5.0, -math.inf, -math.inf], math.log(2)),
        ([-1e30, -1e30, -1e30, 0.0], 0.0),
    ],
)
def test_entropy_at_the_edges(logits, entropy):
    assert read(torch.tensor([logits]), 1, none()).entropy.item() == pytest.approx(
        entropy, abs=1e-6
    )


def test_ranks_see_differences_that_softmax_does_not():
    found = read(torch.tensor([[60.0, 0.0, 1e-30]]), 3, torch.tensor([[1, 2]]))
    assert found.token_ranks.tolist() == [[2, 1]]
    assert found.top_ids.tolist() == [[0, 2, 1]]


def test_a_broken_stream_stays_visible():
    assert read(torch.tensor([[0.0, math.nan]]), 1, none()).entropy.isnan().all()


# -- against all logits kept --------------------------------------------------------------------


def naive(model, batch, point):
    """Every layer's logits at once, by the Hugging Face modules, in float64."""
    _, cache = model.run_with_cache(
        batch, [f"blocks.{i}.{POINTS[point]}" for i in range(model.cfg.n_layers)]
    )
    text = getattr(model.hf.model, "language_model", None) or model.hf.language_model.model
    head = model.hf.get_output_embeddings()
    layers = []
    for i in range(model.cfg.n_layers):
        with torch.no_grad():
            layers.append(head(text.norm(cache[f"blocks.{i}.{POINTS[point]}"])))
    return torch.stack(layers).double()


@pytest.mark.parametrize("point", POINTS)
def test_equals_all_logits_kept(demo, batch, point, monkeypatch):
    monkeypatch.setattr(readout, "CHUNK_LOGITS", 5 * demo.cfg.d_vocab)  # chunks of five positions
    result = mmlens.logit_lens(demo, batch, point=point, tokens=["boot", 7])
    logp = naive(demo, batch, point).log_softmax(-1)
    real = batch.groups.attention
    entropy = -(logp.exp() * logp).sum(-1)
    torch.testing.assert_close(
        result.entropy[:, real].double(), entropy[:, real], atol=1e-5, rtol=1e-5
    )
    assert result.entropy[:, ~real].isnan().all()
    assert (result.top_ids[:, ~real] == -1).all()
    boot = demo.tokenizer.convert_tokens_to_ids("boot")
    wanted = logp[..., [boot, 7]].exp()
    torch.testing.assert_close(
        result.token_probabilities[:, real].double(), wanted[:, real], atol=1e-6, rtol=1e-4
    )
    best = logp.exp().topk(10).values
    torch.testing.assert_close(
        result.top_probabilities[:, real].double(), best[:, real], atol=1e-6, rtol=1e-4
    )


def test_the_last_layer_is_the_model(demo, batch):
    result = mmlens.logit_lens(demo, batch, layers=[-1])
    with torch.no_grad():
        logits = demo(batch)
    real = batch.groups.attention
    assert result.layers == (demo.cfg.n_layers - 1,)
    assert torch.equal(result.top_ids[0, ..., 0][real], logits.argmax(-1)[real])


@pytest.mark.parametrize(
    "name", ["llava_next", "instructblip", "qwen2_vl", "gemma3", "qwen2_audio"]
)
def test_every_kind_of_decoder_is_read(name):
    """The guard compares with the model's own logits, soft-capped where they are; padding and batch do nothing."""
    tiny = family(name)
    hf = next(iter(tiny.variants.values()))(0)
    model = mmlens.splice(hf, tiny.processor(), check=False)
    samples = tiny.samples()[:2]
    together = model.prepare(samples)
    result = mmlens.logit_lens(model, together)
    assert result.layers == tuple(range(model.cfg.n_layers))
    for row, sample in enumerate(samples):
        alone = mmlens.logit_lens(model, model.prepare([sample]))
        own = together.groups.attention[row]
        ours, theirs = result.entropy[:, row, own], alone.entropy[:, 0]
        torch.testing.assert_close(
            ours, theirs[~theirs.isnan()].view_as(ours), atol=1e-4, rtol=1e-4
        )


def test_both_backbones_agree(batch, demo):
    bridge = mmlens.load("demo/llava-next", backbone="bridge")
    ours, theirs = mmlens.logit_lens(demo, batch), mmlens.logit_lens(bridge, batch)
    torch.testing.assert_close(ours.entropy, theirs.entropy, atol=1e-4, rtol=1e-4, equal_nan=True)


# -- what is asked ------------------------------------------------------------------------------


def test_only_the_positions_asked_for(demo, batch):
    images = mmlens.logit_lens(demo, batch, positions="image")
    everything = mmlens.logit_lens(demo, batch)
    mask = batch.groups.mask("image")
    assert torch.equal(~images.entropy[0].isnan(), mask)
    torch.testing.assert_close(images.entropy[:, mask], everything.entropy[:, mask])
    some = torch.zeros_like(mask)
    some[1, -1] = True
    one = mmlens.logit_lens(demo, batch, positions=some)
    assert int((~one.entropy[0].isnan()).sum()) == 1
    torch.testing.assert_close(one.entropy[:, 1, -1], everything.entropy[:, 1, -1])


def test_tokens_by_row(demo, batch):
    by_row = torch.tensor([[5], [6], [7]])
    result = mmlens.logit_lens(demo, batch, tokens=by_row)
    same = mmlens.logit_lens(demo, batch, tokens=[5, 6, 7])
    for row in range(3):
        torch.testing.assert_close(
            result.token_probabilities[:, row, -1, 0], same.token_probabilities[:, row, -1, row]
        )
        assert torch.equal(result.token_ranks[:, row, -1, 0], same.token_ranks[:, row, -1, row])


def test_runs_under_hooks(demo, batch):
    """Silencing a whole layer is felt from that layer on, and not before."""
    info = demo.module("language")
    layer = [(2, i) for i in range(info.width)]
    silenced = mmlens.NeuronSet(layer, "language", info.shape)
    plain = mmlens.logit_lens(demo, batch)
    with demo.hooks(fwd_hooks=mmlens.hooks.zero(silenced)):
        changed = mmlens.logit_lens(demo, batch)
    real = batch.groups.attention
    assert torch.equal(plain.entropy[:2, real], changed.entropy[:2, real])
    assert not torch.allclose(plain.entropy[2, real], changed.entropy[2, real])


def test_listening_to_the_readout_does_not_change_it(demo, batch):
    """The lens reads beside the model: hook points of the final norm fire once, for the model."""
    fired = []
    with demo.hooks(
        fwd_hooks=[("ln_final.hook_normalized", lambda t, hook: fired.append(1) or None)]
    ):
        mmlens.logit_lens(demo, batch)
    assert len(fired) == 1


def test_refuses_where_the_last_layer_is_not_the_model(demo, batch):
    def doubled(tensor, hook):
        return tensor * torch.linspace(0.5, 2, tensor.shape[-1])

    with (
        demo.hooks(fwd_hooks=[("ln_final.hook_normalized", doubled)]),
        pytest.raises(SelfCheckError, match="differ"),
    ):
        mmlens.logit_lens(demo, batch)


def test_a_translator_is_applied_before_the_norm(demo, batch):
    plain = mmlens.logit_lens(demo, batch)
    seen = []

    def translator(stream, layer):
        seen.append(layer)
        return stream * 3  # a norm takes a scale back

    scaled = mmlens.logit_lens(demo, batch, translator=translator)
    assert seen == list(plain.layers)
    torch.testing.assert_close(plain.entropy, scaled.entropy, atol=1e-3, rtol=1e-3, equal_nan=True)
    nothing = mmlens.logit_lens(demo, batch, translator=lambda stream, layer: stream * 0)
    real = batch.groups.attention
    uniform = torch.full_like(nothing.entropy[:, real], math.log(demo.cfg.d_vocab))
    torch.testing.assert_close(nothing.entropy[:, real], uniform)


def test_frame(demo, batch):
    result = mmlens.logit_lens(demo, batch, tokens=["boot"])
    frame = result.frame(top=2)
    assert len(frame) == demo.cfg.n_layers * int(batch.groups.attention.sum())
    row = frame[(frame.layer == 3) & (frame.row == 1)].iloc[-1]
    pos = int(row.pos)
    assert row["sample"] == batch.samples[1].id
    assert row.group == "text"
    assert row.token == demo.tokenizer.decode([int(batch.input_ids[1, pos])])
    assert row.top_2 == demo.tokenizer.decode([int(result.top_ids[3, 1, pos, 1])])
    assert row.p_2 == pytest.approx(float(result.top_probabilities[3, 1, pos, 1]))
    assert row.asked_1 == "boot"
    assert row.asked_rank_1 == int(result.token_ranks[3, 1, pos, 0])
    assert set(frame.group) == {"text", "special", "image"}


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        (
            {"point": "hook_mlp_out"},
            HookError,
            "does not read at 'hook_mlp_out'; it reads at resid_post",
        ),
        ({"layers": [6]}, HookError, "no layer 6; the decoder has 6"),
        ({"tokens": ["handwriting font"]}, SampleError, "not one token"),
        ({"tokens": ["zebra"]}, SampleError, "'zebra' is not one token"),
        ({"tokens": torch.zeros(2, 1, dtype=torch.long)}, SampleError, "the batch has 3 rows"),
        ({"positions": "audio"}, SampleError, "No position of the batch is in 'audio'"),
        ({"positions": "faces"}, SampleError, "no token group 'faces'"),
        ({"positions": torch.ones(1, 1, dtype=torch.bool)}, SampleError, r"is \[1, 1\]"),
    ],
)
def test_bad_input(demo, batch, how, error, match):
    with pytest.raises(error, match=match):
        mmlens.logit_lens(demo, batch, **how)


def test_plain_inputs_without_a_tokenizer():
    tiny = family("llava_next")
    hf, processor = next(iter(tiny.variants.values()))(0), tiny.processor()
    inputs = dict(mmlens.splice(hf, processor, check=False).prepare(tiny.samples()[0]).inputs)
    model = mmlens.splice(hf, check=False)
    result = mmlens.logit_lens(model, inputs, tokens=[3])
    frame = result.frame()
    assert frame["sample"].isna().all()
    assert frame.top_1.str.isdigit().all()
