"""The spliced model against Hugging Face: logits, activations, generation, and no trace left."""

import copy
import inspect

import pytest
import torch
from torch import nn

import mmlens
from mmlens.errors import HookError, SpliceError, UnsupportedModelError
from tests.helpers.reference import activations, close, zeroed_activations, zeroed_columns
from tests.tiny import llava_next as tiny

SIDES = ("left", "right")
GENERATION = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.7},
    "beams": {"num_beams": 3, "do_sample": False},
}


def a_set(model, n=20, layers=(0, 1)):
    _, width = model.modules["language"].shape
    pairs = [(layer, (7 * i) % width) for layer in layers for i in range(n)]
    return mmlens.NeuronSet(pairs, "language", model.modules["language"].shape)


@pytest.mark.parametrize("side", SIDES)
@torch.no_grad()
def test_logits_equal_hugging_face(tiny_model, samples, side):
    batch = tiny_model.prepare(samples, padding_side=side)
    theirs = tiny_model.hf(**batch.inputs).logits
    assert close(tiny_model(batch), theirs, batch.groups.attention)


@torch.no_grad()
def test_every_activation_equals_hugging_face(tiny_model, samples):
    batch = tiny_model.prepare(samples)
    with activations(tiny_model.hf) as theirs:
        tiny_model.hf(**batch.inputs)
    names = [tiny_model.modules["language"].hook(layer, "pre") for layer in range(3)]
    _, cache = tiny_model.run_with_cache(batch, names_filter=names)
    for layer, name in enumerate(names):
        ours = nn.functional.silu(cache[name])
        assert close(ours, theirs[layer], batch.groups.attention)


@torch.no_grad()
def test_explicit_attention_equals_the_fused_kernel(tiny_model, samples):
    batch = tiny_model.prepare(samples)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(3)]
    logits, cache = tiny_model.run_with_cache(batch, names_filter=names)
    assert close(logits, tiny_model(batch), batch.groups.attention)
    rows = cache[names[0]].sum(-1)[batch.groups.attention[:, None].expand(-1, 4, -1)]
    assert torch.allclose(rows, torch.ones_like(rows))


@torch.no_grad()
def test_one_by_one_equals_together(tiny_model, samples):
    together = tiny_model(tiny_model.prepare(samples))
    attention = tiny_model.prepare(samples).groups.attention
    for row, sample in enumerate(samples):
        alone = tiny_model(tiny_model.prepare(sample))[0]
        inside = together[row, attention[row]]
        assert (alone - inside).abs().max() <= 2e-5 * inside.abs().max()


@torch.no_grad()
def test_the_window_matters(samples):
    """Mistral's sliding window is shorter than the prompts, so ignoring it would be seen."""
    batch = mmlens.splice(tiny.model("mistral"), tiny.processor()).prepare(samples)
    wide = tiny.model("mistral", sliding_window=None)
    narrow = tiny.model("mistral")
    assert not close(
        wide(**batch.inputs).logits, narrow(**batch.inputs).logits, batch.groups.attention
    )


@torch.no_grad()
def test_a_changed_picture_changes_the_logits(tiny_model):
    one, other = (
        mmlens.Sample("x", "what is this ?", (tiny.picture(16, 16, seed),)) for seed in (0, 1)
    )
    assert not torch.allclose(
        tiny_model(tiny_model.prepare(one)), tiny_model(tiny_model.prepare(other))
    )


@pytest.mark.parametrize("how", GENERATION)
@torch.no_grad()
def test_generation_equals_hugging_face(tiny_model, samples, how):
    batch = tiny_model.prepare(samples)
    torch.manual_seed(0)
    theirs = tiny_model.hf.generate(**batch.inputs, max_new_tokens=8, **GENERATION[how])
    torch.manual_seed(0)
    ours = tiny_model.generate(batch, max_new_tokens=8, **GENERATION[how])
    assert torch.equal(ours.tokens, theirs[:, batch.shape[1] :])
    assert len(ours.texts) == len(samples)


