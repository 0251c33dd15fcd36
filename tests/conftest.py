import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

# Shapes and types of every function are checked while the tests run; users pay nothing.
from jaxtyping import install_import_hook

install_import_hook(["mmlens", "mmlens_adapters"], "beartype.beartype")

from mmlens._torchvision import declare_missing_operators

declare_missing_operators()  # before anything imports transformers

import hypothesis
import pytest
import torch

from tests.tiny import llava_next as tiny

hypothesis.settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("ci")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session", params=("mistral", "vicuna"))
def tiny_model(request):
    """A tiny random LLaVA-NeXT, spliced: once per kind of decoder."""
    import mmlens

    return mmlens.splice(tiny.model(request.param), tiny.processor())


@pytest.fixture(scope="session")
def mistral_model():
    import mmlens

    return mmlens.splice(tiny.model("mistral"), tiny.processor())


@pytest.fixture
def fresh_model():
    """One that a test may change."""
    import mmlens

    return mmlens.splice(tiny.model("mistral"), tiny.processor())


@pytest.fixture(scope="session")
def samples():
    return tiny.samples()
