"""examples/landmarks106.ipynb runs top to bottom, and is kept without outputs."""

import pytest

from conftest import ROOT

nbformat = pytest.importorskip("nbformat")
PATH = ROOT / "examples" / "landmarks106.ipynb"


def test_the_notebook_is_kept_without_outputs():
    book = nbformat.read(PATH, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)


def test_the_notebook_runs_top_to_bottom():
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.read(PATH, as_version=4)
    place = {"metadata": {"path": str(PATH.parent)}}
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources=place).execute()  # raises on an error
    pictures = [o for cell in book.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 3
