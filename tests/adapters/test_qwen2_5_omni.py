"""What is special to Qwen2.5-Omni; the checks that all families share are in test_families.py."""

import numpy as np
import pytest
import torch
from transformers import (
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    WhisperFeatureExtractor,
)

import mmlens
from mmlens.adapter import adapter_for
from mmlens.errors import MediaError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.streaming.batching import Batching
from mmlens_adapters.qwen2_5_omni import Qwen2_5OmniAdapter
from tests.helpers.qwen import moves_logits, rows_reached, tokens_of, webp
from tests.tiny import qwen2_5_omni
from tests.tiny.common import picture, sound, video

# Around the ends of frames, of the tower's blocks, and of what it hears at most.
LENGTHS = [321, 480, 481, 640, 641, 3199, 3200, 3201, 4801, 9999, 31840, 31999, 32000, 32001, 50000]


def spliced(processor=None, **settings):
    hf = qwen2_5_omni.model(**settings)
    return HookedMLLM(hf, processor or qwen2_5_omni.processor(), Qwen2_5OmniAdapter(hf))


def ask(*audios, text="what is this ?", images=(), videos=()):
    return mmlens.Sample("x", text, images, videos, audios)


def noise(length, seed=0):
    return np.random.default_rng(seed).normal(size=length).astype(np.float32) / 4, 16000


@pytest.fixture(scope="module")
def model():
    return spliced()


@pytest.fixture(scope="module")
def mixed(model):
    """A sound, nothing, two sounds and a still, a clip, a sound and a clip."""
    rows = [
        ask(noise(5000)),
        ask(),
        ask(noise(3333, 1), noise(8000, 2), images=(picture(40, 24),)),
        ask(videos=(video(4, 24, 16),)),
        ask(noise(2500, 3), videos=(video(2, 16, 16, 4),)),
    ]
    return model.prepare(rows)


def test_features_are_what_the_tower_gives(model):
    for length in LENGTHS:
        batch = model.prepare([ask(noise(length)), ask(noise(700, 1), noise(length, 2))])
        inputs = batch.inputs
        features = model.hf.get_audio_features(
            inputs["input_features"], inputs["feature_attention_mask"]
        ).last_hidden_state
        counts = model.adapter.feature_counts(inputs)
        assert int(counts["audio"].sum()) == len(features)
        assert counts["image"].tolist() == counts["video"].tolist() == []
        assert model.media_rows(batch) == {"image": [], "video": [], "audio": [0, 1, 1]}


def test_lengths_from_sizes_alone(model):
    for length in LENGTHS:
        samples = [
            ask(noise(length)),
            ask(noise(700), noise(length), images=(picture(8 + length % 50, 20),)),
            ask(videos=(video(1 + length % 4, 16, 24),)),
            ask(sound(0.3, 8000), sound(0.101, 22050)),
            ask(),
        ]
        real = model.prepare(samples).groups.attention.sum(-1).tolist()
        assert model.preparer.lengths(samples, "chat") == real


def test_lengths_with_the_sizes_of_the_real_processor():
    """Its class sets the size of videos, whatever its video processor says."""
    processor = qwen2_5_omni.processor()
    del processor.videos_kwargs
    model = spliced(processor)
    samples = [ask(videos=(video(2, 40, 40),))]
    batch = model.prepare(samples)
    assert model.preparer.lengths(samples, "chat") == [batch.shape[1]]
    assert tokens_of(model, processor, videos=((2, 40, 40),)) > 1000


