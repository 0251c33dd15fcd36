"""The general adapter: models of families that have no adapter of their own, and what it refuses."""

import logging

import pytest
import torch
import transformers as hf

import mmlens
from mmlens.adapter import Media
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.streaming.batching import Batching
from mmlens_adapters.general import GeneralAdapter
from mmlens_adapters.llava_next import LlavaNextAdapter
from mmlens_adapters.qwen2_audio import Qwen2AudioAdapter
from mmlens_adapters.qwen2_vl import Qwen2VLAdapter
from tests.tiny import instructblip as tiny_instructblip
from tests.tiny import llava_next, qwen2_audio, qwen2_vl
from tests.tiny.common import sharpened

VOCABULARY, PLACEHOLDER = 60, 5


def text(**more):
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        **more,
    }


def ids(*media):
    """Two rows of text with so many placeholders in each, padded on the left."""
    rows = [[7, 8, *[PLACEHOLDER] * n, 9, 10 + i] for i, n in enumerate(media)]
    longest = max(map(len, rows))
    padded = [[0] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def mistral3():
    vision = hf.PixtralVisionConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=12,
        image_size=32,
        patch_size=4,
    )
    config = hf.Mistral3Config(
        vision_config=vision,
        text_config=hf.MistralConfig(**text(head_dim=8)),
        image_token_index=PLACEHOLDER,
        spatial_merge_size=2,
    )
    media = {"pixel_values": noise(2, 3, 16, 16), "image_sizes": torch.tensor([[16, 16], [8, 16]])}
    model = sharpened(lambda: hf.Mistral3ForConditionalGeneration(config), 0)
    return model, {**ids(4, 2), **media}


def got_ocr2():
    vision = hf.GotOcr2VisionConfig(
        hidden_size=24,
        output_channels=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        window_size=4,
        global_attn_indexes=[1],
        mlp_dim=40,
    )
    config = hf.GotOcr2Config(
        vision_config=vision, text_config=hf.Qwen2Config(**text()), image_token_index=PLACEHOLDER
    )
    model = sharpened(lambda: hf.GotOcr2ForConditionalGeneration(config), 0)
    return model, {**ids(4, 4), "pixel_values": noise(2, 3, 64, 64)}


def ovis2():
    vision = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
        "vocab_size": 20,
    }
    config = hf.Ovis2Config(
        vision_config=vision,
        text_config=hf.Qwen2Config(**text()).to_dict(),
        image_token_id=PLACEHOLDER,
        visual_indicator_token_ids=[50, 51, 52, 53, 54],
        vocab_size=VOCABULARY,
        hidden_size=32,
    )
    model = sharpened(lambda: hf.Ovis2ForConditionalGeneration(config), 0)
    return model, {**ids(4, 4), "pixel_values": noise(2, 3, 16, 16)}


def audioflamingo3():
    audio = {
        "num_mel_bins": 8,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_source_positions": 16,
    }
    config = hf.AudioFlamingo3Config(
        audio_config=audio,
        text_config=hf.Qwen2Config(**text()).to_dict(),
        audio_token_id=PLACEHOLDER,
    )
    model = sharpened(lambda: hf.AudioFlamingo3ForConditionalGeneration(config), 0)
    real = torch.arange(32) < torch.tensor([[32], [16]])
    media = {"input_features": noise(2, 8, 32), "input_features_mask": real.long()}
    return model, {**ids(8, 4), **media}


FOUND = {
    mistral3: {"vision": (2, 40, True), "projector": (1, 32, False)},
    got_ocr2: {"vision": (2, 40, False)},
    ovis2: {"vision": (2, 40, True)},
    audioflamingo3: {"audio": (2, 40, False), "projector": (1, 32, False)},
}


