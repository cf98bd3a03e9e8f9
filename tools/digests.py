"""Digests of the weights that short trainings give, to show that a change of the code changes no number.

    python tools/digests.py --write tools/digests.json    # before a change
    python tools/digests.py tools/digests.json            # after it, on the same machine

Every method trains 50 steps on glyphs from seed 0 on one thread. The same code gives the same bits on the same CPU and
the same torch; on others the digests differ, so they are compared only where both are equal.
"""

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

METHODS = ["protonet", "siamese", "triplet", "baseline", "maml", "anil", "reptile", "simclr", "moco", "byol", "supcon"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="digests to write, or to compare with")
    parser.add_argument("--write", action="store_true", help="write the file")
    args = parser.parse_args()
    digests = {"machine": machine(), "weights": {method: digest(method) for method in METHODS}}
    if args.write:
        args.file.write_text(json.dumps(digests, indent=2) + "\n")
        return
    before = json.loads(args.file.read_text())
    if before["machine"] != digests["machine"]:
        sys.exit(f"these digests were written on {before['machine']}, and this is {digests['machine']}")
    known = before["weights"]  # a method that was added since is not in it
    changed = [
        method for method in METHODS if known.get(method, digests["weights"][method]) != digests["weights"][method]
    ]
    sys.exit(f"changed: {', '.join(changed)}" if changed else None)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, torch {torch.__version__}"


def digest(method: str) -> str:
    """SHA-256 of the weights and of the optimiser's state after 50 steps: their names, types, shapes and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = f"train {method} --data glyphs --steps 50 --seed 0 --threads 1 --out {folder}/run"
        subprocess.run([sys.executable, "-m", "metarep", *command.split()], check=True, capture_output=True)
        total = hashlib.sha256()
        for file in ("model.safetensors", "state.safetensors"):
            for name, tensor in sorted(load_file(Path(folder, "run", file)).items()):
                total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                total.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    print(method, total.hexdigest()[:16], flush=True)
    return total.hexdigest()


if __name__ == "__main__":
    main()