@pytest.mark.parametrize("how", GENERATION)
@torch.no_grad()
def test_generation_under_zeroing_equals_hugging_face(tiny_model, samples, how):
    batch, neurons = tiny_model.prepare(samples), a_set(tiny_model)
    plain = tiny_model(batch)
    masked = tiny_model.run_with_hooks(batch, mmlens.hooks.zero(neurons))
    assert (plain - masked).abs().max() > 0.01 * plain.abs().max()  # the mask is felt
    with zeroed_activations(tiny_model.hf, neurons):
        torch.manual_seed(0)
        theirs = tiny_model.hf.generate(**batch.inputs, max_new_tokens=8, **GENERATION[how])
    with tiny_model.hooks(fwd_hooks=mmlens.hooks.zero(neurons)):
        torch.manual_seed(0)
        ours = tiny_model.generate(batch, max_new_tokens=8, **GENERATION[how])
    assert torch.equal(ours.tokens, theirs[:, batch.shape[1] :])


@pytest.mark.parametrize("cache", ["static", "dynamic"])
@torch.no_grad()
def test_generation_with_other_caches(tiny_model, samples, cache):
    batch = tiny_model.prepare(samples)
    options = {"max_new_tokens": 6, "cache_implementation": cache, "do_sample": False}
    theirs = tiny_model.hf.generate(**batch.inputs, **options, disable_compile=True)
    assert torch.equal(tiny_model.generate(batch, **options).tokens, theirs[:, batch.shape[1] :])


@torch.no_grad()
def test_generation_turns_right_padding_to_the_left(tiny_model, samples):
    left = tiny_model.generate(tiny_model.prepare(samples), max_new_tokens=5)
    right = tiny_model.generate(tiny_model.prepare(samples, padding_side="right"), max_new_tokens=5)
    assert torch.equal(left.tokens, right.tokens)


@torch.no_grad()
def test_zeroing_equals_zeroed_columns_of_the_down_projection(tiny_model, samples):
    batch, neurons = tiny_model.prepare(samples), a_set(tiny_model, layers=(0, 2))
    ours = tiny_model.run_with_hooks(batch, mmlens.hooks.zero(neurons))
    with zeroed_columns(tiny_model.hf, neurons):
        theirs = tiny_model.hf(**batch.inputs).logits
    assert close(ours, theirs, batch.groups.attention)


@torch.no_grad()
def test_an_empty_set_changes_no_bit(tiny_model, samples):
    batch = tiny_model.prepare(samples)
    nothing = mmlens.NeuronSet([], "language", tiny_model.modules["language"].shape)
    ours = tiny_model.run_with_hooks(batch, mmlens.hooks.zero(nothing))
    assert torch.equal(ours, tiny_model(batch))


@torch.no_grad()
def test_encoded_media_give_the_same(tiny_model, samples):
    batch = tiny_model.prepare(samples)
    encoded = tiny_model.encode_media(batch)
    if "mm_encoder_outputs" in inspect.signature(tiny_model.hf.forward).parameters:
        assert "pixel_values" not in encoded.inputs  # older transformers: the batch as it is
    assert torch.equal(tiny_model(encoded), tiny_model(batch))
    assert torch.equal(tiny_model.generate(encoded, 5).tokens, tiny_model.generate(batch, 5).tokens)


@torch.no_grad()
def test_tower_hooks_read_and_change(tiny_model, samples):
    batch = tiny_model.prepare(samples)
    recorded = {}
    mlp = tiny_model.hf.model.vision_tower.encoder.layers[1].mlp
    handle = mlp.activation_fn.register_forward_hook(
        lambda _m, _i, out: recorded.__setitem__("vision", out.clone())
    )
    plain, cache = tiny_model.run_with_cache(
        batch, ["vision.blocks.1.mlp.hook_post", "projector.blocks.0.mlp.hook_post"]
    )
    handle.remove()
    assert torch.equal(cache["vision.blocks.1.mlp.hook_post"], recorded["vision"])
    for module, felt in (("vision", True), ("projector", True)):
        info = tiny_model.modules[module]
        everything = ~mmlens.NeuronSet([], module, info.shape)
        masked = tiny_model.run_with_hooks(batch, mmlens.hooks.zero(everything))
        assert bool((masked - plain).abs().max() > 1e-3) is felt


@torch.no_grad()
def test_neurons_off_the_path_cannot_be_felt(tiny_model, samples):
    batch, info = tiny_model.prepare(samples), tiny_model.modules["vision"]
    assert info.on_path == (True, True, False)  # LLaVA reads hidden state -2
    last = mmlens.NeuronSet([(2, i) for i in range(info.width)], "vision", info.shape)
    masked = tiny_model.run_with_hooks(batch, mmlens.hooks.zero(last))
    assert torch.equal(masked, tiny_model(batch))


