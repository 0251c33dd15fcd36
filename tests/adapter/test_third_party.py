"""An adapter from somebody else's package: found by its entry point, used by mmlens.splice."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlavaForConditionalGeneration

import mmlens
from mmlens.adapter import ENTRY_POINTS, Adapter, adapter_for
from mmlens.errors import UnsupportedModelError
from tests.tiny import llava

ROOT = Path(__file__).parents[2]
#: A family nobody serves, which is LLaVA under another name.
CODE = """
from mmlens_adapters.llava import LlavaAdapter


class {name}(LlavaAdapter):
    model_types = ("{model_type}",)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package with one adapter, as pip would leave it on the path."""

    def installed(package, name, model_type):
        folder = tmp_path / package
        (folder / package).mkdir(parents=True)
        code = CODE.format(name=name, model_type=model_type)
        (folder / package / "__init__.py").write_text(code)
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{package} = {package}:{name}\n")
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        return importlib.import_module(package)

    before = set(sys.modules)
    yield installed
    for module in set(sys.modules) - before:
        if module in ("acme_lens", "other_lens"):
            del sys.modules[module]


class AcmeConfig(llava.FAMILY.variants[next(iter(llava.FAMILY.variants))](0).config_class):
    model_type = "acme_vl"


class AcmeForConditionalGeneration(LlavaForConditionalGeneration):
    config_class = AcmeConfig


@pytest.fixture(scope="module")
def hf():
    model = next(iter(llava.FAMILY.variants.values()))(0)
    model.__class__ = AcmeForConditionalGeneration
    model.config.__class__ = AcmeConfig
    assert model.config.model_type == "acme_vl"
    return model


def test_splice_uses_an_adapter_registered_by_another_package(install, hf):
    package = install("acme_lens", "AcmeAdapter", "acme_vl")
    model = mmlens.splice(hf, llava.processor())
    assert type(model.adapter) is package.AcmeAdapter
    batch = model.prepare(llava.samples()[:2])
    with torch.no_grad():
        theirs = hf(**batch.inputs, use_cache=False).logits
        ours = model(batch)
    real = batch.groups.attention
    assert (ours - theirs)[real].abs().max() <= 1e-5 * theirs.abs().max()
    assert {"vision", "projector"} <= set(model.modules)


def test_our_own_families_stay_as_they_are(install, hf):
    before = adapter_for(llava.FAMILY.variants[next(iter(llava.FAMILY.variants))](0).config)
    install("acme_lens", "AcmeAdapter", "acme_vl")
    assert adapter_for(llava.FAMILY.variants[next(iter(llava.FAMILY.variants))](0).config) is before


@pytest.mark.parametrize("model_type", ["acme_vl", "llava_next"])
def test_two_packages_that_claim_one_model_type_are_refused(install, hf, model_type):
    install("acme_lens", "AcmeAdapter", model_type)
    if model_type == "acme_vl":  # the other of the two may as well be ours
        install("other_lens", "OtherAdapter", model_type)
    with pytest.raises(UnsupportedModelError) as caught:
        mmlens.splice(hf)
    sentence = str(caught.value)
    assert sentence.startswith(f"Two installed adapters claim model type '{model_type}': ")
    assert "AcmeAdapter" in sentence
    assert sentence.endswith("uninstall one of the packages.")


def test_the_guide_shows_the_shortest_adapter_as_it_is_and_names_what_exists():
    guide = (ROOT / "docs" / "adding-a-family.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    assert code == (ROOT / "adapters" / "qwen2_5_vl.py").read_text(encoding="utf-8")
    for path in re.findall(r"\]\(\.\./([^)#]+)\)", guide):
        assert (ROOT / path).exists(), path
    tables = "\n".join(line for line in guide.splitlines() if line.startswith("| `"))
    named = re.findall(
        r"`(\w+)(?:\([^`]*\))?`", "\n".join(re.findall(r"^\| (.*?) \|", tables, re.M))
    )
    assert len(named) > 14
    for name in named:
        assert name in vars(Adapter) | Adapter.__annotations__, name
