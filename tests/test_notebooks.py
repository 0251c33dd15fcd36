"""The notebooks run from top to bottom, in a kernel of this environment."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "experiments" / "notebooks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebook_runs(path, tmp_path):
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
        output
        for cell in code
        for output in cell.outputs
        if "application/vnd.plotly.v1+json" in output.get("data", {})
        or "plotly" in "".join(output.get("data", {}).get("text/html", ""))
    ]
    assert len(drawn) >= 4
