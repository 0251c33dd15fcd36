"""Tiny random decoders of every shape the bridge serves, and hooks to try them with."""

from functools import cache

import pytest
import torch
import transformers as tf

from mmlens.adapter import Decoder
from mmlens.backbone.bridge.splice import BridgeSplice

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
def spliced(family):
    hf = build(FAMILIES[family])
    return hf, splice(hf)


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