@torch.no_grad()
def test_last_residual_gives_the_logits(tiny_model, samples):
    logits, cache = tiny_model.run_with_cache(tiny_model.prepare(samples))
    backbone = tiny_model.backbone
    assert torch.equal(backbone.unembed(backbone.ln_final(cache["resid_post", -1])), logits)
    # TransformerLens's own cache methods: the components add up to the residual stream.
    parts = cache.decompose_resid(layer=2, mode="all").sum(0)
    assert torch.allclose(parts, cache["resid_pre", 2], atol=1e-4)


def test_no_copy_of_the_weights(tiny_model):
    layer, block = tiny_model.hf.model.language_model.layers[1], tiny_model.backbone.blocks[1]
    pairs = [
        (block.mlp.W_gate, layer.mlp.gate_proj),
        (block.mlp.W_in, layer.mlp.up_proj),
        (block.mlp.W_out, layer.mlp.down_proj),
        (block.attn.W_Q, layer.self_attn.q_proj),
        (block.attn.W_O, layer.self_attn.o_proj),
        (tiny_model.backbone.unembed.W_U, tiny_model.hf.lm_head),
        (tiny_model.backbone.embed.W_E, tiny_model.hf.model.language_model.embed_tokens),
    ]
    for ours, theirs in pairs:
        assert ours.data_ptr() == theirs.weight.data_ptr()


def test_gradients_flow(fresh_model, samples):
    batch = fresh_model.prepare(samples[:2])
    gradients = {}
    fresh_model.hf.zero_grad()
    fresh_model(batch).sum().backward()
    gradients["ours"] = fresh_model.hf.model.multi_modal_projector.linear_1.weight.grad.clone()
    fresh_model.hf.zero_grad()
    fresh_model.hf(**batch.inputs).logits.sum().backward()
    theirs = fresh_model.hf.model.multi_modal_projector.linear_1.weight.grad
    assert (gradients["ours"] - theirs).abs().max() <= 1e-4 * theirs.abs().max()


# -- the exchange leaves no trace -----------------------------------------------------------------


@torch.no_grad()
def test_hidden_states_and_attentions_before_inside_and_after(samples):
    model = mmlens.splice(tiny.model("mistral"), tiny.processor())
    untouched = copy.deepcopy(model.hf)
    batch = model.prepare(samples)
    with model.spliced():  # the very first capturing call happens inside
        inside = model.hf(**batch.inputs, output_hidden_states=True).hidden_states
        with pytest.raises(SpliceError, match="hook_pattern"):
            model.hf(**batch.inputs, output_attentions=True)
    expected = untouched(**batch.inputs, output_hidden_states=True).hidden_states
    after = model.hf(**batch.inputs, output_hidden_states=True).hidden_states
    assert len(inside) == len(expected) == len(after) == 4
    for ours, theirs, later in zip(inside, expected, after, strict=True):
        assert close(ours, theirs, batch.groups.attention)
        assert torch.equal(theirs, later)
    for hf in (model.hf, untouched):
        hf.set_attn_implementation("eager")
    with model.spliced():
        model.hf(**batch.inputs)
    ours = model.hf(**batch.inputs, output_attentions=True).attentions
    theirs = untouched(**batch.inputs, output_attentions=True).attentions
    assert len(ours) == 3
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@torch.no_grad()
def test_an_eager_model_is_spliced_with_sdpa_and_given_back_eager(samples):
    model = mmlens.splice(tiny.model("mistral"), tiny.processor())
    batch = model.prepare(samples)
    expected = model.hf(**batch.inputs).logits
    model.hf.set_attn_implementation("eager")
    assert close(model(batch), expected, batch.groups.attention)
    assert model.hf.model.language_model.config._attn_implementation == "eager"


