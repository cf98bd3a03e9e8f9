"""Fixtures of the proofs: a browser, and where its screenshots go."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import BROWSER
from windows import CAMERA, FLAGS


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser, with a camera that shows a test picture."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is controlled by playwright")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=[*FLAGS, *CAMERA])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the screenshots: METAREP_SCREENSHOTS, or else a temporary one."""
    folder = Path(os.environ.get("METAREP_SCREENSHOTS") or tmp_path_factory.mktemp("pages"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
