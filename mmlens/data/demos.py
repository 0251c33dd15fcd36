"""The demo models that ship with the package, and their data."""

import json
from pathlib import Path

from mmlens.errors import UnsupportedModelError

_DEMOS = Path(__file__).parents[1] / "demo"


def demo_path(name: str) -> Path | None:
    """The folder of a shipped demo (``demo/...``), or None if the name is none.

    It is found beside the installed package, whatever the working directory.

    Raises:
        UnsupportedModelError: the name begins with ``demo/`` but no such demo is shipped.
    """
    if not name.startswith("demo/"):
        return None
    folder = _DEMOS / name.removeprefix("demo/")
    if not (folder / "config.json").is_file():
        shipped = sorted(f"demo/{p.parent.name}" for p in _DEMOS.glob("*/config.json"))
        raise UnsupportedModelError(
            f"There is no demo {name!r}; shipped with mmlens: {', '.join(shipped) or 'none'}."
        )
    return folder


def demo_data(name: str) -> Path | None:
    """The folder with the data of a shipped demo (``demo/...``), or None if the name is none.

    It is the demo's folder ``data``; a demo that uses another demo's data names it in its
    ``data.json``, as ``{"demo": "llava-next"}``.

    Raises:
        UnsupportedModelError: the name begins with ``demo/`` but no such demo or data are shipped.
    """
    folder = demo_path(name)
    if folder is None:
        return None
    shared = folder / "data.json"
    if shared.is_file():
        folder = _DEMOS / json.loads(shared.read_text(encoding="utf-8"))["demo"]
    if not (folder / "data").is_dir():
        raise UnsupportedModelError(f"The demo {name!r} has no data.")
    return folder / "data"
