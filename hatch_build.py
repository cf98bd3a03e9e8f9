"""Builds src/metarep/fast/c/*.c into one library beside them when the package is installed or packed.

It needs no Python header and no particular Python. Without a C compiler (``cc``, or what ``CC`` names) the package is
complete as well: torch does the same then, slower.
"""

import ctypes
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-fPIC", "-shared")


class BuildCompiled(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        folder = Path(self.root, "src", "metarep", "fast", "c")
        library = folder / "compiled.so"
        library.unlink(missing_ok=True)
        if build(sorted(folder.glob("*.c")), library):
            build_data["artifacts"].append(f"/{library.relative_to(self.root).as_posix()}")
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
        else:
            self.app.display_warning("no C compiler could build src/metarep/fast/c: torch does its work, slower")


def build(sources: list[Path], library: Path) -> bool:
    """First with a version for each kind of processor, which not every compiler can make."""
    for more in (("-DCLONES",), ()):
        command = [os.environ.get("CC", "cc"), *FLAGS, *more, *map(str, sources), "-o", str(library), "-lm"]
        try:
            if subprocess.run(command, capture_output=True, check=False).returncode == 0 and ctypes.CDLL(str(library)):
                return True
        except OSError:  # no such compiler, or a library that this machine cannot load
            continue
    library.unlink(missing_ok=True)
    return False
