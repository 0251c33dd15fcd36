"""Fixtures, and what has to happen before anything is imported."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
# One thread for each worker of pytest-xdist, and for every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from jaxtyping import install_import_hook
from xdist.scheduler import LoadScopeScheduling

from tests.helpers import typechecking

# Shapes and types of every function are checked while the tests run; users pay nothing.
install_import_hook(["mmlens", "mmlens_adapters"], f"{typechecking.__name__}.checked")

#: The modules of families, the longest names first.
FAMILIES = sorted(
    {path.stem for path in (Path(__file__).parent / "tiny").glob("[!_]*.py")} - {"common"},
    key=len,
    reverse=True,
)
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


def pytest_collection_modifyitems(items):
    """Begin with the long ones, so that no worker is left with one of them at the end."""
    items.sort(key=_rank)


def _rank(item):
    if item.get_closest_marker("slow"):
        return 0
    return 1 if item.path.parent.name in FIRST else 2


def pytest_xdist_make_scheduler(config, log):
    """Hand out whole groups of tests (`group_of`), in the order in which they were collected."""
    if config.getvalue("dist") != "loadscope":
        return None

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return Groups(config, log)


def group_of(nodeid):
    """The tests that one worker runs are a file's, so that what its fixtures build is built once.

    Tests that are asked of every family are grouped by family, whichever file they stand in, and
    share its models. (The groups of xdist's own `loadgroup` are lost on pytest 9.2, which does not
    take the names that it gives to the tests.)
    """
    file, _, name = nodeid.partition("::")
    parameters = name.partition("[")[2].rstrip("]").replace("-", "_").replace(".", "_")
    return next((f for f in FAMILIES if f"_{f}_" in f"_{parameters}_"), file)


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
