"""The wheel, installed in an environment of its own, trains: data lists, recipes, weights and pages are inside."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.proof
def test_wheel_installs_and_trains(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("metarep-*-py3-none-*.whl")
    inside = zipfile.ZipFile(wheel).namelist()
    compiled = "metarep/fast/c/compiled.so" in inside
    assert compiled == (shutil.which("cc") is not None)
    assert wheel.name.endswith("-any.whl") != compiled
    for part in (
        "experiments/recipes/protonet-omniglot.toml",
        "data/datasets/splits/omniglot_vinyals.json",
        "experiments/compare/templates/page.html",
        "experiments/page/templates/frame.html",
        "experiments/quickstart/templates/page.html",
        "weights/omniglot-protonet.safetensors",
        "app/templates/index.html",
        "py.typed",
    ):
        assert f"metarep/{part}" in inside
    models = [each for each in zipfile.ZipFile(wheel).infolist() if each.filename.endswith(".safetensors")]
    assert sum(each.file_size for each in models) < 2_000_000

    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*install, "torch==2.13.0"], check=True)
    subprocess.run([*install, wheel], check=True)
    metarep = [venv / "bin" / "metarep"]
    environment = {"METAREP_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    options = {"cwd": tmp_path, "check": True, "capture_output": True, "text": True, "env": environment}
    subprocess.run([*metarep, "train", "protonet", "--steps", "60", "--out", "run"], **options)
    done = subprocess.run([*metarep, "evaluate", "run", "--tasks", "200", "--queries", "5"], **options)
    assert "5-way 1-shot" in done.stdout
    subprocess.run(
        [python, "-W", "error", "-c", "import metarep; metarep.load_learner('omniglot-protonet')"], **options
    )


@pytest.mark.proof
def test_the_sdist_makes_the_same_wheel_and_holds_the_tests(tmp_path):
    build = [sys.executable, "-m", "build", "--outdir", tmp_path]
    subprocess.run([*build, "--wheel", ROOT], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("metarep-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wheel.unlink()
    subprocess.run([*build, "--sdist", ROOT], check=True, capture_output=True)
    (archive,) = tmp_path.glob("metarep-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (folder,) = (path for path in tmp_path.glob("metarep-*") if path.is_dir())
    subprocess.run([*build, "--wheel", folder], check=True, capture_output=True)
    (again,) = tmp_path.glob("metarep-*.whl")
    assert set(zipfile.ZipFile(again).namelist()) == names
    command = [sys.executable, "-m", "pytest", "-q", "tests/project/test_rooms.py", "tests/project/test_docs.py"]
    subprocess.run([*command, "-m", "not slow and not proof"], cwd=folder, check=True, capture_output=True)
