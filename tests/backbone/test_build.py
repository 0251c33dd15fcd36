"""Which backbone serves which model, and that both give the same analysis."""

import inspect

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import mmlens
from mmlens.backbone import build as backbone
from mmlens.backbone.build import has_hooked_transformer
from mmlens.backbone.exchange import Backbone
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.streaming.batching import Batching
from tests.tiny import gemma3, llava_next, qwen2_vl

needs_hooked_transformer = pytest.mark.skipif(
    not has_hooked_transformer(), reason="transformer-lens 4 has no HookedTransformer"
)


def both(tiny):
    hf = next(iter(tiny.FAMILY.variants.values()))(0)
    return [
        mmlens.splice(hf, tiny.processor(), backbone=name)
        for name in ("hooked_transformer", "bridge")
    ]


def saved(tmp_path):
    hf = llava_next.model()
    hf.save_pretrained(tmp_path)
    llava_next.processor().save_pretrained(tmp_path)
    return hf, tmp_path


def bytes_tokenizer():
    """One token per byte: stop strings need a tokenizer that can write anything."""
    words = [*llava_next.SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, extra_special_tokens={"image_token": "<image>"}, **roles
    )


def test_an_unknown_backbone_is_refused():
    build = inspect.unwrap(backbone.build_backbone)  # past the type check that users do not have
    with pytest.raises(UnsupportedModelError, match="'nnsight'.*hooked_transformer, bridge"):
        build(mmlens.splice(llava_next.model()).adapter, "nnsight")


@needs_hooked_transformer
def test_both_keep_the_protocol():
    for model in both(llava_next):
        assert isinstance(model._backbone, Backbone)
        assert model.cfg.backbone == model._backbone.name


def test_without_hooked_transformer_the_bridge_serves_and_the_other_says_why(monkeypatch):
    monkeypatch.setattr(backbone, "has_hooked_transformer", lambda: False)
    assert mmlens.splice(llava_next.model()).cfg.backbone == "bridge"
    with pytest.raises(UnsupportedModelError, match=r"4\.0\.0 removed.*hooked-transformer"):
        mmlens.splice(llava_next.model(), backbone="hooked_transformer")


def test_what_hooked_transformer_cannot_represent_goes_to_the_bridge():
    hf = next(iter(gemma3.FAMILY.variants.values()))(0)
    assert mmlens.splice(hf, gemma3.processor()).cfg.backbone == "bridge"
    with pytest.raises(UnsupportedModelError, match="bridge"):
        mmlens.splice(hf, gemma3.processor(), backbone="hooked_transformer")


@needs_hooked_transformer
@pytest.mark.parametrize("tiny", [llava_next, qwen2_vl])
def test_the_same_analysis_gives_the_same_results(tiny):
    models, samples = both(tiny), tiny.samples()
    first, second = (
        mmlens.collect(m, samples, by="domain", batching=Batching(progress=False)) for m in models
    )
    (counts, tokens), (others, other_tokens) = first.counts("language"), second.counts("language")
    assert torch.equal(tokens, other_tokens)
    assert int((counts - others).abs().sum()) <= 3
    neurons = next(iter(mmlens.entropy.domain_neurons(counts, tokens, first.keys, 0.2).values()))
    answers = []
    for model in models:
        with model.hooks(fwd_hooks=mmlens.hooks.zero(neurons)):
            answers.append(model.generate(model.prepare(samples), max_new_tokens=5).tokens)
    assert torch.equal(*answers)
    caches = [m.run_with_cache(m.prepare(samples[:2]))[1] for m in models]
    assert set(caches[1]) <= set(caches[0])
    for name in caches[1]:
        assert caches[0][name].shape == caches[1][name].shape, name


@needs_hooked_transformer
def test_activation_cache_methods_work_on_both():
    stacks = []
    for model in both(llava_next):
        batch = model.prepare(llava_next.samples()[:1])
        _, cache = model.run_with_cache(batch)
        resid, labels = cache.accumulated_resid(layer=-1, incl_mid=True, return_labels=True)
        parts = cache.decompose_resid(layer=-1)
        assert torch.allclose(parts.sum(0), cache["resid_post", model.cfg.n_layers - 1], atol=1e-4)
        stacks.append((resid, labels))
    assert stacks[0][1] == stacks[1][1]
    assert torch.allclose(stacks[0][0], stacks[1][0], atol=1e-4)


