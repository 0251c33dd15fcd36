"""The notebooks run from top to bottom, in a kernel of this environment."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "notebooks"
#: Notebook -> figures that it draws at least.
FIGURES = {"miner": 7, "mmneuron": 4}


def test_every_notebook_is_known():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(FIGURES)


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_the_notebook_runs(name, tmp_path, monkeypatch):
    # This repository's own packages, whatever is installed.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)  # kept bare
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    # The kernel of this very environment, whatever is installed for the user.
    client.create_kernel_manager()
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute()
    drawn = [
        cell
        for cell in code
        if any(
            "plotly" in str(output.get("data", {}).get("text/html", "")) for output in cell.outputs
        )
    ]
    assert len(drawn) >= FIGURES[name]
