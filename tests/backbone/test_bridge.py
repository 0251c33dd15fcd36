"""The bridge against Hugging Face: the same bits, at every hook point."""

import copy
from functools import cache

import pytest
import torch

from tests.helpers.decoders import (
    FAMILIES,
    GROUPS,
    HEAD,
    HEADS,
    LAYERS,
    MLP,
    MODEL,
    SHAPES,
    Hooked,
    changed,
    decoder_of,
    make_inputs,
    splice,
    spliced,
    unlike,
)


@pytest.fixture(params=FAMILIES)
def family(request):
    """A family's name, model and splice; tests leave them as they found them."""
    return request.param, *spliced(request.param)


# -- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_logits_equal_hugging_face_bit_for_bit(family, side):
    name, hf, backbone = family
    inputs = make_inputs(name, side)
    expected = hf(**inputs).logits
    with backbone():
        assert torch.equal(hf(**inputs).logits, expected)
    with Hooked(backbone) as hooked:  # watched everywhere, the pattern too
        assert torch.equal(hf(**inputs).logits, expected)
    assert hooked.order == list(backbone.hook_dict)


@torch.no_grad()
def test_bfloat16_equals_hugging_face_bit_for_bit(family):
    name, hf, _ = family
    hf = copy.deepcopy(hf)
    backbone = splice(hf)
    hf.to(torch.bfloat16)
    inputs = make_inputs(name, dtype=torch.bfloat16)
    expected = hf(**inputs).logits
    with Hooked(backbone) as hooked:
        assert torch.equal(hf(**inputs).logits, expected)
    assert backbone.cfg.dtype == torch.bfloat16
    assert hooked.seen["blocks.0.mlp.hook_post"].dtype == torch.bfloat16


@torch.no_grad()
def test_generation_equals_hugging_face(family):
    name, hf, backbone = family
    inputs, options = make_inputs(name), {"max_new_tokens": 3, "do_sample": False}
    theirs = hf.generate(**inputs, **options)
    with Hooked(backbone) as hooked:
        assert torch.equal(hf.generate(**inputs, **options), theirs)
    assert hooked.seen["blocks.1.attn.hook_rot_k"].shape[1] == 1  # the new position, not the cache


@pytest.mark.parametrize(
    "how", [{"do_sample": True}, {"num_beams": 2, "cache_implementation": "static"}]
)
@torch.no_grad()
def test_generation_in_other_ways(how):
    hf, backbone = spliced("qwen2_vl")
    inputs = make_inputs("qwen2_vl")
    how = {"do_sample": False, "max_new_tokens": 5, "disable_compile": True, **how}
    torch.manual_seed(0)
    theirs = hf.generate(**inputs, **how)
    torch.manual_seed(0)
    with Hooked(backbone):
        assert torch.equal(hf.generate(**inputs, **how), theirs)


# -- hook points ----------------------------------------------------------------------------------


def reference_activations(hf, inputs):
    """By plain PyTorch hooks on the Hugging Face modules: module name -> (input, output)."""
    decoder, seen, handles = decoder_of(hf), {}, []
    for name, module in decoder.model.named_modules():

        def record(_module, args, kwargs, output, name=name):
            first = args[0] if args else kwargs.get("hidden_states")
            seen[name] = first, output[0] if isinstance(output, tuple) else output

        handles.append(module.register_forward_hook(record, with_kwargs=True))
    with torch.no_grad():
        hf(**inputs)
    for handle in handles:
        handle.remove()
    return seen


