"""The benchmark of the server, for a while, as one process and as two: no write is lost and no answer is a 5xx.

METAREP_LOAD_SECONDS says how long; results/timings/serving.json is the record of ten minutes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving import ENCODER

pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'metarep[serve]'")
pytestmark = pytest.mark.proof

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("METAREP_LOAD_SECONDS", "30"))


@pytest.mark.parametrize("workers", [1, 2])
def test_eight_clients_and_another_writer(tmp_path: Path, workers: int) -> None:
    out = tmp_path / "serving.json"
    command = [sys.executable, ROOT / "benchmarks" / "serving.py", "--seconds", f"{SECONDS:g}"]
    command += ["--encoder", ENCODER, "--out", out, "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 300)
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads(out.read_text())
    print(content["note"])
    assert "0 lost writes and 5xx" in content["note"]
    rows = {row["request"]: row for row in content["rows"]}
    assert {"predict", "search", "add", "move", "remove"} <= set(rows)
    assert sum(row["answered"] for row in rows.values()) > 5 * SECONDS
