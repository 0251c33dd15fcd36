"""What is special to Voxtral: chunks with audible silence, prompts by mistral-common."""

import pytest
import torch

pytest.importorskip("mistral_common", reason="Voxtral's processor needs mistral-common")

from mmlens.adapter import MediaSizes
from mmlens.data.samples import Sample
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.voxtral import VoxtralAdapter
from tests.tiny import voxtral as tiny
from tests.tiny.common import sound


def spliced(hf, processor):
    return HookedMLLM(hf, processor, VoxtralAdapter(hf), "bridge")


@pytest.fixture(scope="module")
def model():
    return spliced(tiny.model(), tiny.processor())


def asked(samples, text="what is this ?", name="one"):
    """A question about a sound of so many samples at the model's own rate."""
    wave, rate = sound(2, tiny.RATE)
    return Sample(name, text, audios=((wave[:samples], rate),))


def pieces(model, ids):
    return model.tokenizer.convert_ids_to_tokens(ids.tolist())


LENGTHS = [1, 160, 5119, 5120, 5121, 10239, 10240, 10241, 30000]


def test_tokens_by_length_are_those_in_the_prompt(model):
    samples = [asked(n, name=str(n)) for n in LENGTHS]
    batch = model.prepare(samples)
    chunks = [-(-n // (tiny.FRAMES * tiny.HOP)) for n in LENGTHS]
    assert batch.groups.counts()["audio"].tolist() == [tiny.TOKENS * n for n in chunks]
    assert model.adapter.feature_counts(batch.inputs)["audio"].tolist() == [4] * sum(chunks)
    assert model.preparer.lengths(samples, "auto") == batch.groups.attention.sum(-1).tolist()
    sizes = MediaSizes(audios=tuple(LENGTHS))
    assert model.adapter.media_tokens(model.processor, sizes) == 4 * sum(chunks)


def test_groups_of_one_prompt(model):
    batch = model.prepare(asked(3200))
    tokens = pieces(model, batch.input_ids[0])
    assert tokens[:8] == ["<s>", "[INST]", "[BEGIN_AUDIO]", *["[AUDIO]"] * 4, "what"]
    assert tokens[-1] == "[/INST]"
    special = {"<s>", "[INST]", "[/INST]", "[BEGIN_AUDIO]"}
    assert batch.groups.mask("special")[0].tolist() == [token in special for token in tokens]
    assert batch.groups.mask("audio")[0].tolist() == [token == "[AUDIO]" for token in tokens]
    assert int(batch.groups.mask("text").sum()) == 4


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_on_the_side_asked_for_and_changes_nothing(model, side):
    samples = tiny.samples()
    batch = model.prepare(samples, padding_side=side)
    attention = batch.groups.attention
    assert attention[:, -1 if side == "left" else 0].all()
    logits = model(batch)
    for row, sample in enumerate(samples):
        alone = model(model.prepare(sample))[0]
        torch.testing.assert_close(logits[row, attention[row]], alone, rtol=1e-4, atol=1e-4)


def test_rows_of_towers(model):
    samples = [asked(12000), Sample("none", "dog"), asked(100, name="short")]
    batch = model.prepare(samples)
    media = model.media_rows(batch)
    assert media == {"audio": [0, 0, 0, 2]}
    (audio,) = model.adapter.tower_rows("audio", batch.inputs, media)
    (projector,) = model.adapter.tower_rows("projector", batch.inputs, media)
    assert audio.shape == (4, tiny.FRAMES // 2)
    assert projector.tolist() == [0] * 12 + [2] * 4


def test_silence_is_heard(model):
    """So its positions count as real: they change the answer."""
    batch = model.prepare(asked(100))
    name = model.module("audio").hook(1, "post")

    def deaf_to_silence(value, hook):
        value[:, 1:] = 0
        return value

    assert not torch.equal(model(batch), model.run_with_hooks(batch, [(name, deaf_to_silence)]))


def test_waveforms_reach_the_spectrogram_unchanged(model):
    wave, rate = sound(0.32, tiny.RATE)
    batch = model.prepare(Sample("one", "dog", audios=((wave, rate),)))
    expected = model.processor.feature_extractor(
        wave, sampling_rate=rate, padding=True, pad_to_multiple_of=5120, return_tensors="pt"
    )
    assert torch.equal(batch.inputs["input_features"], expected["input_features"])


def test_a_processor_of_another_model_is_refused():
    hf = tiny.model()
    with pytest.raises(UnsupportedModelError, match="16 mel bins, but the audio tower reads 8"):
        spliced(hf, tiny.processor(mels=16)).prepare(asked(3200))
    other = spliced(hf, tiny.processor(frame_rate=25.0))
    with pytest.raises(UnsupportedModelError, match="audio placeholder tokens, but its media give"):
        other(other.prepare(asked(3200)))


def test_a_chat_template_cannot_be_asked_for(model):
    with pytest.raises(SampleError, match="no chat template"):
        model.prepare(asked(3200), template="chat")