@pytest.mark.parametrize("build", FOUND, ids=lambda build: build.__name__)
@pytest.mark.parametrize("backbone", ["hooked_transformer", "bridge"])
def test_families_without_an_adapter(build, backbone):
    model, inputs = build()
    with torch.no_grad():
        expected = model(**inputs, use_cache=False).logits
    hooked = HookedMLLM(model, None, GeneralAdapter(model), backbone)
    with torch.no_grad():
        logits, cache = hooked.run_with_cache(inputs, names_filter=lambda name: "mlp" in name)
    real = inputs["attention_mask"].bool()
    difference = (logits - expected)[real].abs().max()
    assert difference == 0 if backbone == "bridge" else difference < 1e-5 * expected.abs().max()
    found = {n: (m.layers, m.width, m.gated) for n, m in hooked.modules.items() if n != "language"}
    assert found == FOUND[build]
    for name, (layers, width, _) in found.items():
        for layer in range(layers):
            hook = hooked.module(name).hook(layer, "post")
            assert cache[hook].shape[-1] == width
            with torch.no_grad():
                other = hooked.run_with_hooks(inputs, [(hook, lambda value, hook: value * 0)])
            assert not torch.equal(other, logits)
    options = {"max_new_tokens": 4, "do_sample": False}
    theirs = model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(hooked.generate(inputs, **options).tokens, theirs)


@pytest.mark.parametrize(
    ("tiny", "own"),
    [(llava_next, LlavaNextAdapter), (qwen2_vl, Qwen2VLAdapter), (qwen2_audio, Qwen2AudioAdapter)],
    ids=lambda value: getattr(value, "__name__", "").rpartition(".")[2],
)
def test_families_with_an_adapter_of_their_own(tiny, own):
    model = next(iter(tiny.FAMILY.variants.values()))(0)
    processor, samples = tiny.FAMILY.processor(), tiny.FAMILY.samples()
    general = HookedMLLM(model, processor, GeneralAdapter(model), "auto")
    special = HookedMLLM(model, processor, own(model), "auto")
    theirs, ours = special.adapter.towers().towers, general.adapter.towers().towers
    assert {n: t.mlps for n, t in ours.items()} == {n: t.mlps for n, t in theirs.items()}
    one, other = general.prepare(samples), special.prepare(samples)
    assert one.inputs.keys() == other.inputs.keys()
    assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)
    with torch.no_grad():
        assert torch.equal(general(one), special(other))
    options = {
        "groups": ("prompt", *special.adapter.modalities),
        "batching": Batching(progress=False),
    }
    counted = mmlens.collect(general, samples, **options).modules["language"]
    expected = mmlens.collect(special, samples, **options).modules["language"]
    assert torch.equal(counted.tokens, expected.tokens)
    assert torch.equal(counted.positive, expected.positive)


def test_statistics_of_a_tower_are_refused_in_one_sentence():
    model = HookedMLLM(
        built := llava_next.model(), llava_next.processor(), GeneralAdapter(built), "bridge"
    )
    with pytest.raises(
        UnsupportedModelError, match="cannot tell which positions of module 'vision'"
    ):
        mmlens.collect(
            model, llava_next.samples(), modules=("vision",), batching=Batching(progress=False)
        )


def test_it_says_what_it_found(caplog):
    with caplog.at_level(logging.INFO, "mmlens_adapters.general"):
        adapter = GeneralAdapter(audioflamingo3()[0])
    said = adapter.describe()
    assert said in caplog.text
    assert "AudioFlamingo3ForConditionalGeneration has no adapter of its own" in said
    assert "Qwen2Model, 3 layers) and placeholders (audio 5)" in said
    assert "audio: 2 MLPs of 40 neurons (model.audio_tower.layers.*: fc1, fc2)." in said
    assert (
        "projector: 1 MLP of 32 neurons (model.multi_modal_projector: linear_1, linear_2)." in said
    )


def test_it_finds_both_branches_of_a_q_former():
    model = tiny_instructblip.model()
    towers = GeneralAdapter(model).towers()
    assert {n: (len(t.mlps), t.width) for n, t in towers.towers.items()} == {
        "vision": (2, 40),
        "qformer": (3, 36),
        "query": (3, 36),
    }
    assert "language_projection holds no two linear maps" in towers.without_neurons["projector"]


