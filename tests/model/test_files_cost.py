"""What many files cost: memory that does not grow with them, page faults, and decoding beside encoding."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from metarep.cli.options import print_json, print_json_list
from metarep.data.reading import decode
from metarep.weights.named import LITE, _weights

COMMANDS = {
    "predict": (["predict", "MODEL", "PHOTOS", "--json"], 600),
    "fit": (["fit", "PHOTOS", "--out", "FITTED", "--encoder", "efficientnet-lite0"], 900),
    "index": (["index", "build", "INDEX", "PHOTOS", "--encoder", "efficientnet-lite0"], 1200),
}  # and the most megabytes

# A process of its own between, for what a child counts as its peak begins with the memory of its parent.
MEASURED = """
import resource, subprocess, sys
with open(sys.argv[1], "wb") as out:
    status = subprocess.run(sys.argv[2:], stdout=out).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(status, used.ru_maxrss, used.ru_minflt)
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Photographs of noise, and a model of the first of them."""
    folder, generator = tmp_path_factory.mktemp("cost"), np.random.default_rng(0)
    for i in range(100):
        place = folder / "PHOTOS" / f"class {i % 4}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(256, size=(20, 30, 3), dtype=np.uint8))
        coarse.resize((300, 200)).save(place / f"{i}.jpg")
        if i < 20:
            (few := folder / "few" / place.name).mkdir(parents=True, exist_ok=True)
            os.link(place / f"{i}.jpg", few / f"{i}.jpg")
    fit = ["fit", "few", "--out", "MODEL", "--encoder", "efficientnet-lite0"]
    subprocess.run([sys.executable, "-m", "metarep", *fit], check=True, cwd=folder, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(_weights(LITE["efficientnet-lite0"]) is None, reason="the weights are not installed")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_keeps_the_memory_that_it_frees_and_takes_little(photographs, name):
    """Without ``keep_freed_memory``, and with hundreds of images at a time, each image costs 13,000 page faults."""
    arguments, most = COMMANDS[name]
    command = [sys.executable, "-c", MEASURED, "out", sys.executable, "-m", "metarep", *arguments]
    told = subprocess.run(command, check=True, cwd=photographs, capture_output=True, text=True).stdout
    status, kilobytes, faults = map(int, told.split())
    assert status == 0
    assert kilobytes / 1000 < most
    if sys.platform == "linux":
        assert faults < 400_000
    if name == "predict":
        assert len(json.loads((photographs / "out").read_text())) == 100


def test_files_are_decoded_while_the_caller_works(monkeypatch):
    begun = []
    monkeypatch.setattr(decode, "decode", lambda source, **_: begun.append(source) or np.array(int(source)))
    sources = [(b"%d" % i, str(i)) for i in range(2000)]
    decoded = decode.decode_all(sources, size=(8, 8), channels=3)
    assert next(decoded) == 0
    already = len(begun)
    assert already < 2000, "and not all of them at once"
    for _ in range(5):
        next(decoded)
    until = time.monotonic() + 5
    while len(begun) <= already and time.monotonic() < until:
        time.sleep(0.01)
    assert len(begun) > already
    assert [np.asarray(each).item() for each in decoded] == list(range(6, 2000))


@pytest.mark.parametrize("items", [[], [1], [{"a": [1, 2]}, {"b": "é\n"}]])
def test_a_list_is_printed_as_if_it_had_been_held(capsys, items):
    print_json(items)
    whole = capsys.readouterr().out
    print_json_list(iter(items))
    assert capsys.readouterr().out == whole


def test_a_list_that_ends_in_an_error_is_not_printed(capsys):
    with pytest.raises(ZeroDivisionError):
        print_json_list(1 / number for number in (1, 0))
    assert capsys.readouterr().out == ""
