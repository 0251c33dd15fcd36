"""The import rules of pyproject.toml: they hold, and they would tell a planted breach."""

import os
import re
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


#: File -> the import planted in it, and the contract that it breaks.
PLANTED = {
    "mmlens/entropy.py": ("mmlens.lens.stages", "Imports point down"),
    "mmlens/storage/atomic.py": ("mmlens.storage.assets", "No circles"),
    "mmlens/storage/assets.py": ("mmlens.storage.atomic", "No circles"),
    "mmlens/plots/style.py": ("transformers", "need no model"),
    "mmlens_adapters/llava.py": ("mmlens.model.batch", "Adapters know the contract"),
    "mmlens/adapter/base.py": ("mmlens_adapters.llava", "never imported by name"),
    "mmlens/neurons.py": ("experiments.shared", "nothing of the experiments"),
}


def test_planted_imports_break_them(house, tmp_path):
    broken = shutil.copytree(house, tmp_path / "house")
    for file, (planted, _) in PLANTED.items():
        with (broken / file).open("a") as text:
            text.write(f"\nimport {planted}\n")
    status, said = lint(broken)
    assert status == 1
    # Each contract's own account: from its underlined name to the next one's.
    accounts = re.split(r"\n(?=[^\n]+\n-{3,}\n)", said[said.index("Broken contracts") :])
    for file, (planted, contract) in PLANTED.items():
        account = next(part for part in accounts if contract in part.splitlines()[0])
        module = file.removesuffix(".py").replace("/", ".")
        # Circles are told by the names of siblings.
        names = [f".{module.rpartition('.')[2]}"] if contract == "No circles" else [module, planted]
        assert all(name in account for name in names), (contract, account)
