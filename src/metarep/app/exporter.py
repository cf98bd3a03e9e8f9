"""Exporter: the model as an ONNX graph, made by another process."""

import asyncio
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from fastapi import HTTPException

from metarep.errors import missing_extra
from metarep.model.folder import ModelFolder

PATIENCE = 300.0  # seconds


class Exporter:
    """Tracing a network replaces its weights for a while, which must not happen to those that answer questions; and it
    takes some seconds, in which they are to be answered. So ``metarep export`` does it. One at a time.

    Args:
        folder: the model.
    """

    def __init__(self, folder: ModelFolder) -> None:
        self.folder, self._lock = folder, asyncio.Lock()

    async def onnx(self) -> IO[bytes]:
        """The graph, in a file that is gone when it is closed.

        Raises:
            HTTPException: 501 where the packages are missing, with how to install them; 409 where this model cannot be
                exported, with why.
        """
        for package in ("onnx", "onnxscript"):
            if find_spec(package) is None:
                raise HTTPException(501, str(missing_extra("ONNX export", package, "onnx")))
        async with self._lock:
            with tempfile.TemporaryDirectory() as place:
                path = Path(place) / "model.onnx"
                await self._run("export", str(self.folder.path), "--onnx", str(path))
                return path.open("rb")  # it stays readable when its folder is gone

    async def _run(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "metarep", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
        except TimeoutError:
            raise HTTPException(503, f"the export took longer than {PATIENCE:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines() or ["the export failed"]
            why = lines[-1].removeprefix("metarep: ").removeprefix("error: ")
            raise HTTPException(409, why.replace(str(self.folder.path), "the model"))