def test_groups_of_one_prompt(model):
    batch = model.prepare(ask(noise(1281), images=(picture(16, 8),), videos=(video(4, 8, 16),)))
    words = [qwen2_5_omni.WORDS[token] for token in batch.input_ids[0]]
    assert words[5:21] == [
        "user",
        *("<|vision_bos|>", "<|IMAGE|>", "<|IMAGE|>", "<|vision_eos|>"),
        *("<|vision_bos|>", *["<|VIDEO|>"] * 4, "<|vision_eos|>"),
        *("<|audio_bos|>", "<|AUDIO|>", "<|AUDIO|>", "<|audio_eos|>", "what"),
    ]
    for group, kind in {"image": "<|IMAGE|>", "video": "<|VIDEO|>", "audio": "<|AUDIO|>"}.items():
        assert batch.groups.mask(group)[0].tolist() == [w == kind for w in words]
    special = {"<|im_start|>", "<|im_end|>", *words[6:7], *words[9:10], *words[16:17], words[19]}
    assert special == {
        *("<|im_start|>", "<|im_end|>", "<|vision_bos|>", "<|vision_eos|>"),
        *("<|audio_bos|>", "<|audio_eos|>"),
    }
    assert batch.groups.mask("special")[0].tolist() == [word in special for word in words]


@pytest.mark.parametrize("module", ["vision", "projector", "audio"])
def test_a_position_belongs_to_the_row_it_reaches(model, mixed, module):
    heard = [[0], [], [2], [], [4]]
    assert rows_reached(model, mixed, module) == (
        heard if module == "audio" else [[], [], [2], [3], [4]]
    )


def test_every_layer_is_on_the_path(model, mixed):
    for module in ("vision", "projector", "audio"):
        info = model.module(module)
        assert all(info.on_path)
        assert all(moves_logits(model, mixed, module, layer) for layer in range(info.layers))


def test_statistics_where_some_batches_have_no_sound(model):
    samples = [
        mmlens.Sample("a", "one", images=(picture(16, 16),), domain="d"),
        mmlens.Sample("b", "two", audios=(noise(4000),), domain="d"),
        mmlens.Sample("c", "a", domain="d"),
    ]
    found = mmlens.collect(
        model, samples, modules=("vision", "audio"), batching=Batching(max_batch=1, progress=False)
    )
    assert found.modules["vision"].tokens.tolist() == [[16]]
    assert found.modules["audio"].tokens.tolist() == [[13]]  # 25 frames, every second one


def test_every_video_has_its_own_rate(model):
    frames = video(4, 16, 16)
    samples = [ask(videos=(webp(frames, rate),)) for rate in (1, 4)] + [ask(videos=(frames,))]
    batch = model.prepare(samples)
    assert batch.inputs["video_second_per_grid"].tolist() == [2.0, 0.5, 1.0]
    logits = model(batch)[:, -1]
    assert not torch.allclose(logits[0], logits[1])
    assert torch.allclose(logits[1:2], model(model.prepare(samples[1]))[:, -1], atol=1e-5)


def test_the_thinker_of_a_full_checkpoint(tmp_path):
    config = Qwen2_5OmniConfig(
        thinker_config=qwen2_5_omni.thinker_settings(), enable_audio_output=False
    )
    whole = Qwen2_5OmniForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    qwen2_5_omni.processor().save_pretrained(tmp_path)
    assert adapter_for(whole.config) is Qwen2_5OmniAdapter
    # Reloaded, the processor makes large videos of what the check shows the model.
    model = mmlens.load(tmp_path, check=False)
    assert model.hf.config.model_type == "qwen2_5_omni_thinker"
    batch = model.prepare(ask(noise(4000), images=(picture(16, 16),)))
    assert torch.allclose(model(batch), whole.thinker(**batch.inputs).logits, atol=1e-5)
    with pytest.raises(UnsupportedModelError, match=r"mmlens.splice\(model.thinker, processor\)"):
        mmlens.splice(whole, model.processor)


def test_a_sound_too_short_for_a_token(model):
    short = ask(noise(320))
    with pytest.raises(MediaError, match="320 samples is too short"):
        model.prepare(short)
    assert "320 samples is too short" in model.preparer.lengths([short], "chat")[0]


def test_a_processor_of_another_model():
    processor = qwen2_5_omni.processor()
    processor.feature_extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    model = spliced(processor)
    with pytest.raises(UnsupportedModelError, match="16 bands, but the model reads 8"):
        model(model.prepare(ask(noise(4000))))
