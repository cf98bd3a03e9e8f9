"""Commands that torchrun starts on several processes: one of them speaks, all end together, and any number resumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metarep.machine.files import read_tensors

pytestmark = pytest.mark.slow
SMALL = "--data glyphs --width 8 --ways 5 --shots 1 --queries 2 --tasks 4 --threads 1 --validation-tasks 20"


def torchrun(n: int, arguments: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    command = [*launcher, "-m", "metarep", *arguments.split()] if n > 1 else [sys.executable, "-m", "metarep"]
    command += [] if n > 1 else arguments.split()
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("metarep: ")]


def test_any_number_of_processes_resumes(tmp_path: Path) -> None:
    for n, steps in ((2, 10), (1, 20), (3, 30)):
        command = f"train maml {SMALL} --steps 30 --validate-every 10 --schedule constant --out {tmp_path}"
        run = torchrun(n, command)
        if steps < 30:  # it is ended after its first checkpoint
            state, began = tmp_path / "state.safetensors", time.monotonic()
            while time.monotonic() - began < 200 and (not state.exists() or read_tensors(state)[1]["step"] < steps):
                time.sleep(0.05)
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=60)
        else:
            out, error = run.communicate(timeout=300)
            assert run.returncode == 0, error
            assert out.count("trained maml") == 1
    assert read_tensors(tmp_path / "state.safetensors")[1]["step"] == 30


def test_one_message_for_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    run = torchrun(2, f"train protonet {SMALL} --steps 30 --lr 1e30 --schedule constant --out {tmp_path}")
    _, error = run.communicate(timeout=300)
    assert run.returncode
    assert len(ours(error)) == 1, error
    assert "the loss is nan" in error or "weights are NaN" in error


def test_a_process_that_is_killed_ends_the_others_in_seconds(tmp_path: Path) -> None:
    run = torchrun(2, f"train protonet {SMALL} --steps 100000 --validate-every 10 --out {tmp_path}")
    began = time.monotonic()
    while not (tmp_path / "state.safetensors").exists() and time.monotonic() - began < 200:
        time.sleep(0.05)
    workers = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    killed = time.monotonic()
    _, error = run.communicate(timeout=60)
    assert time.monotonic() - killed < 20
    assert "SIGKILL" in error  # torchrun says so, and may end the other process before it does
    message = "a process of this command has ended, and it said nothing: it may have been killed"
    assert ours(error) in ([], [f"metarep: {message}; the same command goes on from its last checkpoint"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict a b", "metarep predict runs in one process; start it without torchrun"),
        ("train protonett", "unknown method 'protonett'; did you mean 'protonet'?"),
    ],
)
def test_wrong_arguments_are_said_once(arguments: str, message: str) -> None:
    _, error = torchrun(2, arguments).communicate(timeout=120)
    (line,) = ours(error)
    assert line.startswith(f"metarep: {message}")
