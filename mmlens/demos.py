"""The demo models that ship with the package."""

from pathlib import Path

from mmlens.errors import UnsupportedModelError

_DEMOS = Path(__file__).parent / "demo"


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
