"""torchvision beside a torch that its compiled operators were not built for.

Every case is a process of its own: what is declared to torch stays declared.
"""

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[1] / "mmlens" / "_torchvision.py"
#: The module by itself: the package imports transformers, and so torchvision.
LOAD = f"""
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("torchvision_operators", {str(MODULE)!r})
module = module_from_spec(spec)
spec.loader.exec_module(module)
declare_missing_operators = module.declare_missing_operators
"""
#: A torchvision that imports only where its operators exist.
STUB = """
import torch
if not hasattr(torch.ops.torchvision, "nms"):
    raise RuntimeError("operator torchvision::nms does not exist")
"""


def run(code: str, path: Path | None = None) -> str:
    """Output of a fresh Python that loads the module, and sees `path` before other packages."""
    places = [place for place in (path, os.environ.get("PYTHONPATH")) if place]
    done = subprocess.run(
        [sys.executable, "-c", LOAD + textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(folder: Path, *, compiled: bytes | None) -> Path:
    """A package named torchvision whose compiled part is missing or is no library at all."""
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(STUB)
    if compiled is not None:
        (package / "_C.so").write_bytes(compiled)
    return folder


@pytest.mark.parametrize("compiled", [None, b"not a library"])
def test_declares_what_cannot_be_loaded(tmp_path, compiled):
    out = run(
        """
        import sys, torch
        assert "torchvision" not in sys.modules
        print(declare_missing_operators(), declare_missing_operators())
        assert "torchvision" not in sys.modules
        import torchvision
        try:
            torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        except NotImplementedError as error:
            print("not implemented", "torchvision::nms" in str(error))
        """,
        install(tmp_path, compiled=compiled),
    )
    assert out.split("\n") == ["True True", "not implemented True", ""]


def test_import_alone_does_nothing(tmp_path):
    out = run(
        """
        import torch
        print(hasattr(torch.ops.torchvision, "nms"))
        """,
        install(tmp_path, compiled=None),
    )
    assert out == "False\n"


def test_does_nothing_without_torchvision():
    out = run(
        """
        import importlib.util, sys
        import torch
        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name: None if name == "torchvision" else find_spec(name)
        print(declare_missing_operators(), hasattr(torch.ops.torchvision, "nms"))
        """
    )
    assert out == "False False\n"


def test_does_nothing_where_the_operators_exist(tmp_path):
    out = run(
        """
        import torch
        theirs = torch.library.Library("torchvision", "DEF")
        theirs.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        print(declare_missing_operators())
        import torchvision
        """,
        install(tmp_path, compiled=None),
    )
    assert out == "False\n"


@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision")
def test_the_installed_torchvision_imports_and_its_transforms_work():
    out = run(
        """
        declare_missing_operators()
        import torch, torchvision
        from torchvision.transforms.v2 import functional
        print(tuple(functional.resize(torch.zeros(3, 8, 8), [4, 6]).shape))
        """
    )
    assert out == "(3, 4, 6)\n"
