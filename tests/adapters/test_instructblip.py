"""What is special to InstructBLIP: one picture a prompt, a Q-Former with two branches, no T5."""

import pytest
import torch
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, T5Config

from mmlens.adapter import MediaSizes
from mmlens.data.samples import Sample
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens_adapters.instructblip import InstructBlipAdapter
from tests.tiny import instructblip as tiny
from tests.tiny.common import picture


def spliced(hf, processor):
    return HookedMLLM(hf, processor, InstructBlipAdapter(hf), "bridge")


@pytest.fixture(scope="module")
def model():
    return spliced(tiny.model(), tiny.processor())


@pytest.fixture(scope="module")
def samples():
    return tiny.samples()


def zeroed(model, batch, module, layer):
    name = model.module(module).hook(layer, "post")
    return model.run_with_hooks(batch, [(name, lambda value, hook: torch.zeros_like(value))])


@pytest.mark.parametrize("module", ["vision", "qformer", "query"])
def test_exactly_the_layers_on_the_path_change_the_logits(model, samples, module):
    batch = model.prepare(samples[:2])
    plain = model(batch)
    info = model.module(module)
    for layer, on_path in enumerate(info.on_path):
        assert torch.equal(zeroed(model, batch, module, layer), plain) != on_path
    assert info.on_path.count(False) == (module == "qformer")


def test_groups_of_one_prompt(model):
    sample = Sample("one", "what is this ?", (picture(16, 16),))
    batch = model.prepare(sample)
    words = [tiny.WORDS[i] for i in batch.input_ids[0]]
    assert words == ["<image>"] * tiny.QUERIES + ["<s>", "what", "is", "this", "?"]
    assert batch.groups.mask("image")[0].tolist() == [True] * 5 + [False] * 5
    assert batch.groups.mask("special")[0].tolist() == [False] * 5 + [True] + [False] * 4
    assert batch.groups.mask("text")[0].tolist() == [False] * 6 + [True] * 4


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model, samples, side):
    batch = model.prepare(samples, padding_side=side)
    logits = model(batch)
    for row, sample in enumerate(samples):
        alone = model(model.prepare(sample))[0]
        real = batch.groups.attention[row]
        torch.testing.assert_close(logits[row, real], alone, rtol=1e-4, atol=1e-4)


def test_rows_of_the_q_formers_text_leave_out_its_padding(model, samples):
    batch = model.prepare(samples)
    (rows,) = model.adapter.tower_rows("qformer", batch.inputs, model.media_rows(batch))
    for row, sample in enumerate(samples):
        words = len(sample.text.split()) + 2  # [CLS] and [SEP]
        assert rows[row].tolist() == [row] * words + [-1] * (rows.shape[1] - words)
    inputs = {k: v for k, v in batch.inputs.items() if k != "qformer_attention_mask"}
    (rows,) = model.adapter.tower_rows("qformer", inputs, model.media_rows(batch))
    assert (rows == torch.arange(len(samples))[:, None]).all()


def test_a_picture_takes_the_same_tokens_whatever_its_size(model):
    for size in [(1, 1), (7, 300), (300, 7), (16, 16)]:
        sizes = MediaSizes(images=(size,))
        assert model.adapter.media_tokens(model.processor, sizes) == tiny.QUERIES
        batch = model.prepare(Sample("one", "dog", (picture(*size[::-1]),)))
        assert batch.groups.counts()["image"].tolist() == [tiny.QUERIES]


@pytest.mark.parametrize("pictures", [0, 2])
def test_a_sample_without_exactly_one_picture_is_refused_by_name(model, pictures):
    sample = Sample("odd", "what is this ?", (picture(16, 16),) * pictures)
    with pytest.raises(SampleError, match=f"'odd' has {pictures} pictures; .*exactly one"):
        model.prepare(sample)


def test_a_processor_of_another_model_is_refused(samples):
    hf = tiny.model()
    other = spliced(hf, tiny.processor(queries=4))
    with pytest.raises(
        UnsupportedModelError, match="4 image placeholder tokens, but .* 5 features"
    ):
        other(other.prepare(samples[:2]))
    silent = spliced(hf, tiny.processor(queries=None))
    with pytest.raises(UnsupportedModelError, match="processor.num_query_tokens = 5"):
        silent.prepare(samples[0])


def test_a_chat_template_adds_no_placeholder_of_its_own(samples):
    processor = tiny.processor()
    processor.chat_template = (
        "{% for m in messages %}user : {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}"
        "{% endfor %} assistant :"
    )
    batch = spliced(tiny.model(), processor).prepare(samples[:2])
    assert batch.groups.counts()["image"].tolist() == [tiny.QUERIES] * 2
    template = batch.groups.mask("template")[0]
    assert [tiny.WORDS[i] for i in batch.input_ids[0][template]] == ["user", ":", "assistant", ":"]


def test_the_projector_has_no_neurons(model):
    with pytest.raises(SampleError, match="'projector' has no neurons here: .*single linear map"):
        model.module("projector")


def test_generation_returns_the_new_tokens_alone(model, samples):
    batch = model.prepare(samples[:3])
    theirs = model.hf.generate(**batch.inputs, max_new_tokens=4, do_sample=False)
    ours = model.generate(batch, max_new_tokens=4, do_sample=False)
    assert torch.equal(theirs[:, batch.shape[1] :], ours.tokens)
    assert 1 <= ours.tokens.shape[1] <= 4


def test_t5_is_refused():
    base = tiny.model().config
    t5 = T5Config(vocab_size=60, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    config = InstructBlipConfig(
        vision_config=base.vision_config.to_dict(),
        qformer_config=base.qformer_config.to_dict(),
        text_config=t5.to_dict(),
    )
    hf = InstructBlipForConditionalGeneration(config).eval()
    for backbone in ("auto", "hooked_transformer", "bridge"):
        with pytest.raises(UnsupportedModelError, match="'t5', an encoder-decoder"):
            HookedMLLM(hf, None, InstructBlipAdapter(hf), backbone)