@torch.no_grad()
def test_hook_points_hold_what_the_modules_compute(family):
    name, hf, backbone = family
    inputs = make_inputs(name)
    modules = reference_activations(hf, inputs)
    with Hooked(backbone) as hooked:
        hf(**inputs)
    seen, (batch, pos) = hooked.seen, inputs["input_ids"].shape
    assert torch.equal(seen["hook_embed"], modules["layers.0"][0])
    sandwich = "layers.0.pre_feedforward_layernorm" in modules
    for layer in range(LAYERS):
        at = f"layers.{layer}."
        attention, mlp, norm = at + "self_attn", at + "mlp", "post_attention_layernorm"
        gate = mlp + (".gate_proj" if backbone.gated else ".up_proj")
        expected = {
            "hook_resid_pre": modules[at[:-1]][0],
            "hook_resid_mid": modules[at + ("pre_feedforward_layernorm" if sandwich else norm)][0],
            "hook_resid_post": modules[at[:-1]][1],
            "hook_attn_out": modules[at + norm if sandwich else attention][1],
            "hook_mlp_out": modules[at + "post_feedforward_layernorm" if sandwich else mlp][1],
            "attn.hook_q": modules[attention + ".q_proj"][1].view(batch, pos, HEADS, HEAD),
            "attn.hook_k": modules[attention + ".k_proj"][1].view(batch, pos, GROUPS, HEAD),
            "attn.hook_v": modules[attention + ".v_proj"][1].view(batch, pos, GROUPS, HEAD),
            "attn.hook_z": modules[attention + ".o_proj"][0].view(batch, pos, HEADS, HEAD),
            "mlp.hook_pre": modules[gate][1],
            "mlp.hook_post": modules[mlp + ".down_proj"][0],
        }
        if backbone.gated:
            expected["mlp.hook_pre_linear"] = modules[mlp + ".up_proj"][1]
        for point, value in expected.items():
            assert torch.equal(seen[f"blocks.{layer}.{point}"], value), point
        middle = seen[f"blocks.{layer}.hook_resid_mid"]
        assert torch.equal(middle, expected["hook_resid_pre"] + expected["hook_attn_out"])
        pattern = seen[f"blocks.{layer}.attn.hook_pattern"]
        assert pattern.shape == (batch, HEADS, pos, pos)
        z = pattern @ seen[f"blocks.{layer}.attn.hook_v"].transpose(1, 2).repeat_interleave(2, 1)
        real = inputs["attention_mask"].bool()
        difference = (z.transpose(1, 2) - expected["attn.hook_z"])[real].abs().max()
        assert difference < 1e-4
    scaled = seen["ln_final.hook_normalized"] * seen["ln_final.hook_scale"]
    assert torch.allclose(scaled, modules["norm"][0], atol=1e-5)


@SHAPES
@torch.no_grad()
def test_every_hook_point_changes_the_logits(family):
    _, hf, backbone = family
    inputs = make_inputs("text alone")
    plain = hf(**inputs).logits
    for point in [p for p in backbone.hook_dict if "blocks.1" not in p]:
        logits = changed(hf, backbone, inputs, point, unlike)
        assert (logits - plain).abs().max() > 1e-3 * plain.abs().max(), point
    assert torch.equal(hf(**inputs).logits, plain)


@SHAPES
@torch.no_grad()
def test_what_is_put_back_unchanged_changes_next_to_nothing(family):
    """A new tensor of the same values takes the long way through norms, attention and mid stream."""
    _, hf, backbone = family
    inputs = make_inputs("text alone")
    plain = hf(**inputs).logits
    real = inputs["attention_mask"].bool()
    for point in [p for p in backbone.hook_dict if "blocks.1" not in p]:
        logits = changed(hf, backbone, inputs, point, torch.clone)
        assert (logits - plain)[real].abs().max() <= 1e-5 * plain.abs().max(), point


@SHAPES
@torch.no_grad()
def test_writing_in_place_is_felt(family):
    _, hf, backbone = family
    inputs = make_inputs("text alone")
    points = ("hook_resid_mid", "ln2.hook_normalized", "attn.hook_pattern", "attn.hook_attn_scores")
    for point in (f"blocks.0.{p}" for p in points):

        def write(tensor):
            tensor[:, 1:2] *= 0.5  # and nothing is returned

        def give(tensor):
            tensor = tensor.clone()
            tensor[:, 1:2] *= 0.5
            return tensor

        ours = changed(hf, backbone, inputs, point, write)
        with torch.inference_mode():
            inferred = changed(hf, backbone, inputs, point, write)
        given = changed(hf, backbone, inputs, point, give)
        for other in (given, inferred):
            assert torch.allclose(ours, other, atol=1e-4, equal_nan=True), point
        assert not torch.allclose(ours, hf(**inputs).logits, atol=1e-4)


@SHAPES
@torch.no_grad()
def test_zeroing_equals_zeroed_columns_of_the_down_projection(family):
    name, hf, backbone = family
    inputs, columns = make_inputs(name), [1, 7, 30]
    ours = changed(
        hf,
        backbone,
        inputs,
        "blocks.1.mlp.hook_post",
        lambda t: t.index_fill(-1, torch.tensor(columns), 0),
    )
    with torch.no_grad():
        weight = decoder_of(hf).layers[1].mlp.down_proj.weight
        before = weight.clone()
        weight[:, columns] = 0
        theirs = hf(**inputs).logits
        weight.copy_(before)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, hf(**inputs).logits, atol=1e-3)


@torch.no_grad()
def test_the_residual_stream_is_exchanged_on_both_its_ways():
    """Halved after attention, it reaches the MLP and the next layer: computed by hand."""
    hf, backbone = spliced("qwen2")
    inputs = make_inputs("qwen2")
    layer = decoder_of(hf).layers[1]
    with Hooked(backbone) as hooked:
        hf(**inputs)
    middle = hooked.seen["blocks.1.hook_resid_mid"] * 0.5
    last = middle + layer.mlp(layer.post_attention_layernorm(middle))
    expected = hf.lm_head(hf.model.norm(last))
    ours = changed(hf, backbone, inputs, "blocks.1.hook_resid_mid", lambda t: t * 0.5)
    assert torch.allclose(ours, expected, atol=1e-5)


