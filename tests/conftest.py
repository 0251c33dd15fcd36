"""Fixtures, and what has to happen before anything is imported."""

import os
import sys
from functools import cache

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
# One thread for each worker of pytest-xdist, and for every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from jaxtyping import install_import_hook

from tests.helpers import typechecking

# Shapes and types of every function are checked while the tests run; users pay nothing.
install_import_hook(["mmlens", "mmlens_adapters"], f"{typechecking.__name__}.checked")

#: The folders of whole runs, long ones: they are started first.
FIRST = ("experiments", "demos", "benchmarks")


def pytest_configure(config):
    """Settings of the libraries, where tests run: not in the process that only hands them out."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import hypothesis
    import torch

    from mmlens._torchvision import declare_missing_operators

    declare_missing_operators()  # before anything imports transformers
    hypothesis.settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True)
    hypothesis.settings.load_profile("ci")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Divide the tests into groups that one worker runs whole, and begin with the long ones.

    A group is a file, so that what its fixtures build is built once. Tests that are asked of every
    family, whichever file they stand in, are grouped by family, and share its models. Slow ones that
    need nothing of their file stand alone.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=_rank)


def _group(item):
    if item.get_closest_marker("slow"):
        return f"{item.path.stem}.{item.name}"
    parameters = getattr(item, "callspec", None)
    name = str(parameters.params.get("name", "")) if parameters else ""
    return _family(name) or f"{item.path.parent.name}.{item.path.stem}"


@cache
def _family(name):
    from tests.tiny import NAMES

    plain = name.replace("-", "_").replace(".", "_")
    return f"family {plain}" if plain in NAMES else ""


def _rank(item):
    if item.get_closest_marker("slow"):
        return 0
    return 1 if item.path.parent.name in FIRST else 2


@pytest.fixture(scope="module", autouse=True)
def shared_models_stay():
    """No file leaves a model changed that others use too."""
    if "tests.helpers.models" not in sys.modules:  # none was built yet; loading it takes seconds
        yield
        return
    from tests.helpers.models import unchanged

    with unchanged():
        yield


@pytest.fixture(scope="session", params=("mistral", "vicuna"))
def tiny_model(request):
    """A tiny random LLaVA-NeXT, spliced: once per kind of decoder."""
    from tests.helpers.models import spliced

    return spliced("llava_next", request.param)


@pytest.fixture(scope="session")
def mistral_model():
    from tests.helpers.models import spliced

    return spliced("llava_next", "mistral")


@pytest.fixture
def fresh_model():
    """One that a test may change."""
    import mmlens
    from tests.tiny import llava_next

    return mmlens.splice(llava_next.model("mistral"), llava_next.processor())


@pytest.fixture(scope="session")
def samples():
    from tests.tiny import llava_next

    return llava_next.samples()
