"""What is special to Qwen2-Audio: frames and tokens of a sound, MINER's special tokens."""

import pytest
import torch

from mmlens.adapter import MediaSizes
from mmlens.data.samples import Sample
from mmlens.errors import MediaError, SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.qwen2_audio import Qwen2AudioAdapter
from tests.tiny import qwen2_audio as tiny
from tests.tiny.common import sound


def spliced(hf, processor):
    return HookedMLLM(hf, processor, Qwen2AudioAdapter(hf), "bridge")


@pytest.fixture(scope="module")
def model():
    return spliced(tiny.model(), tiny.processor())


def asked(samples, text="what is this ?", name="one"):
    """A question about a sound of so many samples at the model's own rate."""
    wave, rate = sound(2, tiny.RATE)
    return Sample(name, text, audios=((wave[:samples], rate),))


# Around every length where a frame, a place in the tower or a token is added.
LENGTHS = [321, 480, 481, 960, 961, 1120, 1121, 1281, 3199, 3200, 3201, 15999, 16000, 16001, 20000]


def test_tokens_by_length_are_those_in_the_prompt(model):
    batch = model.prepare([asked(n, name=str(n)) for n in LENGTHS])
    counted = [
        model.adapter.media_tokens(model.processor, MediaSizes(audios=(n,))) for n in LENGTHS
    ]
    assert batch.groups.counts()["audio"].tolist() == counted
    assert model.adapter.feature_counts(batch.inputs)["audio"].tolist() == counted
    assert counted[-4:] == [25] * 4  # what is longer than the spectrogram is cut off


@pytest.mark.parametrize("samples", [1, 160, 320])
def test_a_sound_too_short_for_a_token_is_a_media_error(model, samples):
    with pytest.raises(MediaError, match=f"sound of {samples} samples is too short"):
        model.prepare(asked(samples))
    with pytest.raises(MediaError, match="more than 320 at 16000 Hz"):
        model.adapter.media_tokens(model.processor, MediaSizes(audios=(samples,)))


def test_groups_of_one_prompt(model):
    batch = model.prepare(asked(1281))  # nine frames, five in the tower, two tokens
    words = [tiny.WORDS[i] for i in batch.input_ids[0]]
    assert words == [
        "<|im_start|>",
        "w0",
        "w1",
        "<|im_end|>",
        "<|im_start|>",
        "user",
        "w1",
        ":",
        "<|audio_bos|>",
        "<|AUDIO|>",
        "<|AUDIO|>",
        "<|audio_eos|>",
        "what",
        "is",
        "this",
        "?",
        "<|im_end|>",
        "<|im_start|>",
        "assistant",
    ]
    special = {"<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|audio_eos|>"}
    assert batch.groups.mask("special")[0].tolist() == [word in special for word in words]
    assert batch.groups.mask("audio")[0].tolist() == [word == "<|AUDIO|>" for word in words]
    # Roles, system prompt and the template's own words are text.
    assert int(batch.groups.mask("text").sum()) == len(words) - 7 - 2
    question = batch.groups.mask("text")[0] & ~batch.groups.mask("template")[0]
    assert [w for w, here in zip(words, question, strict=True) if here] == [
        "what",
        "is",
        "this",
        "?",
    ]


def test_the_bare_question_has_the_sound_between_its_brackets(model):
    batch = model.prepare(asked(1281), template="plain")
    words = [tiny.WORDS[i] for i in batch.input_ids[0]]
    assert words == [
        "<|audio_bos|>",
        "<|AUDIO|>",
        "<|AUDIO|>",
        "<|audio_eos|>",
        "what",
        "is",
        "this",
        "?",
    ]


def test_rows_of_the_tower_leave_out_padded_frames(model):
    two = Sample("two", "dog", audios=(sound(0.2), sound(0.5)))
    batch = model.prepare([asked(1281), two])
    (rows,) = model.adapter.tower_rows("audio", batch.inputs, model.media_rows(batch))
    assert [(row >= 0).sum().item() for row in rows] == [5, 10, 25]
    assert [row[0].item() for row in rows] == [0, 1, 1]


def test_what_is_in_padded_frames_changes_nothing(model):
    batch = model.prepare([asked(3200), asked(8000, name="two")])
    plain = model(batch)
    rows = model.adapter.tower_rows("audio", batch.inputs, model.media_rows(batch))[0]
    for layer in range(model.module("audio").layers):
        name = model.module("audio").hook(layer, "post")
        for where, changes in ((rows < 0, False), (rows >= 0, True)):
            hook = (name, lambda value, hook, at=where: value.masked_fill(at[..., None], 0))
            hidden = model.run_with_hooks(batch, [hook])
            assert torch.equal(hidden, plain) != changes


def test_sounds_of_other_rates_are_resampled(model):
    batch = model.prepare(Sample("one", "dog", audios=(sound(0.5, 44100),)))
    assert batch.inputs["feature_attention_mask"].sum().item() == 50


def test_a_published_template_that_looks_for_an_address_sees_the_sound(model):
    text = model.adapter.prompt(asked(3200), model.processor, "chat")
    assert text.count("<|AUDIO|>") == 1


def test_a_processor_of_another_model_is_refused():
    for processor in (tiny.processor(mels=16), tiny.processor(seconds=2)):
        with pytest.raises(UnsupportedModelError, match="the audio tower reads 8 and 100"):
            spliced(tiny.model(), processor).prepare(asked(3200))


def test_the_projector_has_no_neurons_and_pictures_are_refused(model):
    with pytest.raises(SampleError, match="single linear map"):
        model.module("projector")
    with pytest.raises(SampleError, match="takes audio only"):
        model.prepare(Sample("one", "dog", images=(b"",)))