@torch.no_grad()
def test_outside_the_model_is_untouched(tiny_model, samples):
    batch = tiny_model.prepare(samples)
    before = tiny_model.hf(**batch.inputs).logits
    state = {n: p.data_ptr() for n, p in tiny_model.hf.named_parameters()}
    modules = [type(m) for m in tiny_model.hf.modules()]
    with tiny_model.hooks(fwd_hooks=mmlens.hooks.zero(a_set(tiny_model))):
        tiny_model(batch)
        assert not torch.allclose(tiny_model.hf(**batch.inputs).logits, before)  # it is felt inside
        assert {n: p.data_ptr() for n, p in tiny_model.hf.named_parameters()} == state
    assert torch.equal(tiny_model.hf(**batch.inputs).logits, before)
    assert [type(m) for m in tiny_model.hf.modules()] == modules
    assert not any("forward" in m.__dict__ for m in tiny_model.hf.modules())
    assert not any(p.has_hooks() for p in tiny_model.hook_dict.values())


@torch.no_grad()
def test_the_backbone_alone_is_a_plain_hooked_transformer(tiny_model, samples):
    tokens = torch.randint(5, len(tiny.WORDS), (2, 17), generator=torch.Generator().manual_seed(0))
    fresh = mmlens.splice(copy.deepcopy(tiny_model.hf)).backbone
    expected = fresh(tokens)
    tiny_model(tiny_model.prepare(samples[:2]))  # leaves no stale positions or masks behind
    assert torch.equal(tiny_model.backbone(tokens), expected)
    text_only = tiny_model.hf(input_ids=tokens).logits  # an independent opinion
    assert (expected - text_only).abs().max() <= 1e-5 * text_only.abs().max()


@torch.no_grad()
def test_an_exception_in_the_middle_of_a_forward(tiny_model, samples):
    batch = tiny_model.prepare(samples)
    expected = tiny_model.hf(**batch.inputs).logits

    def fail(tensor, hook):
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        tiny_model.run_with_hooks(batch, [("blocks.1.attn.hook_z", fail)])
    assert torch.equal(tiny_model.hf(**batch.inputs).logits, expected)
    assert close(tiny_model(batch), expected, batch.groups.attention)
    assert not any(p.has_hooks() for p in tiny_model.hook_dict.values())


@torch.no_grad()
def test_the_backbone_follows_a_change_of_dtype(fresh_model, samples):
    batch = fresh_model.prepare(samples)
    expected = fresh_model(batch)
    fresh_model.hf.to(torch.float64)  # behind the hooked model's back
    inputs = {**batch.inputs, "pixel_values": batch.inputs["pixel_values"].double()}
    ours, theirs = fresh_model(inputs), fresh_model.hf(**inputs).logits
    assert ours.dtype == torch.float64
    assert close(ours, theirs, batch.groups.attention, 1e-6)  # norms stay in float32
    assert close(expected.double(), theirs, batch.groups.attention)
    block, layer = fresh_model.backbone.blocks[0], fresh_model.hf.model.language_model.layers[0]
    assert block.mlp.W_gate.data_ptr() == layer.mlp.gate_proj.weight.data_ptr()
    fresh_model.to(torch.float32)
    assert close(fresh_model(batch), expected, batch.groups.attention)


def test_edited_weights_are_used(fresh_model, samples):
    batch = fresh_model.prepare(samples)
    with torch.no_grad():
        before = fresh_model(batch)
        fresh_model.hf.model.language_model.layers[1].mlp.up_proj.weight.mul_(0.5)
        after = fresh_model(batch)
        assert not torch.allclose(before, after)
        assert close(after, fresh_model.hf(**batch.inputs).logits, batch.groups.attention)


