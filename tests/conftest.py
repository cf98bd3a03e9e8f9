"""What the tests share: drawings that can be learned, small encoders, a cache of their own.

Nothing of metarep is imported before a fixture runs, so that ``--jaxtyping-packages`` can hook in first.
"""

import gc
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # a waiting thread of OpenMP takes no core from other tests
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of commands that a test runs, too: two workers keep two cores busy

if TYPE_CHECKING:
    from torch import Generator, Tensor


def pytest_configure(config: pytest.Config) -> None:
    """One thread a process (the same sums everywhere), and no test touches the cache of whoever runs them.

    Workers of one run share its cache, which they inherit: two processes may fill it at once. The process that only
    hands out tests to them does not import torch.
    """
    gc.disable()  # until all tests are collected: a quarter of that time would go to a search that finds nothing
    worker = hasattr(config, "workerinput")
    if worker or not config.getoption("numprocesses", None):
        import torch

        torch.set_num_threads(1)
        if not torch.cuda.is_available():
            torch.cuda.manual_seed_all = lambda seed: None  # it would format a traceback each time, for later
    if worker:
        return
    config.stash[CACHE] = tempfile.mkdtemp(prefix="metarep-tests-"), os.environ.get("METAREP_CACHE")
    os.environ["METAREP_CACHE"] = config.stash[CACHE][0]
    for drawn in kept_glyphs().glob("glyphs-*"):
        shutil.copytree(drawn, Path(config.stash[CACHE][0], drawn.name))


def pytest_runtest_setup() -> None:
    """Let the annotations of each function be checked again in each test, where they are checked."""
    if checker := sys.modules.get("typechecker"):
        checker.next_test()


def pytest_collection_finish() -> None:
    """Search for garbage again, but no longer among modules and tests, which stay to the end."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    folder, before = config.stash[CACHE]
    keep_glyphs(Path(folder))
    shutil.rmtree(folder, ignore_errors=True)
    if before is None:
        os.environ.pop("METAREP_CACHE", None)
    else:
        os.environ["METAREP_CACHE"] = before


CACHE = pytest.StashKey[tuple[str, str | None]]()


def kept_glyphs() -> Path:
    """Where a run keeps the glyphs that it drew in some seconds, for later runs of the same drawing code."""
    root = Path(__file__).parents[1]
    code = b"".join(path.read_bytes() for path in sorted(root.glob("src/metarep/data/**/*.py")))
    return root / "build" / "tests" / hashlib.sha256(code).hexdigest()[:16]


def keep_glyphs(cache: Path) -> None:
    drawn = [path for path in cache.glob("glyphs-*") if path.is_dir()]
    if not drawn or kept_glyphs().exists():
        return
    try:
        shutil.rmtree(kept_glyphs().parent, ignore_errors=True)  # those of older code
        kept_glyphs().parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=kept_glyphs().parent))
        for path in drawn:
            shutil.copytree(path, part / path.name)
        part.rename(kept_glyphs())
    except OSError:  # a folder that may only be read, a full disk, or another run was first
        pass


@pytest.fixture
def generator() -> "Generator":
    from torch import Generator

    return Generator().manual_seed(0)


@pytest.fixture(scope="session")
def drawings() -> tuple[Any, Any]:
    """Two splits of 40 classes of 20 dark-on-light images of 20 px, made as :func:`draw` says; no class in both."""
    from torch import Generator

    from metarep.data.images import ImageBank
    from metarep.data.labels import Labels
    from metarep.data.split import Split

    def split(name: str, seed: int) -> Split:
        labels = Labels.of([f"{name} {i // 20:02d}" for i in range(800)])
        return Split(ImageBank.from_arrays(draw(40, 20, Generator().manual_seed(seed))), labels, f"drawings/{name}")

    return split("train", 1), split("test", 2)


@pytest.fixture(scope="session")
def preprocess() -> Any:
    """What suits ``drawings``."""
    from metarep.encoders import Preprocess

    return Preprocess((20, 20), 1, (0.0,), (1.0,), invert=True)


@pytest.fixture(scope="session")
def small_encoder(preprocess: Any) -> Callable[..., Any]:
    """A function that makes a small encoder for ``drawings`` from a seed: of 8 to 20 features."""
    import torch

    from metarep.encoders import build_encoder

    def make(name: str = "conv4", seed: int = 0, **settings: Any) -> Any:
        settings = {"conv4": {"width": 16}, "resnet12": {"width": 2, "drop": 0.2}}[name] | settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_encoder(name, preprocess, **settings)

    return make


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL with pgvector, from the wheel of pgserver, for as long as the tests run."""
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))  # or importing it warns
    pgserver = pytest.importorskip("pgserver", reason="needs pgserver: a PostgreSQL to test against")
    if before is None:
        del os.environ["XDG_RUNTIME_DIR"]
    home = Path(tempfile.mkdtemp(prefix="metarep-postgres-"))  # a socket's path must be short
    server = pgserver.get_server(home, cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(home, ignore_errors=True)


def draw(classes: int, each: int, generator: "Generator", side: int = 20) -> "Tensor":
    """Blots: a class is a random 5x5 pattern; an image is that pattern, blurred, moved by up to 3 px and noisy.

    The shifts make raw pixels and untrained features poor, so that learning can be told from luck.
    """
    import torch
    from torch.nn import functional

    pattern = (torch.rand(classes, 1, 5, 5, generator=generator) < 0.4).float()
    smooth = functional.interpolate(pattern, (side - 6, side - 6), mode="bilinear", antialias=True)
    ground = functional.pad(smooth, [6, 6, 6, 6]).repeat_interleave(each, 0)
    moved = torch.empty(classes * each, 1, side, side)
    for i, (down, right) in enumerate(torch.randint(7, (classes * each, 2), generator=generator).tolist()):
        moved[i] = ground[i, :, down : down + side, right : right + side]
    noisy = moved + 0.25 * torch.randn(moved.shape, generator=generator)
    return ((1 - noisy.clamp(0, 1)) * 255).round().to(torch.uint8)