def test_an_mlp_that_is_not_what_its_names_tell_is_left_out():
    """Aya Vision's linear_1 and linear_2 stand around a product of both halves."""
    config = hf.AyaVisionConfig(
        vision_config=hf.SiglipVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
            vision_use_head=False,
        ),
        text_config=hf.LlamaConfig(**text()),
        image_token_index=PLACEHOLDER,
        adapter_layer_norm_eps=1e-6,
    )
    model = sharpened(lambda: hf.AyaVisionForConditionalGeneration(config), 0)
    found = GeneralAdapter(model).towers()
    assert set(found.towers) == {"vision"}
    assert (
        "linear_1 gives 32 values of which linear_2 reads 16" in found.without_neurons["projector"]
    )
    hooked = HookedMLLM(model, None, GeneralAdapter(model), "bridge")
    with pytest.raises(SampleError, match="'projector' has no neurons here: .*linear_1 gives"):
        hooked.module("projector")


def test_an_mlp_that_does_more_than_its_activation_is_left_out():
    model = llava_next.model()
    layer = model.model.vision_tower.encoder.layers[0]
    act = layer.mlp.activation_fn
    forward = lambda x: layer.mlp.fc2(act(layer.mlp.fc1(x)) + 1)  # noqa: E731
    layer.mlp.forward = forward
    found = GeneralAdapter(model).towers()
    assert "vision" not in found.towers
    assert "does more between fc1 and fc2" in found.without_neurons["vision"]


def test_pictures_without_placeholders_and_placeholders_without_pictures_are_refused():
    model, inputs = mistral3()
    hooked = HookedMLLM(model, None, GeneralAdapter(model), "bridge")
    bare = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with pytest.raises(
        UnsupportedModelError, match="4 image placeholder tokens, but .* 0 features"
    ):
        hooked(bare)
    with pytest.raises(
        ValueError, match="features and image tokens do not match"
    ):  # Hugging Face's own check
        hooked({**inputs, **ids(2, 2)})


def test_an_encoder_decoder_is_refused():
    config = hf.InstructBlipConfig(
        vision_config={"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1},
        qformer_config={"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1},
        text_config=hf.T5Config(vocab_size=60, d_model=16, d_ff=16, num_layers=1).to_dict(),
    )
    model = hf.InstructBlipForConditionalGeneration(config)
    with pytest.raises(UnsupportedModelError, match="is an encoder-decoder"):
        GeneralAdapter(model)


def test_a_mixture_of_experts_is_refused():
    config = llava_next.model().config.to_dict()
    moe = text(num_local_experts=2, num_experts_per_tok=1)
    config["text_config"] = {**hf.MixtralConfig(**moe).to_dict(), "model_type": "mixtral"}
    model = hf.LlavaNextForConditionalGeneration(hf.LlavaNextConfig(**config))
    with pytest.raises(UnsupportedModelError, match=r"mixture of experts \(mlp.experts\)"):
        GeneralAdapter(model)


def test_layers_of_convolutions_are_refused():
    config = hf.Lfm2VlConfig(
        vision_config={
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        text_config=hf.Lfm2Config(
            **text(), layer_types=["conv", "full_attention", "conv"], conv_L_cache=3
        ).to_dict(),
        image_token_id=PLACEHOLDER,
    )
    model = hf.Lfm2VlForConditionalGeneration(config)
    with pytest.raises(UnsupportedModelError):
        HookedMLLM(model, None, GeneralAdapter(model), "auto")


def test_a_model_without_placeholders_or_decoder_is_refused():
    with pytest.raises(UnsupportedModelError, match="no image_token_id, video_token_id or audio"):
        GeneralAdapter(hf.LlamaForCausalLM(hf.LlamaConfig(**text())))
    with pytest.raises(UnsupportedModelError):
        GeneralAdapter(
            hf.CLIPVisionModel(
                hf.CLIPVisionConfig(num_attention_heads=1, hidden_size=8, num_hidden_layers=1)
            )
        )


def test_pictures_are_nested_for_processors_that_want_it():
    class Nesting:
        image_token = "<image>"

        def __call__(self, text, images, **_):
            if images and not isinstance(images[0], list):
                raise ValueError("nest them")
            return {"images": images}

    adapter = GeneralAdapter(llava_next.model())
    given = adapter.process(Nesting(), ["a", "b"], Media(images=[[1, 2], []]), "left")
    assert given["images"] == [[1, 2], []]


def test_loading_goes_by_the_architecture(tmp_path):
    model, inputs = audioflamingo3()
    model.save_pretrained(tmp_path)
    loaded = GeneralAdapter.auto_class().from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(loaded) is type(model)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
