"""The bridge against Hugging Face: the same bits, every hook point, no trace outside."""

import copy
from functools import cache

import pytest
import torch
import transformers as tf
from torch import nn
from transformer_lens import ActivationCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mmlens.adapter import Decoder
from mmlens.bridge import BridgeSplice
from mmlens.errors import SpliceError, UnsupportedModelError

IMAGE, VIDEO, START, END, AUDIO = 5, 6, 7, 8, 9
LAYERS, HEADS, GROUPS, HEAD, MODEL, MLP = 2, 4, 2, 8, 32, 48
TEXT = dict(
    vocab_size=64,
    hidden_size=MODEL,
    intermediate_size=MLP,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    num_key_value_heads=GROUPS,
    head_dim=HEAD,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
PATCHES = dict(patch_size=4, depth=1, num_heads=2)
WINDOWS = dict(hidden_size=16, out_hidden_size=MODEL, intermediate_size=24, window_size=16)
SIGLIP = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
SIGLIP |= dict(image_size=16, patch_size=8)
QWEN = dict(image_token_id=IMAGE, video_token_id=VIDEO)
QWEN |= dict(vision_start_token_id=START, vision_end_token_id=END)


def mrope(**more):
    return {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4, **more}


def qwen2_vl():
    vision = dict(PATCHES, embed_dim=16, hidden_size=MODEL, mlp_ratio=2)
    text = dict(TEXT, rope_parameters=mrope())
    config = tf.Qwen2VLConfig(text_config=text, vision_config=vision, **QWEN)
    return tf.Qwen2VLForConditionalGeneration(config)


def qwen2_5_vl():
    vision = dict(PATCHES, **WINDOWS, fullatt_block_indexes=[0])
    text = dict(TEXT, rope_parameters=mrope())
    config = tf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **QWEN)
    return tf.Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl():
    vision = dict(PATCHES, **WINDOWS, num_position_embeddings=16, deepstack_visual_indexes=[0])
    text = dict(TEXT, rope_parameters=mrope(mrope_interleaved=True))
    config = tf.Qwen3VLConfig(text_config=text, vision_config=vision, **QWEN)
    return tf.Qwen3VLForConditionalGeneration(config)


def qwen2_5_omni():
    audio = dict(num_mel_bins=8, d_model=16, encoder_layers=1, encoder_attention_heads=2)
    config = tf.Qwen2_5OmniThinkerConfig(
        text_config=dict(TEXT, rope_parameters=mrope()),
        vision_config=dict(PATCHES, **WINDOWS, fullatt_block_indexes=[0]),
        audio_config=dict(audio, encoder_ffn_dim=24, output_dim=MODEL),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        audio_token_index=AUDIO,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    return tf.Qwen2_5OmniThinkerForConditionalGeneration(config)


def gemma3():
    text = dict(TEXT, sliding_window=4, query_pre_attn_scalar=8)
    text["layer_types"] = ["sliding_attention", "full_attention"]
    config = tf.Gemma3Config(
        text_config=text, vision_config=SIGLIP, mm_tokens_per_image=4, image_token_index=IMAGE
    )
    return tf.Gemma3ForConditionalGeneration(config)


def paligemma():
    config = tf.PaliGemmaConfig(
        text_config=dict(TEXT, model_type="gemma"),
        vision_config=dict(SIGLIP, projection_dim=MODEL),
        image_token_index=IMAGE,
        projection_dim=MODEL,
        hidden_size=MODEL,
    )
    return tf.PaliGemmaForConditionalGeneration(config)


def llava():
    vision = dict(SIGLIP, num_hidden_layers=2)
    config = tf.LlavaConfig(
        text_config=tf.MistralConfig(**dict(TEXT, sliding_window=6)),
        vision_config=tf.CLIPVisionConfig(**vision),
        image_token_index=IMAGE,
    )
    return tf.LlavaForConditionalGeneration(config)


def llama(**text):
    return tf.LlamaForCausalLM(tf.LlamaConfig(**{**TEXT, "tie_word_embeddings": True, **text}))


FAMILIES = {
    "llava-mistral": llava,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen2_5_omni": qwen2_5_omni,
    "gemma3": gemma3,
    "paligemma": paligemma,
    "llama-tied": llama,
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**TEXT)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**TEXT)),
    "arcee-without-gate": lambda: tf.ArceeForCausalLM(tf.ArceeConfig(**TEXT)),
}
QWEN_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_5_omni")
#: One of every shape of layer: a window, norms on heads, norms on both sides, no gate.
SHAPES = pytest.mark.parametrize(
    "family", ["llava-mistral", "qwen3", "gemma3", "arcee-without-gate"], indirect=True
)


def build(make):
    torch.manual_seed(0)
    hf = make().eval()
    with torch.no_grad():  # sharper than the library's own scale, so that answers differ
        for name, parameter in hf.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.25)
            elif "norm" in name:  # gains that are not alike
                parameter.add_(torch.rand_like(parameter) - 0.5)
    return hf


