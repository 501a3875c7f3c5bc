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
        ("epochs=2)", "epochs=1)"),
        ("synthetic.LESIONS, 15)", "synthetic.LESIONS, 5)"),
        ('ROOT / "demo_data"', f'Path(r"{tmp_path}/none/demo_data")'),  # not a user's
        ('ROOT / "outputs_quickstart"', f'Path(r"{tmp_path}")'),
    ):
        (cell,) = [cell for cell in notebook.cells if long in cell["source"]]
        cell["source"] = cell["source"].replace(long, short)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in output["data"] for output in pictures) == 8
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "The image is from synthetic demo data." in printed and f"Open {tmp_path}" in printed
    assert all(list((tmp_path / name).glob("*.html")) for name in ("multitask", "small", "comparison"))
    cells = nbformat.read(path, as_version=4).cells
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert path.read_bytes() == before
