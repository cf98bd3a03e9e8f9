"""The pages of quickstart and compare in a real browser: narrow and wide, light and dark, quiet, inside the window."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import BROWSER, FAINT, WIDE, browser
from PIL import Image

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(BROWSER is None, reason="no chromium here, so the page is not looked at"),
]


TRAIN = {"steps": 6, "validate_every": 3, "validation_tasks": 20, "validation_ways": 5, "ways": 8}


def of_quickstart(out: Path) -> None:
    """A page as ``metarep quickstart`` writes it, of trainings of a few steps."""
    from metarep.experiments.quickstart import Entry, Plan, quickstart

    plan = Plan(
        entries=(
            Entry("protonet", {}, {**TRAIN, "queries": 2}),
            Entry("siamese", {}, {**TRAIN, "shots": 2}),
            Entry("triplet", {}, {**TRAIN, "shots": 2}),
        ),
        tasks=60,
    )
    quickstart(out, device="cpu", precision="float32", plan=plan)


def of_compare(out: Path) -> None:
    """A page as ``metarep compare`` writes it, of trainings of a few steps."""
    from metarep.experiments.compare import Comparison, compare

    spans = {"ways": (range(5, 6), range(20, 21)), "shots": (range(1, 2), range(5, 6))}
    encoder = {"name": "conv4", "width": 8}
    plan = Comparison(("glyphs",), ("protonet", "siamese"), seeds=2, budget=2.0, tasks=60, encoder=encoder, **spans)
    compare(plan, out, device="cpu", precision="float32")


@pytest.fixture(scope="module", params=[of_quickstart, of_compare], ids=["quickstart", "compare"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    request.param(out)
    return out / "report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), [*itertools.product((1280, 400), (False, True))])
def test_page(report: Path, page: Any, width: int, dark: bool, tmp_path: Path) -> None:
    page.complaints.clear()
    page.open(report.as_uri(), width=width, dark=dark, touch=width < 600)
    assert page.run("innerWidth") == width
    assert page.run("document.documentElement.scrollWidth") <= width, "the page is wider than its window"
    assert page.run(WIDE) == []
    assert page.run("[...document.querySelectorAll('pre')].filter(each => each.scrollWidth > each.clientWidth)") == []
    assert page.run("[...document.images].filter(each => !each.naturalWidth).length") == 0
    assert page.run("document.images.length") > 60
    assert page.run(FAINT) == []
    assert page.complaints == []
    shot = tmp_path / f"report-{width}-{'dark' if dark else 'light'}.png"
    page.picture(shot)
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape[1] == width
    assert pixels.shape[0] > 2000
    ground = np.median(pixels)
    assert ground < 60 if dark else ground > 220
    assert (np.abs(pixels.astype(int) - ground) > 40).mean() > 0.03, "hardly anything is drawn"
