"""The notebooks run from end to end, and hold no code of their own."""

import ast
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "colab").glob("*.ipynb"))
EVERY = pytest.mark.parametrize("path", NOTEBOOKS, ids=[p.stem for p in NOTEBOOKS])


def read(path):
    notebook = nbformat.read(path, as_version=4)
    return notebook, [c for c in notebook.cells if c.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@EVERY
def test_a_notebook_only_calls_the_package(path):
    notebook, cells = read(path)
    assert len(notebook.cells) <= 15
    assert all(not cell.outputs for cell in cells), "clear the outputs before you commit"
    for cell in cells:
        code = "\n".join(
            line.replace("%pip", "pass  #") if line.lstrip().startswith("%") else line
            for line in cell.source.splitlines()
        )
        for node in ast.walk(ast.parse(code)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)


@EVERY
# The kernel's own sockets are closed by the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("MPLBACKEND", "agg")
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    notebook, _ = read(copy)
    NotebookClient(notebook, timeout=400, resources={"metadata": {"path": tmp_path}}).execute()
