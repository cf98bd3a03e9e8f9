"""Builds src/metarep/fast/c/*.c into libraries beside them when the package is installed or packed.

There is one library for each kind of processor, because a vector wider than the registers is kept in memory. Code for
the 64 bytes of AVX-512 took four times as long on a processor that has AVX2. When the package runs, it loads the
library that fits the processor. The code needs no Python header and no particular Python. Without a C compiler (``cc``,
or what ``CC`` names) the package is complete as well: torch does the same then, slower.
"""

import ctypes
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-fPIC", "-shared")
KINDS = {  # library: its flags. The plain one is for any processor; the others are for those of Intel and AMD.
    "compiled.so": ("-DLANES=4",),
    "compiled-avx2.so": ("-DLANES=8", "-march=x86-64-v3"),
    "compiled-avx512.so": ("-DLANES=16", "-march=x86-64-v4"),
}


class BuildCompiled(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        folder = Path(self.root, "src", "metarep", "fast", "c")
        sources = sorted(folder.glob("*.c"))
        built = [name for name, flags in KINDS.items() if build(sources, folder / name, flags)]
        if "compiled.so" in built:
            build_data["artifacts"] += [f"/{(folder / name).relative_to(self.root).as_posix()}" for name in built]
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
        else:
            self.app.display_warning("no C compiler could build src/metarep/fast/c: torch does its work, slower")


def build(sources: list[Path], library: Path, flags: tuple[str, ...]) -> bool:
    """Build one library; False if the compiler does not know its processor, or there is no compiler."""
    library.unlink(missing_ok=True)
    command = [os.environ.get("CC", "cc"), *FLAGS, *flags, *map(str, sources), "-o", str(library), "-lm"]
    try:
        made = subprocess.run(command, capture_output=True, check=False).returncode == 0
        if made and ctypes.CDLL(str(library)):
            return True
    except OSError:  # no such compiler, or a library that this machine cannot load
        pass
    library.unlink(missing_ok=True)
    return False
