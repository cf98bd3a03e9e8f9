"""The examples: each script and each notebook runs offline and gives a result with its interval and protocol."""

import ast
import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
RESULT = re.compile(r"5-way 1-shot: \d+\.\d\d ± \d+\.\d\d % \(\d+ tasks of \d queries a class, inductive, ")
OFFLINE = "import socket\n\nsocket.getaddrinfo = None  # an example that asks for the network fails\n"


def cells(notebook: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def run(program: str, folder: Path, *arguments: str) -> str:
    (folder / "program.py").write_text(OFFLINE + program, "utf-8")
    command = [sys.executable, "-W", "error", "program.py", *arguments]
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_six_scripts_and_three_notebooks():
    assert (len(SCRIPTS), len(NOTEBOOKS)) == (6, 3)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_says_what_to_change(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 60
    assert re.search(r"\b(Change|Replace) ", ast.get_docstring(ast.parse(text)) or ""), "it says what to change"
    imported = re.findall(r"^(?:from|import) (metarep[\w.]*)", text, re.MULTILINE)
    assert imported == ["metarep"], "an example uses public names alone"


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_prints_a_result_with_interval_and_protocol(path, tmp_path):
    said = run(path.read_text("utf-8"), tmp_path, str(tmp_path))
    assert RESULT.search(said), said
    if path.stem == "compare_and_publish":
        assert re.search(r"protonet - baseline: \+\d+\.\d\d ± \d+\.\d\d % \(95 % interval, paired", said)
        assert "| protonet |" in (tmp_path / "comparison.md").read_text("utf-8")
        assert len((tmp_path / "comparison.csv").read_text("utf-8").splitlines()) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_executed_whole_and_small(path):
    """Its outputs are stored, in order, without an error, a path of the machine, or large pictures."""
    assert path.stat().st_size < 300_000
    assert [cell["execution_count"] for cell in cells(path, "code")] == [*range(1, len(cells(path, "code")) + 1)]
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert pictures
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert not re.search(r"/(?:home|root|work|tmp|Users)/", path.read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run(path, tmp_path):
    said = run("\n".join("".join(cell["source"]) for cell in cells(path, "code")), tmp_path)
    assert re.search(r"± \d+\.\d|% \(\d+\.\d to \d+\.\d\)", said), said
