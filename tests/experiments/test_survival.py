"""Nothing is lost: the quick form of benchmarks/survival.py."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it forks, and fills a tmpfs")
def test_killed_torn_and_stopped_trainings_lose_nothing() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "survival.py"), "--quick"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("nothing lost: 11 kills of 11 methods (")
