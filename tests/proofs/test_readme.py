"""The README word for word: every shell command, in order, in a fresh checkout with nothing but what it installs."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.proof

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TRACKED = ("src", "tests", "docs", "results", "benchmarks", "examples", "pyproject.toml", "constraints.txt", "Makefile")
TRACKED = (*TRACKED, "hatch_build.py", "README.md", "README.zh-CN.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE")
LIMIT = 3600  # seconds for a command that is run to its end
# Not run to their end, because that takes more than ten minutes: they are begun and must stop cleanly when interrupted.
LONG = {
    "metarep train triplet --data folder:photos --size 84 --margin 0.2 --mining semi-hard": "2,000 steps at 84 px",
    "metarep reproduce protonet-omniglot": "about 20 minutes; results/omniglot.csv is its record",
    "metarep serve moths": "it serves until it is told to stop",
}
BEGIN = 90  # seconds that those are given
DATA = {"omniglot": ("images_background.zip", "images_evaluation.zip"), "cifar": ("cifar-100-python.tar.gz",)}


def commands(page: str) -> list[str]:
    """The lines of the page's shell blocks without their comments."""
    blocks = [code for kind, code in FENCE.findall((ROOT / page).read_text("utf-8")) if kind == "shell"]
    return [re.sub(r"\s+# .*", "", line) for block in blocks for line in block.splitlines() if line.strip()]


COMMANDS = commands("README.md")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is under version control, with some photographs beside it."""
    place = tmp_path_factory.mktemp("readme") / "metarep"
    place.mkdir()
    for name in TRACKED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        elif source.exists():
            shutil.copy(source, place / name)
    generator = np.random.default_rng(0)
    for row in range(100):
        home = place / "photos" / f"kind {row:02d}"
        home.mkdir(parents=True)
        colours = generator.integers(0, 256, (4, 6, 3))
        for i in range(12):
            small = (colours + generator.integers(-30, 31, colours.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(small).resize((150, 100), Image.Resampling.BICUBIC).save(home / f"{i}.jpg")
    shutil.copytree(place / "photos" / "kind 00", place / "emperor")
    shutil.copytree(place / "photos" / "kind 01", place / "archive")
    shutil.copy(place / "photos" / "kind 02" / "3.jpg", place / "new.jpg")
    return place


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of somebody who has just come: no settings of this process but the archives, a cache of their own."""
    kept = re.compile(r"METAREP_DATA|TMPDIR|LANG|PIP_.*|SSL_.*|.*_proxy", re.IGNORECASE)
    mine = {name: value for name, value in os.environ.items() if kept.fullmatch(name)}
    home = tmp_path_factory.mktemp("home")
    # .venv/bin is what make has set up; before that its place is empty.
    return {**mine, "HOME": str(home), "PATH": f".venv/bin:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"}


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, checkout: Path, environment: dict[str, str]) -> None:
    if reason := missing(command):
        pytest.skip(f"not run: {command}: {reason}")
    if command.startswith(("pip ", "metarep ")) and not (checkout / ".venv" / "run").exists():
        pytest.fail("make quickstart, which comes before, has made no environment")
    if command.startswith("make "):
        if "TORCH_INDEX" in command:  # make would find torch installed, and not ask the index at all
            shutil.rmtree(checkout / ".venv", ignore_errors=True)
        command = f"{command} PYTHON={sys.executable}"  # as the README says for a python3 of another version
    # The environment's own scripts first: `pip` must not be another one's.
    mine = {**environment, "PATH": environment["PATH"].replace(".venv/bin", str(checkout / ".venv" / "bin"), 1)}
    process = subprocess.Popen(
        ["/bin/bash", "-c", command if command.startswith("source ") else f"exec {command}"],
        cwd=checkout,
        env=mine,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background process may ignore it
    )
    try:
        said, _ = process.communicate(timeout=BEGIN if command in LONG else LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=120)
        assert command in LONG, f"{command} took longer than {LIMIT} s:\n{said[-3000:]}"
        assert process.returncode == 130, said[-3000:]
        assert "Traceback" not in said
        pytest.skip(f"begun, and interrupted after {BEGIN} s: {command}: {LONG[command]}")
    assert process.returncode == 0, f"{command}:\n{said[-3000:]}"
    assert "Traceback" not in said
    if command.startswith("pip "):
        asked = [checkout / ".venv" / "bin" / "python", "-c", "import metarep; print(metarep.__file__)"]
        place = subprocess.run(asked, cwd=checkout.parent, env=environment, capture_output=True, text=True).stdout
        assert Path(place.strip()) == checkout / "src" / "metarep" / "__init__.py", (
            "the installation is editable no more"
        )


def missing(command: str) -> str:
    """Why a command cannot be run here, or nothing."""
    if address := re.search(r"TORCH_INDEX=(\S+)", command):
        try:
            urllib.request.urlopen(f"{address[1]}/torch/", timeout=20).close()
        except (urllib.error.URLError, TimeoutError) as error:
            return f"{address[1]} cannot be reached ({error})"
    folder = Path(os.environ.get("METAREP_DATA") or ROOT)
    for name, archives in DATA.items():
        absent = [archive for archive in archives if not (folder / archive).is_file()]
        if name in command and absent:
            return f"METAREP_DATA names no folder with {', '.join(absent)}"
    if command.startswith("metarep evaluate runs/protonet") and missing("metarep train protonet --data omniglot"):
        return "it measures the run on Omniglot, which was not trained"
    return ""


def test_what_the_quickstart_leaves(checkout: Path) -> None:
    for name in ("report.html", "results.json"):
        assert (checkout / "runs" / "quickstart" / name).stat().st_size > 10_000
    if (checkout / ".venv" / "run").exists():
        assert (checkout / "tasks.png").stat().st_size > 10_000


def test_python_blocks(checkout: Path, environment: dict[str, str]) -> None:
    blocks = [code for kind, code in FENCE.findall((ROOT / "README.md").read_text("utf-8")) if kind == "python"]
    assert len(blocks) >= 3
    for code in blocks:
        python = [checkout / ".venv" / "bin" / "python", "-W", "error", "-c", code]
        done = subprocess.run(python, cwd=checkout, env=environment, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stderr


def test_the_chinese_readme_has_the_same_commands() -> None:
    assert commands("README.zh-CN.md") == COMMANDS
    assert set(LONG) <= set(COMMANDS), "a command that the README no longer has"
