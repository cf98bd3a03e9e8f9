"""The library of C code: which one is loaded, and that it is worth loading."""

import shutil
import time
from pathlib import Path

import pytest
import torch

from metarep.encoders import Conv4
from metarep.fast import c
from metarep.machine import faster

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler when the package was installed")


@pytest.mark.parametrize(
    ("capability", "name"), [*c.BY_CPU.items(), ("DEFAULT", "compiled.so"), ("VSX", "compiled.so")]
)
def test_the_library_of_the_processor_is_loaded(monkeypatch: pytest.MonkeyPatch, capability: str, name: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    loaded = c.library.__wrapped__()
    assert loaded is not None
    built = Path(c.__file__).with_name(name).exists()
    assert Path(loaded._name).name == (name if built else "compiled.so")


@pytest.mark.slow
def test_the_c_code_is_faster_than_the_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors that are wider than this processor's registers took twice the time of the plain layers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    body, images = Conv4(3), torch.rand(96, 3, 32, 32)

    def seconds() -> float:
        began = time.process_time()
        body(images).sum().backward()
        return time.process_time() - began

    compiled, plain = [], []
    for _ in range(5):  # in turns, because the machine may be busy for a while
        compiled.append(seconds())
        with monkeypatch.context() as within:
            within.setattr(faster, "conv4_block", lambda *_: None)
            plain.append(seconds())
    torch.set_num_threads(threads)
    assert min(compiled) < min(plain)