def decoder_of(hf):
    model = hf.model.language_model if hasattr(hf.model, "language_model") else hf.model
    head, embed = hf.get_output_embeddings(), model.embed_tokens
    return Decoder(model, model.layers, model.norm, head, embed, model.rotary_emb)


def splice(hf):
    return BridgeSplice(lambda: decoder_of(hf))


@cache
def _spliced(family):
    hf = build(FAMILIES[family])
    return hf, splice(hf)


@pytest.fixture(params=FAMILIES)
def family(request):
    """A family's name, model and splice; tests leave them as they found them."""
    return request.param, *_spliced(request.param)


def make_inputs(family, side="left", dtype=torch.float32):
    """Two rows of unequal length; a picture in each where the family takes pictures."""
    generator = torch.Generator().manual_seed(1)
    media = (
        [IMAGE] * 4 if family in (*QWEN_FAMILIES, "gemma3", "paligemma", "llava-mistral") else []
    )
    if family in QWEN_FAMILIES:
        media = [START, *media, END]
    rows = [media + torch.randint(10, 64, (n,), generator=generator).tolist() for n in (5, 8)]
    width = max(map(len, rows))
    ids, mask = torch.zeros(2, width, dtype=torch.long), torch.zeros(2, width, dtype=torch.long)
    for row, tokens in enumerate(rows):
        place = slice(width - len(tokens), width) if side == "left" else slice(0, len(tokens))
        ids[row, place], mask[row, place] = torch.tensor(tokens), 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if family in QWEN_FAMILIES:
        inputs["pixel_values"] = torch.randn(32, 96, generator=generator).to(dtype)
        inputs["image_grid_thw"] = torch.tensor([[1, 4, 4], [1, 4, 4]])
        if family != "qwen2_5_omni":
            inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    elif media:
        inputs["pixel_values"] = torch.randn(2, 3, 16, 16, generator=generator).to(dtype)
    if family in ("gemma3", "paligemma"):
        inputs["token_type_ids"] = (ids == IMAGE).int()
    return inputs


class Hooked:
    """Hooks for the length of a context, inside the exchange; what they saw."""

    def __init__(self, backbone, **changes):
        self.backbone, self.seen, self.order = backbone, {}, []
        self.changes = {name.replace("__", "."): change for name, change in changes.items()}

    def __call__(self, tensor, hook):
        self.seen[hook.name] = tensor.detach().clone()
        self.order.append(hook.name)

    def __enter__(self):
        for name, point in self.backbone.hook_dict.items():
            point.add_hook(self)
            if name in self.changes:
                point.add_hook(lambda t, hook, name=name: self.changes[name](t))
        self._exchange = self.backbone()
        self._exchange.__enter__()
        return self

    def __exit__(self, *error):
        self._exchange.__exit__(*error)
        for point in self.backbone.hook_dict.values():
            point.remove_hooks("both")


def changed(hf, backbone, inputs, name, change, **kwargs):
    """Logits under one hook and nobody else listening."""
    backbone.hook_dict[name].add_hook(lambda t, hook: change(t))
    try:
        with backbone():
            return hf(**inputs, **kwargs).logits
    finally:
        backbone.hook_dict[name].remove_hooks("both")


def unlike(tensor):
    """Another tensor, by a change that no softmax or norm takes back."""
    return tensor * (torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)) + 0.5)


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
    hf, backbone = _spliced("qwen2_vl")
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
    hf, backbone = _spliced("qwen2")
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
    hf, backbone = _spliced("qwen2")
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
    hf, backbone = _spliced("gemma3")
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

    hf, _ = _spliced("llama-tied")
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
    other, (hf, backbone) = hooked_transformer(), _spliced("llama-tied")
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
    other, (hf, backbone) = hooked_transformer(), _spliced("llama-tied")
    tokens = torch.randint(10, 64, (2, 9), generator=torch.Generator().manual_seed(0))

    for name in backbone.hook_dict:
        if "ln1" in name:
            continue  # HookedTransformer norms the attention's input three times
        ours = changed(hf, backbone, {"input_ids": tokens}, name, unlike)
        theirs = other.run_with_hooks(tokens, fwd_hooks=[(name, lambda t, hook: unlike(t))])
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max(), name


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
    hf, backbone = _spliced("qwen2")
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
    _, backbone = _spliced("gemma3")
    cfg = backbone.cfg
    assert (cfg.n_layers, cfg.d_model, cfg.d_mlp, cfg.d_vocab) == (LAYERS, MODEL, MLP, 64)
    assert (cfg.n_heads, cfg.n_key_value_heads, cfg.d_head) == (HEADS, GROUPS, HEAD)
    assert cfg.act_fn == "gelu_pytorch_tanh"
    assert (backbone.name, backbone.gated) == ("bridge", True)


def test_weights_cannot_be_folded():
    _, backbone = _spliced("qwen2")
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
    hf, backbone = _spliced("gemma3")
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
