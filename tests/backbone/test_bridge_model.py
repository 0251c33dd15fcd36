"""The bridge and the model it is built on: no trace outside, weights, kernels, what is refused."""

import copy

import pytest
import torch
import transformers as tf
from torch import nn
from transformer_lens import ActivationCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mmlens.adapter import Decoder
from mmlens.backbone.bridge.splice import BridgeSplice
from mmlens.errors import SpliceError, UnsupportedModelError
from tests.helpers.decoders import (
    FAMILIES,
    GROUPS,
    HEAD,
    HEADS,
    LAYERS,
    MLP,
    MODEL,
    SHAPES,
    TEXT,
    Hooked,
    build,
    changed,
    decoder_of,
    gemma3,
    llama,
    llava,
    make_inputs,
    qwen2_vl,
    splice,
    spliced,
)


@pytest.fixture(params=FAMILIES)
def family(request):
    """A family's name, model and splice; tests leave them as they found them."""
    return request.param, *spliced(request.param)


# -- no trace -------------------------------------------------------------------------------------


def state(hf):
    """All that the exchange could leave behind."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return (
        [(name, id(module), type(module)) for name, module in hf.named_modules()],
        [(name, tensor.data_ptr()) for name, tensor in hf.state_dict().items()],
        [sorted(set(module.__dict__)) for module in hf.modules()],
        [len(getattr(module, kind)) for module in hf.modules() for kind in hooks],
        [module.training for module in hf.modules()],
        dict(ALL_ATTENTION_FUNCTIONS),
        dict(ALL_ATTENTION_FUNCTIONS._local_mapping),
        hf.config.to_dict(),
    )


@torch.no_grad()
def test_no_trace_outside_and_no_strange_module_inside():
    hf = build(gemma3)
    inputs = make_inputs("gemma3")
    expected = hf(**inputs).logits
    before = state(hf)
    backbone = splice(hf)
    assert state(hf) == before
    with Hooked(backbone):
        hf(**inputs)
        inside = state(hf)
        assert inside[:3] == before[:3]  # modules, parameters and attributes, in the middle of it
        with backbone():  # again
            assert backbone.depth == 2
    assert backbone.depth == 0
    assert state(hf) == before
    assert torch.equal(hf(**inputs).logits, expected)


@torch.no_grad()
def test_an_exception_in_the_middle_of_a_forward():
    hf, backbone = spliced("qwen2")
    inputs, before = make_inputs("qwen2"), state(hf)

    def fail(tensor, hook):
        raise RuntimeError("in the middle")

    point = backbone.hook_dict["blocks.1.attn.hook_pattern"]
    point.add_hook(fail)
    with backbone():
        with pytest.raises(RuntimeError, match="in the middle"):
            hf(**inputs)
        assert dict(ALL_ATTENTION_FUNCTIONS) == before[5]
        point.remove_hooks("both")
        assert hf(**inputs).logits.isfinite().all()
    assert state(hf) == before
    passes = backbone.passes
    with backbone():
        hf(**inputs)
    assert backbone.passes == passes + 1


@torch.no_grad()
def test_hidden_states_and_attentions_before_inside_and_after():
    hf = build(llava)
    untouched, backbone, inputs = copy.deepcopy(hf), splice(hf), make_inputs("llava-mistral")
    expected = untouched(**inputs, output_hidden_states=True).hidden_states
    with backbone():  # the very first capturing call happens inside
        inside = hf(**inputs, output_hidden_states=True).hidden_states
        with pytest.raises(SpliceError, match="hook_pattern"):
            hf(**inputs, output_attentions=True)
    after = hf(**inputs, output_hidden_states=True).hidden_states
    assert len(expected) == LAYERS + 1
    for states in (inside, after):
        assert all(torch.equal(a, b) for a, b in zip(states, expected, strict=True))
    point = backbone.hook_dict["blocks.0.hook_resid_post"]
    point.add_hook(lambda t, hook: t * 2)
    with backbone():  # capturing is installed by now, and sees what the hook made of it
        doubled = hf(**inputs, output_hidden_states=True).hidden_states
    point.remove_hooks("both")
    assert torch.equal(doubled[1], expected[1] * 2)


@torch.no_grad()
def test_the_config_may_ask_for_attentions_only_outside():
    hf = build(llama)
    hf.set_attn_implementation("eager")
    hf.config.output_attentions = True
    with pytest.raises(SpliceError, match="hook_pattern"), splice(hf)():
        pass


# -- weights --------------------------------------------------------------------------------------


def assert_shared(backbone, hf):
    decoder = decoder_of(hf)
    layer, block = decoder.layers[1], backbone.model.blocks[1]
    pairs = [
        (block.mlp.W_in, layer.mlp.up_proj),
        (block.mlp.W_gate, layer.mlp.gate_proj),
        (block.mlp.W_out, layer.mlp.down_proj),
        (block.attn.W_Q, layer.self_attn.q_proj),
        (block.attn.W_K, layer.self_attn.k_proj),
        (block.attn.W_O, layer.self_attn.o_proj),
        (backbone.model.W_U, decoder.head),
        (backbone.model.W_E, decoder.embed),
    ]
    for ours, theirs in pairs:
        assert ours.data_ptr() == theirs.weight.data_ptr()
    assert block.attn.W_Q.shape == (HEADS, MODEL, HEAD)
    assert block.mlp.W_in.shape == (MODEL, MLP)


def test_no_copy_of_the_weights_ever():
    hf = build(qwen2_vl)
    backbone = splice(hf)
    assert_shared(backbone, hf)
    hf.to(torch.float64)
    with backbone():
        assert_shared(backbone, hf)
    assert backbone.cfg.dtype == torch.float64
    hf.load_state_dict({n: t.clone() for n, t in hf.state_dict().items()}, assign=True)
    backbone.refresh()
    assert_shared(backbone, hf)
    known = {p.data_ptr() for p in hf.parameters()}
    assert {p.data_ptr() for p in backbone.model.parameters()} <= known


@torch.no_grad()
def test_the_config_speaks_transformer_lens():
    _, backbone = spliced("gemma3")
    cfg = backbone.cfg
    assert (cfg.n_layers, cfg.d_model, cfg.d_mlp, cfg.d_vocab) == (LAYERS, MODEL, MLP, 64)
    assert (cfg.n_heads, cfg.n_key_value_heads, cfg.d_head) == (HEADS, GROUPS, HEAD)
    assert cfg.act_fn == "gelu_pytorch_tanh"
    assert (backbone.name, backbone.gated) == ("bridge", True)


def test_weights_cannot_be_folded():
    _, backbone = spliced("qwen2")
    with pytest.raises(Exception, match="compatibility"):
        backbone.model.enable_compatibility_mode()


@SHAPES
@torch.no_grad()
def test_the_bridge_alone_is_a_plain_text_model(family):
    _, hf, backbone = family
    tokens = torch.randint(10, 64, (2, 7), generator=torch.Generator().manual_seed(0))
    logits, cache = backbone.model.run_with_cache(tokens)
    assert torch.equal(logits, hf(input_ids=tokens).logits)
    assert cache["blocks.1.mlp.hook_post"].shape == (2, 7, MLP)


@torch.no_grad()
def test_transformer_lens_own_tools_work_on_it():
    hf, backbone = spliced("gemma3")
    inputs = make_inputs("gemma3")
    with Hooked(backbone) as hooked:
        expected = hf(**inputs).logits
    activations = ActivationCache(hooked.seen, backbone.model)
    parts = activations.decompose_resid(layer=1, mode="all").sum(0)
    assert torch.allclose(parts, activations["resid_pre", 1], atol=1e-4)
    name = "blocks.0.mlp.hook_post"
    ours = changed(hf, backbone, inputs, name, torch.zeros_like)
    with backbone(), backbone.model.hooks([(name, lambda t, hook: torch.zeros_like(t))]):
        assert torch.equal(hf(**inputs).logits, ours)
    assert torch.equal(hf(**inputs).logits, expected)
    assert not torch.allclose(ours, expected)


class Wrapped(nn.Module):
    """What a LoRA library does: a projection wrapped, with something added."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + 0.25