@needs_hooked_transformer
def test_weights_by_their_transformer_lens_names_are_the_models_own():
    hooked, bridged = both(llava_next)
    layer = hooked.hf.model.language_model.layers[1]
    for model in (hooked, bridged):
        block = model.backbone.blocks[1]
        assert torch.equal(block.mlp.W_gate, layer.mlp.gate_proj.weight.T)
        assert torch.equal(block.mlp.W_in, layer.mlp.up_proj.weight.T)
        assert torch.equal(block.mlp.W_out, layer.mlp.down_proj.weight.T)
    assert hooked.backbone.blocks[1].mlp.W_out.data_ptr() == layer.mlp.down_proj.weight.data_ptr()


def test_a_device_map_is_served_by_the_bridge(tmp_path):
    hf, folder = saved(tmp_path)
    places = {
        "model.vision_tower": "cpu",
        "model.multi_modal_projector": "cpu",
        "model.image_newline": "cpu",
        "model.language_model": "cpu",
        "lm_head": "disk",
    }
    model = mmlens.load(
        folder, dtype=torch.float32, device_map=places, offload_folder=tmp_path / "offload"
    )
    assert model.cfg.backbone == "bridge"
    batch = model.prepare(llava_next.samples()[:3])
    assert torch.equal(model(batch), hf(**batch.inputs, use_cache=False).logits)
    why = "device_map" if has_hooked_transformer() else "removed"
    with pytest.raises(UnsupportedModelError, match=why):
        mmlens.splice(model.hf, model.processor, backbone="hooked_transformer")


def test_a_device_map_of_one_device_is_an_ordinary_model(tmp_path):
    _, folder = saved(tmp_path)
    model = mmlens.load(folder, device_map="auto", dtype=torch.float32)
    assert torch.isfinite(model(model.prepare(llava_next.samples()[:2]))).all()


def test_quantised_models_are_served_by_the_bridge(monkeypatch):
    hf = llava_next.model()
    monkeypatch.setattr(hf, "is_quantized", True, raising=False)
    assert mmlens.splice(hf).cfg.backbone == "bridge"
    why = "quantised" if has_hooked_transformer() else "removed"
    with pytest.raises(UnsupportedModelError, match=why):
        mmlens.splice(hf, backbone="hooked_transformer")


@pytest.mark.parametrize("name", ["auto", "bridge"])
class TestGeneration:
    def test_stop_strings_and_several_answers(self, name):
        tokenizer = bytes_tokenizer()
        hf = llava_next.model(vocab_size=len(tokenizer))
        model = mmlens.splice(hf, llava_next.processor(tokenizer), backbone=name)
        batch = model.prepare(llava_next.samples()[:2])
        plain = model.generate(batch, max_new_tokens=8).tokens
        stop = model.tokenizer.decode(plain[0, 2])
        settings = {"stop_strings": [stop], "tokenizer": model.tokenizer, "max_new_tokens": 8}
        expected = model.hf.generate(**batch.inputs, **settings)[:, batch.shape[1] :]
        assert torch.equal(
            model.generate(batch, stop_strings=[stop], max_new_tokens=8).tokens, expected
        )
        beams = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 4}
        expected = model.hf.generate(**batch.inputs, **beams)[:, batch.shape[1] :]
        assert torch.equal(model.generate(batch, **beams).tokens, expected)

    def test_what_would_mislead_hooks_is_refused_by_name(self, name):
        model = mmlens.splice(llava_next.model(), llava_next.processor(), backbone=name)
        batch = model.prepare(llava_next.samples()[:1])
        for setting in ({"assistant_model": model.hf}, {"prompt_lookup_num_tokens": 2}):
            with pytest.raises(SampleError, match=next(iter(setting))):
                model.generate(batch, **setting)

    def test_decode_steps_are_counted_only_when_asked_for(self, name):
        model = mmlens.splice(llava_next.model(), llava_next.processor(), backbone=name)
        batch = model.prepare(llava_next.samples()[:1])
        seen = []

        def look(tensor, hook):
            seen.append(tensor)

        with model.hooks(fwd_hooks=[("blocks.1.mlp.hook_pre", look)]):
            new = model.generate(batch, max_new_tokens=4, min_new_tokens=4).tokens
        assert [t.shape[1] for t in seen] == [batch.shape[1], 1, 1, 1]  # the last token is not run
        assert new.shape == (1, 4)
        for wanted, tensors in ((False, seen[:1]), (True, seen)):
            counter = mmlens.hooks.count([1], decode_steps=wanted)
            with model.hooks(fwd_hooks=counter):
                model.generate(batch, max_new_tokens=4, min_new_tokens=4)
            expected = sum((t > 0).flatten(0, 1).sum(0) for t in tensors)
            assert torch.equal(counter.counts()[0, 0], expected)
        with pytest.raises(SampleError, match="decode steps"):
            mmlens.hooks.count([1], batch.groups.stack(("image",)), decode_steps=True)
