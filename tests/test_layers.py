"""The import rules of pyproject.toml: they hold, and they would tell a planted breach."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The packages' Python files alone, for planting imports."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package, source in (
        ("mmlens", "mmlens"),
        ("mmlens_adapters", "adapters"),
        ("experiments", "experiments"),
        ("benchmarks", "benchmarks"),
    ):
        for file in (ROOT / source).rglob("*.py"):
            target = folder / package / file.relative_to(ROOT / source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return folder


def lint(folder):
    """Exit status and output of import-linter in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_the_rules_hold(house):
    status, said = lint(house)
    assert status == 0, said
    assert "0 broken" in said


@pytest.mark.parametrize(
    ("file", "planted", "contract"),
    [
        ("mmlens/entropy.py", "mmlens.lens.stages", "Imports point down"),
        ("mmlens/storage/atomic.py", "mmlens.storage.assets", "No circles"),
        ("mmlens/plots/style.py", "transformers", "need no model"),
        ("mmlens_adapters/llava.py", "mmlens.model.batch", "Adapters know the contract"),
        ("mmlens/adapter/base.py", "mmlens_adapters.llava", "never imported by name"),
        ("mmlens/neurons.py", "experiments.shared", "nothing of the experiments"),
    ],
)
def test_a_planted_import_breaks_them(house, file, planted, contract):
    path, other = house / file, house / "mmlens/storage/assets.py"
    before, before_other = path.read_text(), other.read_text()
    try:
        path.write_text(f"{before}\nimport {planted}\n")
        if contract == "No circles":
            other.write_text(f"{before_other}\nimport mmlens.storage.atomic\n")
        status, said = lint(house)
    finally:
        path.write_text(before)
        other.write_text(before_other)
    assert status == 1
    assert any(contract in line and "BROKEN" in line for line in said.splitlines()), said