def test_a_wrapped_projection_is_refused():
    hf = build(llama)
    backbone = splice(hf)
    attention = hf.model.layers[1].self_attn
    inner = attention.q_proj
    attention.q_proj = Wrapped(inner)
    with pytest.raises(SpliceError, match=r"layers\.1\.self_attn\.q_proj.*Wrapped"), backbone():
        pass
    attention.q_proj = inner
    with backbone():  # as it was, it works again
        pass


class Halves(nn.Linear):
    """Like a quantised layer: packed storage that no matrix product may touch."""

    def __init__(self, plain):
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None, "meta")
        self.register_parameter("weight", None)
        self.bias = plain.bias
        self.packed = nn.Parameter(plain.weight.detach().half().view(torch.int16), False)

    def forward(self, x):
        return nn.functional.linear(x, self.packed.view(torch.float16).to(x.dtype), self.bias)


@torch.no_grad()
def test_quantised_layers_are_served():
    hf = build(qwen2_vl)
    for layer in decoder_of(hf).layers:
        for module in (layer.self_attn, layer.mlp):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, Halves(child))
    backbone, inputs = splice(hf), make_inputs("qwen2_vl")
    expected = hf(**inputs).logits
    with Hooked(backbone) as hooked:
        assert torch.equal(hf(**inputs).logits, expected)
    assert hooked.order == list(backbone.hook_dict)
    halved = changed(hf, backbone, inputs, "blocks.0.ln1.hook_scale", lambda t: t * 2)
    assert not torch.allclose(halved, expected)