class Wrapped(nn.Module):
    """What a LoRA library does: a projection wrapped, with something added."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + 0.25


def test_a_wrapped_projection_is_refused(fresh_model, samples):
    batch = fresh_model.prepare(samples)
    attention = fresh_model.hf.model.language_model.layers[1].self_attn
    inner = attention.q_proj
    attention.q_proj = Wrapped(inner)
    with pytest.raises(SpliceError, match="q_proj"):
        fresh_model(batch)
    attention.q_proj = inner
    fresh_model(batch)  # as it was, it works again


# -- hooks ----------------------------------------------------------------------------------------


def test_unknown_hook_names_are_refused_with_near_ones(tiny_model, samples):
    with pytest.raises(HookError, match=r"Did you mean .*blocks\.1\.mlp\.hook_post"):
        tiny_model.run_with_hooks(
            tiny_model.prepare(samples[0]), [("blocks.1.mlp.hook_pots", lambda t, hook: t)]
        )
    with pytest.raises(HookError, match="set_use_attn_result"):
        tiny_model.run_with_cache(
            tiny_model.prepare(samples[0]), names_filter="blocks.0.attn.hook_result"
        )


def test_a_hook_that_never_fires_is_an_error(tiny_model, samples):
    text_only = mmlens.Sample("t", "what is a dog ?")
    with pytest.raises(HookError, match="never fired"):
        tiny_model.run_with_cache(tiny_model.prepare(text_only), "vision.blocks.0.mlp.hook_post")


def test_everything_can_be_cached_of_a_prompt_without_pictures(tiny_model):
    text_only = tiny_model.prepare(mmlens.Sample("t", "what is a dog ?"))
    with torch.no_grad():
        logits, cache = tiny_model.run_with_cache(text_only)
    assert "blocks.2.hook_resid_post" in cache
    assert "vision.blocks.0.mlp.hook_post" not in cache
    with pytest.raises(HookError, match="matches none"):
        tiny_model.run_with_cache(text_only, lambda name: name.startswith("layers."))


def test_hook_result_can_be_switched_on(fresh_model, samples):
    batch = fresh_model.prepare(samples[:2])
    with torch.no_grad():
        before = fresh_model(batch)
        fresh_model.backbone.set_use_attn_result(True)
        after, cache = fresh_model.run_with_cache(batch, "blocks.0.attn.hook_result")
    assert cache["blocks.0.attn.hook_result"].shape == (*batch.shape, 4, 32)
    assert close(after, before, batch.groups.attention)


def test_backward_hooks(fresh_model, samples):
    seen = []
    with fresh_model.hooks(
        bwd_hooks=[("blocks.1.hook_resid_post", lambda g, hook: seen.append(g))]
    ):
        fresh_model(fresh_model.prepare(samples[:2])).sum().backward()
    assert len(seen) == 1


def test_cache_options(tiny_model, samples):
    batch = tiny_model.prepare(samples[0])
    _, cache = tiny_model.run_with_cache(
        batch, lambda n: n.endswith("hook_post"), remove_batch_dim=True
    )
    assert cache["blocks.0.mlp.hook_post"].shape == (batch.shape[1], 48)
    assert len(cache) == 3 + 3 + 1


# -- what cannot be represented is refused --------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mlp_bias": True}, "bias"),
        ({"attention_bias": True}, "bias"),
        ({"hidden_act": "tanh"}, "tanh"),
    ],
)
def test_inexact_decoders_are_refused(change, match):
    hf = tiny.model("vicuna", **change)
    with pytest.raises(UnsupportedModelError, match=f"{match}.*bridge"):
        mmlens.splice(hf, tiny.processor(), backbone="hooked_transformer")
    # The bridge, which computes with the Hugging Face modules themselves, is exact.
    model = mmlens.splice(hf, tiny.processor())
    assert model.cfg.backbone == "bridge"
    batch = model.prepare(tiny.samples()[:3])
    assert torch.equal(model(batch), hf(**batch.inputs, use_cache=False).logits)


def test_a_model_without_media_is_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(UnsupportedModelError, match="GPT2LMHeadModel"):
        mmlens.splice(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)))


def test_placeholders_must_equal_features(tiny_model, samples):
    batch = tiny_model.prepare(samples[:2])
    ids = batch.inputs["input_ids"].clone()
    row = (ids[0] == tiny.WORDS.index("<image>")).nonzero()[0]
    ids[0, row] = tiny.WORDS.index("dog")
    with pytest.raises(UnsupportedModelError, match="Row 0 has 9 image placeholder"):
        tiny_model({**batch.inputs, "input_ids": ids})


def test_a_scaled_rotary_is_carried_to_the_plain_backbone():
    scaled = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    model = mmlens.splice(tiny.model("vicuna", rope_parameters=scaled))
    tokens = torch.arange(5, 25)[None]
    with torch.no_grad():
        theirs = model.hf(input_ids=tokens).logits
        assert (model.backbone(tokens) - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_cuda_bf16(samples):
    model = mmlens.splice(tiny.model("mistral").to("cuda", torch.bfloat16), tiny.processor())
    batch = model.prepare(samples)
    theirs = model.hf(**batch.inputs).logits
    assert close(model(batch).float(), theirs.float(), batch.groups.attention, 0.05)