@torch.no_grad()
def test_changed_keys_are_the_ones_the_cache_keeps():
    hf, backbone = spliced("qwen2")
    inputs = make_inputs("qwen2")
    for point in ("blocks.0.attn.hook_k", "blocks.0.attn.hook_rot_k"):
        backbone.hook_dict[point].add_hook(lambda t, hook: t * 3 + 1)
        with backbone():
            tokens = {
                cached: hf.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=cached)
                for cached in (True, False)
            }
        backbone.hook_dict[point].remove_hooks("both")
        assert torch.equal(tokens[True], tokens[False])
        assert not torch.equal(tokens[True], hf.generate(**inputs, max_new_tokens=6))


def test_gradients_reach_hook_points_and_weights():
    hf, backbone = spliced("gemma3")
    inputs, kept = make_inputs("gemma3"), {}

    def keep(_module, args):
        args[0].retain_grad()
        kept["stream"] = args[0]

    layer = decoder_of(hf).layers[0]
    handle = layer.pre_feedforward_layernorm.register_forward_pre_hook(keep)
    hf.zero_grad()
    hf(**inputs).logits.square().mean().backward()
    handle.remove()
    weight = layer.self_attn.q_proj.weight
    theirs = kept["stream"].grad, weight.grad.clone()
    hf.zero_grad()
    ours = {}
    for name in ("hook_resid_mid", "attn.hook_pattern", "ln1.hook_scale"):
        point = backbone.hook_dict[f"blocks.0.{name}"]
        point.add_hook(lambda g, hook: ours.__setitem__(hook.name, g.clone()), dir="bwd")
    with backbone():
        hf(**inputs).logits.square().mean().backward()
    for point in backbone.hook_dict.values():
        point.remove_hooks("both")
    assert len(ours) == 3
    for mine, reference in zip((ours["blocks.0.hook_resid_mid"], weight.grad), theirs, strict=True):
        assert torch.allclose(mine, reference, atol=1e-4 * reference.abs().max())
    hf.zero_grad()


# -- against HookedTransformer, which computes on its own --------------------------------------------


@cache
def hooked_transformer():
    try:
        from transformer_lens import HookedTransformer, HookedTransformerConfig
    except ImportError:
        pytest.skip("transformer-lens 4 has no HookedTransformer")
    from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights

    hf, _ = spliced("llama-tied")
    config = HookedTransformerConfig(
        n_layers=LAYERS,
        d_model=MODEL,
        n_heads=HEADS,
        d_head=HEAD,
        n_key_value_heads=GROUPS,
        d_mlp=MLP,
        d_vocab=64,
        n_ctx=32,
        act_fn="silu",
        normalization_type="RMS",
        final_rms=True,
        gated_mlp=True,
        eps=hf.config.rms_norm_eps,
        positional_embedding_type="rotary",
        rotary_dim=HEAD,
        rotary_base=hf.config.rope_parameters["rope_theta"],
        rotary_adjacent_pairs=False,
        init_weights=False,
    )
    other = HookedTransformer(config)
    other.load_state_dict(convert_llama_weights(hf, config), strict=False)
    return other.eval()


@torch.no_grad()
def test_hook_points_equal_those_of_a_hooked_transformer():
    other, (hf, backbone) = hooked_transformer(), spliced("llama-tied")
    tokens = torch.randint(10, 64, (2, 9), generator=torch.Generator().manual_seed(0))
    with Hooked(backbone) as hooked:
        hf(input_ids=tokens)
    _, cache = other.run_with_cache(tokens)
    assert set(hooked.seen) == set(cache)
    for name, value in hooked.seen.items():
        assert value.shape == cache[name].shape, name
        # Scores that are masked are so by other numbers.
        assert torch.allclose(value.clamp(min=-1e4), cache[name].clamp(min=-1e4), atol=1e-4), name


@torch.no_grad()
def test_changes_equal_those_of_a_hooked_transformer():
    other, (hf, backbone) = hooked_transformer(), spliced("llama-tied")
    tokens = torch.randint(10, 64, (2, 9), generator=torch.Generator().manual_seed(0))

    for name in backbone.hook_dict:
        if "ln1" in name:
            continue  # HookedTransformer norms the attention's input three times
        ours = changed(hf, backbone, {"input_ids": tokens}, name, unlike)
        theirs = other.run_with_hooks(tokens, fwd_hooks=[(name, lambda t, hook: unlike(t))])
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max(), name
