"""Loading by name, folder and demo; adapters by entry point; what cannot be loaded says why."""

import shutil
from importlib.metadata import EntryPoint

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import mmlens
from mmlens.adapter import registry as adapter_module
from mmlens.errors import MMLensError, UnsupportedModelError
from mmlens_adapters.llava_next import LlavaNextAdapter
from tests.tiny import llava_next as tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    tiny.model("mistral").save_pretrained(path)
    tiny.processor().save_pretrained(path)
    return path


@torch.no_grad()
def test_a_local_folder(folder, samples):
    loaded = mmlens.load(folder)
    in_memory = mmlens.splice(tiny.model("mistral"), tiny.processor())
    # Prepared by one of them: a reloaded image processor may resize with torchvision.
    batch = in_memory.prepare(samples)
    assert torch.equal(loaded(batch), in_memory(batch))
    assert loaded.prepare(samples).shape == batch.shape
    assert loaded.weight_hash == in_memory.weight_hash
    assert loaded.cfg.backbone == "hooked_transformer"
    assert loaded.dtype == torch.float32


def test_the_fingerprint_survives_bfloat16_but_not_another_model(folder):
    one = mmlens.load(folder)
    assert mmlens.load(str(folder), dtype=torch.bfloat16).weight_hash == one.weight_hash
    other = mmlens.splice(tiny.model("mistral", seed=1)).weight_hash
    assert other != one.weight_hash


def test_modules(folder):
    model = mmlens.load(folder)
    assert {n: m.shape for n, m in model.modules.items()} == {
        "language": (3, 48),
        "vision": (3, 40),
        "projector": (1, 32),
    }
    assert model.to_string(model.to_tokens("what is this")[0]) == "what is this"
    with pytest.raises(MMLensError, match="qformer"):
        model.module("qformer")


def test_a_folder_without_processor(folder, tmp_path):
    bare = tmp_path / "bare"
    tiny.model("mistral").save_pretrained(bare)
    with pytest.raises(UnsupportedModelError, match="processor"):
        mmlens.load(bare)
    only_tokenizer = tmp_path / "tokenizer"
    shutil.copytree(folder, only_tokenizer)
    (only_tokenizer / "processor_config.json").unlink()
    with pytest.raises(UnsupportedModelError, match="processor"):
        mmlens.load(only_tokenizer)


def test_unknown_names(tmp_path):
    with pytest.raises(UnsupportedModelError, match="no demo 'demo/nothing'"):
        mmlens.load("demo/nothing")
    with pytest.raises(UnsupportedModelError, match="does not exist"):
        mmlens.load(tmp_path / "nowhere")
    with pytest.raises(UnsupportedModelError, match="somebody/some-model could not be loaded"):
        mmlens.load("somebody/some-model", local_files_only=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UnsupportedModelError, match="could not be loaded"):
        mmlens.load(empty)


def test_a_model_of_text_alone(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9))
    model.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="no processor"):
        mmlens.load(tmp_path)


def test_truncated_weights(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UnsupportedModelError, match="could not be loaded"):
        mmlens.load(broken)


def test_our_adapter_comes_in_by_its_entry_point():
    assert adapter_module.adapters()["llava_next"] is LlavaNextAdapter


class Rival(LlavaNextAdapter):
    """A third-party adapter for the same family."""


def test_two_adapters_for_one_family_are_refused(monkeypatch):
    entries = [
        EntryPoint("a", "mmlens_adapters.llava_next:LlavaNextAdapter", "mmlens.adapters"),
        EntryPoint("b", "tests.model.test_loading:Rival", "mmlens.adapters"),
    ]
    monkeypatch.setattr(adapter_module, "entry_points", lambda group: entries)
    with pytest.raises(UnsupportedModelError, match="Two installed adapters"):
        adapter_module.adapters()
