"""Style sheets, HTML templates and captions that lie beside the modules that use them."""

from __future__ import annotations

from importlib import resources


def asset(package: str, name: str) -> str:
    """Text of a file inside a package.

    Args:
        package: dotted name, such as ``mmlens.report``.
        name: of the file.

    Raises:
        FileNotFoundError: the package has no such file.
    """
    return (resources.files(package) / name).read_text(encoding="utf-8")
