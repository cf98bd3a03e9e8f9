"""Exporter: makes the ONNX graph of a model in another process."""

import asyncio
import sys
import tempfile
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from fastapi import HTTPException
from filelock import AsyncFileLock

from metarep.app.paths import without_path
from metarep.errors import missing_extra
from metarep.model.store import ModelStore

PATIENCE = 300.0  # seconds


class Exporter:
    """Runs ``metarep export`` in a process of its own, one at a time.

    Tracing a network replaces its weights for a while, and takes some seconds. The server's own network must not change
    meanwhile, because it answers requests.

    Args:
        folder: the model folder.
        shared: a folder that the workers of one server share, so that only one of them exports at a time; None for a
            server that is one process.
    """

    def __init__(self, folder: ModelStore[Any], shared: Path | None = None) -> None:
        self.folder, self.shared, self._lock = folder, shared, asyncio.Lock()

    async def onnx(self) -> IO[bytes]:
        """Export the model as an ONNX graph, and return it as an open file, which is deleted when it is closed.

        Raises:
            HTTPException: 501 if a package is missing, with how to install it; 409 if this model cannot be exported,
                with the reason; 503 if the export takes longer than five minutes.
        """
        for package in ("onnx", "onnxscript"):
            if find_spec(package) is None:
                raise HTTPException(501, str(missing_extra("ONNX export", package, "onnx")))
        async with self._lock, AsyncFileLock(self.shared / "export.lock") if self.shared else nullcontext():
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "model.onnx"
                await self._run("export", str(self.folder.path), "--onnx", str(path))
                return path.open("rb")  # an open file stays readable after its directory is deleted

    async def _run(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "metarep", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, stderr = await asyncio.wait_for(process.communicate(), PATIENCE)
        except TimeoutError:
            raise HTTPException(503, f"the export took longer than {PATIENCE:g} s; try again later") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            lines = stderr.decode(errors="replace").strip().splitlines() or ["the export failed"]
            reason = lines[-1].removeprefix("metarep: ").removeprefix("error: ")
            raise HTTPException(409, without_path(reason, self.folder.path))
