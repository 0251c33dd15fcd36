"""The check on load: right splices pass, and every way of being wrong is caught by name."""

from dataclasses import replace

import pytest
import torch
from transformer_lens.hook_points import HookPoint

import mmlens
from mmlens.backbone.build import has_hooked_transformer
from mmlens.errors import SelfCheckError
from mmlens.model.self_check import CHECKS, make_probe, probe_samples, self_check
from tests.tiny import llava_next, qwen2_vl

needs_hooked_transformer = pytest.mark.skipif(
    not has_hooked_transformer(), reason="transformer-lens 4 has no HookedTransformer"
)


def spliced(tiny, backbone="auto"):
    tiny = tiny.FAMILY
    hf = next(iter(tiny.variants.values()))(0)
    return mmlens.splice(hf, tiny.processor(), backbone=backbone, check=False)


def test_a_right_splice_passes_every_check():
    assert self_check(spliced(qwen2_vl)) == tuple(CHECKS)


def test_the_probe_shows_every_kind_and_pads():
    model = spliced(qwen2_vl)
    probe = make_probe(model)
    assert all(bool(probe.batch.groups.mask(kind).any()) for kind in ("image", "video"))
    assert not bool(probe.batch.groups.attention.all())
    pictures = [probe_samples(("image",), seed)[0].images[0] for seed in (0, 1)]
    assert pictures[0].size == pictures[1].size
    assert pictures[0].tobytes() != pictures[1].tobytes()


def test_without_a_processor_the_text_is_checked():
    hf = llava_next.model()
    assert self_check(mmlens.splice(hf, None, check=False)) == tuple(CHECKS)


@needs_hooked_transformer
def test_plain_rotary_positions_in_place_of_multimodal_ones_are_caught(monkeypatch):
    from mmlens.backbone.hooked_transformer import splice as exchange

    model = spliced(qwen2_vl, "hooked_transformer")
    rotary = model.adapter.decoder().rotary

    def plain(cos, sin, *rest):
        positions = torch.arange(cos.shape[1]).expand(3, cos.shape[0], -1)
        return call(*rotary(cos, positions), *rest)

    call = exchange.LayerCall
    monkeypatch.setattr(exchange, "LayerCall", plain)
    with pytest.raises(SelfCheckError, match="'logits equal Hugging Face'"):
        self_check(model)


@torch.no_grad()
@needs_hooked_transformer
def test_a_dropped_mask_is_caught(monkeypatch):
    from mmlens.backbone.hooked_transformer import splice as exchange

    model = spliced(llava_next, "hooked_transformer")
    call = exchange.LayerCall
    monkeypatch.setattr(
        exchange, "LayerCall", lambda cos, sin, _mask, *rest: call(cos, sin, None, *rest)
    )
    with pytest.raises(SelfCheckError, match="'logits equal Hugging Face'"):
        self_check(model)
    assert CHECKS["a padded row equals the row alone"](model, make_probe(model)) is not None


@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize("backbone", ["auto", "bridge"])
def test_a_shifted_placeholder_is_caught(monkeypatch, shift, backbone):
    model = spliced(llava_next, backbone)
    inner = model.hf.model
    found = inner.get_placeholder_mask
    monkeypatch.setattr(
        inner, "get_placeholder_mask", lambda *a, **k: found(*a, **k).roll(shift, dims=1)
    )
    with pytest.raises(SelfCheckError, match="'placeholders equal features'"):
        self_check(model)


@pytest.mark.parametrize("backbone", ["auto", "bridge"])
def test_an_ignored_projector_is_caught(monkeypatch, backbone):
    model = spliced(llava_next, backbone)
    projector = model.hf.model.multi_modal_projector
    monkeypatch.setattr(projector.linear_2, "forward", lambda x: torch.zeros(*x.shape[:-1], 32))
    with pytest.raises(SelfCheckError, match="'placeholders equal features'"):
        self_check(model)
    assert "not read" in CHECKS["another medium changes the logits"](model, make_probe(model))


@pytest.mark.parametrize("backbone", ["auto", "bridge"])
def test_a_hook_that_never_fires_is_caught(backbone):
    model = spliced(llava_next, backbone)
    model.hook_dict["blocks.0.mlp.hook_ghost"] = HookPoint()
    with pytest.raises(SelfCheckError, match=r"'every hook point fires'.*hook_ghost"):
        self_check(model)


def test_a_wrong_head_is_caught(monkeypatch):
    model = spliced(llava_next)
    monkeypatch.setattr(model.adapter, "final_logits", lambda logits: 2 * logits)
    with pytest.raises(SelfCheckError, match="'the lens of the last layer equals the logits'"):
        self_check(model)


def test_not_a_number_is_caught():
    model = spliced(llava_next)
    with torch.no_grad():
        model.adapter.decoder().layers[0].mlp.down_proj.weight.fill_(torch.nan)
    with pytest.raises(SelfCheckError):
        self_check(model)


def test_loading_checks_and_can_be_told_not_to(monkeypatch, tmp_path):
    hf, processor = llava_next.model(), llava_next.processor()
    hf.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    seen = []
    monkeypatch.setattr("mmlens.model.loading.self_check", seen.append)
    model = mmlens.load(tmp_path, device="cpu")
    assert seen == [model]
    mmlens.load(tmp_path, device="cpu", check=False)
    assert seen == [model]


def test_a_probe_of_ones_own_can_be_given():
    model = spliced(llava_next)
    probe = make_probe(model)
    assert self_check(model, replace(probe, other=None)) == tuple(CHECKS)