@pytest.mark.parametrize("place", ["cpu", "disk"])
@torch.no_grad()
def test_dispatched_models_are_served(place, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    hf = build(gemma3)
    inputs = make_inputs("gemma3")
    expected = hf(**inputs).logits
    places = dict.fromkeys(("model.vision_tower", "model.multi_modal_projector", "lm_head"), "cpu")
    for part in ("embed_tokens", "rotary_emb", "layers.0", "layers.1", "norm"):
        places[f"model.language_model.{part}"] = place if part == "layers.1" else "cpu"
    hf = accelerate.dispatch_model(
        hf, places, main_device="cpu", offload_dir=tmp_path, force_hooks=True
    )
    backbone = splice(hf)
    norm = decoder_of(hf).layers[1].input_layernorm
    assert "forward" in norm.__dict__
    with Hooked(backbone) as hooked:
        assert torch.equal(hf(**inputs).logits, expected)
    assert hooked.order == list(backbone.hook_dict)
    for name in (
        "blocks.1.ln1.hook_normalized",
        "blocks.1.hook_resid_mid",
        "blocks.1.mlp.hook_post",
    ):
        assert not torch.allclose(changed(hf, backbone, inputs, name, lambda t: t * 2), expected)
    with pytest.raises(SpliceError, match="does not run alone"):
        backbone.model(inputs["input_ids"])


# -- attention implementations --------------------------------------------------------------------


@pytest.mark.parametrize("make", [llama, lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**TEXT))])
@torch.no_grad()
def test_eager_attention(make):
    """Exact there too; the pattern is Hugging Face's own (soft-capped in Gemma 2)."""
    hf = build(make)
    hf.set_attn_implementation("eager")
    backbone, inputs = splice(hf), make_inputs("llama")
    expected = hf(**inputs, output_attentions=True)
    with Hooked(backbone) as hooked:
        assert torch.equal(hf(**inputs).logits, expected.logits)
    real = inputs["attention_mask"].bool()[:, None].expand(-1, HEADS, -1)
    for layer, theirs in enumerate(expected.attentions):
        ours = hooked.seen[f"blocks.{layer}.attn.hook_pattern"]
        assert torch.allclose(ours[real], theirs[real], atol=1e-6)
    same = changed(hf, backbone, inputs, "blocks.0.attn.hook_pattern", torch.clone)
    assert torch.allclose(
        same[inputs["attention_mask"].bool()],
        expected.logits[inputs["attention_mask"].bool()],
        atol=1e-4,
    )


@torch.no_grad()
def test_patterns_cannot_be_had_of_kernels_that_never_form_them():
    hf = build(llama)
    backbone = splice(hf)
    name = "blocks.0.attn.hook_pattern"
    assert backbone.why_silent(name) is None
    hf.config._attn_implementation = "flash_attention_2"
    assert "set_attn_implementation('sdpa')" in backbone.why_silent(name)
    assert backbone.why_silent("blocks.0.attn.hook_rot_q") is None
    assert backbone.why_silent("blocks.0.mlp.hook_pre") is None
    with pytest.raises(SpliceError, match="flash_attention_2"):
        changed(hf, backbone, make_inputs("llama"), name, lambda t: t)


# -- what is not of this shape is refused --------------------------------------------------------


def bloom():
    hf = tf.BloomForCausalLM(tf.BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=64))
    base = hf.transformer
    return Decoder(base, base.h, base.ln_f, hf.lm_head, base.word_embeddings, None)


def causal(kind, **more):
    name = {"moe": "Qwen3Moe", "fused": "Phi3", "post": "Olmo2", "scaled": "Granite"}[kind]
    config = getattr(tf, f"{name}Config")(**TEXT, **more)
    return decoder_of(getattr(tf, f"{name}ForCausalLM")(config))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (bloom, r"layers\.0, a BloomBlock of .*self_attention.*lacks self_attn"),
        (
            lambda: causal("moe", num_experts=4, moe_intermediate_size=8),
            r"layers\.0\.mlp, a Qwen3MoeSparseMoeBlock of .*experts.* lacks gate_proj.*fc1",
        ),
        (lambda: causal("fused"), r"layers\.0\.self_attn, a Phi3Attention.*lacks q_proj"),
        (lambda: causal("post"), r"Olmo2DecoderLayer.*lacks input_layernorm"),
        (lambda: causal("scaled"), r"GraniteDecoderLayer.*scales"),
    ],
)
def test_other_shapes_are_refused(make, match):
    with pytest.raises(UnsupportedModelError, match=match):
        BridgeSplice(make)
