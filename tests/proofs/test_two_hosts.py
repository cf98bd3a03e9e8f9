"""Two hosts, as far as one machine can have them: two network namespaces that are joined by a virtual cable.

It needs Linux, root and the command ``ip``. Each host has its own addresses, and the cable can be cut.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metarep.machine.files import read_tensors

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(shutil.which("ip") is None or os.geteuid() != 0, reason="needs ip and root"),
]
HOSTS = ("metarep-a", "metarep-b")
TRAIN = "train protonet --data glyphs --width 8 --ways 10 --tasks 2 --validation-tasks 20 --threads 1"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def cable() -> Iterator[None]:
    for host in HOSTS:
        subprocess.run(["ip", "netns", "del", host], capture_output=True, check=False)
    try:
        for host in HOSTS:
            ip("netns", "add", host)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode()}")
    ip("link", "add", "mra", "netns", HOSTS[0], "type", "veth", "peer", "name", "mrb", "netns", HOSTS[1])
    for host, name, address in zip(HOSTS, ("mra", "mrb"), ("10.77.0.1/24", "10.77.0.2/24"), strict=True):
        ip("-n", host, "addr", "add", address, "dev", name)
        ip("-n", host, "link", "set", name, "up")
        ip("-n", host, "link", "set", "lo", "up")
    yield
    for host in HOSTS:
        ip("netns", "del", host)


def start(out: Path, steps: int) -> list[subprocess.Popen[str]]:
    """The launchers of both hosts; the second one reads the same disk."""
    programs = []
    for number, (host, name) in enumerate(zip(HOSTS, ("mra", "mrb"), strict=True)):
        where = ["--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1"]
        where += ["--master-addr", "10.77.0.1", "--master-port", "29511"]
        words = [*TRAIN.split(), "--steps", str(steps), "--validate-every", "10", "--out", str(out)]
        command = [sys.executable, "-m", "torch.distributed.run", *where, "-m", "metarep", *words]
        programs.append(
            subprocess.Popen(
                ["ip", "netns", "exec", host, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "GLOO_SOCKET_IFNAME": name},
            )
        )
    return programs


def children(pid: int) -> list[str]:
    return subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in read_tensors(out / "state.safetensors")[0].items() if "method." in name}


def test_two_hosts_train_together_and_one_is_cut_off(cable: None, tmp_path: Path) -> None:
    programs = start(tmp_path / "cut", 30_000)
    state, began = tmp_path / "cut" / "state.safetensors", time.monotonic()
    while not state.exists() and time.monotonic() - began < 200:
        time.sleep(0.05)
    ip("-n", HOSTS[0], "link", "set", "mra", "down")
    cut = time.monotonic()
    workers = [int(line) for program in programs for line in children(program.pid)]
    assert len(workers) >= len(programs)
    while any(map(alive, workers)) and time.monotonic() - cut < 150:
        time.sleep(0.5)
    print(f"both ended {time.monotonic() - cut:.0f} s after the cable was cut")
    assert not any(map(alive, workers))
    for program in programs:  # the launcher of the host without the store waits for it much longer
        program.kill()
    assert all("no sign of life" in program.communicate(timeout=60)[1] for program in programs)
    assert read_tensors(state)[1]["step"] >= 10  # the last checkpoint is whole


def test_two_hosts_end_in_the_weights_of_one(cable: None, tmp_path: Path) -> None:
    for program in start(tmp_path / "two", 20):
        assert program.wait(300) == 0
        program.communicate()
    one = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "metarep"]
    words = [*TRAIN.split(), "--steps", "20", "--validate-every", "10", "--out", str(tmp_path / "one")]
    subprocess.run([*one, *words], check=True, capture_output=True)
    expected = weights(tmp_path / "one")
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "two").items())
