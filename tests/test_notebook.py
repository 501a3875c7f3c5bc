"""The notebook runs from top to bottom, offline; with fewer epochs and images than a user's, to be quick."""

import pytest
from conftest import ROOT

nbformat = pytest.importorskip("nbformat", reason="pip install -r requirements-dev.txt")
nbclient = pytest.importorskip("nbclient", reason="pip install -r requirements-dev.txt")


def test_the_notebook_runs_and_shows_its_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    path = ROOT / "notebooks" / "quickstart.ipynb"
    notebook = nbformat.read(path, as_version=4)
    before = path.read_bytes()
    for long, short in (
        ("epochs=6", "epochs=2"),
        ("synthetic.LESIONS, 15)", "synthetic.LESIONS, 5)"),
        ('ROOT / "demo_data"', 'Path("demo_data")'),  # not a user's
    ):
        (cell,) = [cell for cell in notebook.cells if long in cell["source"]]
        cell["source"] = cell["source"].replace(long, short)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in output["data"] for output in pictures) == 4
    assert path.read_bytes() == before
